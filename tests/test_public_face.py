"""What `import adam_transition` offers, and what it does not do."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import adam_transition


def test_the_face_is_functions_and_the_rooms_they_live_in():
    assert adam_transition.__all__ == sorted(adam_transition.__all__)
    for name in adam_transition.__all__:
        found = getattr(adam_transition, name)
        assert found.__doc__
        assert found.__name__ in (name, f"adam_transition.{name}")
    assert adam_transition.__version__
    with pytest.raises(AttributeError, match="'adam_transition' has no attribute 'nothing'"):
        _ = adam_transition.nothing


def test_no_module_is_hidden_by_a_function_of_its_name():
    for module in pkgutil.walk_packages(adam_transition.__path__, "adam_transition."):
        if module.name.endswith("__main__"):
            continue
        package, _, name = module.name.rpartition(".")
        importlib.import_module(module.name)
        if package != "adam_transition":
            kept = getattr(importlib.import_module(package), name)
            assert kept is sys.modules[module.name], module.name


def test_nothing_heavy_is_imported_before_it_is_used():
    script = (
        "import adam_transition, sys; print('jax' in sys.modules, end='');"
        "adam_transition.sampling; print(*({'jax', 'xarray', 'matplotlib'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert found == "Falsejax\n"
