"""What `import adam_transition` offers, and what it does not do."""

import subprocess
import sys

import pytest

import adam_transition


def test_the_face_is_its_modules():
    assert adam_transition.__all__ == sorted(adam_transition.__all__)
    for name in adam_transition.__all__:
        module = getattr(adam_transition, name)
        assert module.__name__ == f"adam_transition.{name}"
        assert module.__doc__
    with pytest.raises(AttributeError, match="'adam_transition' has no attribute 'nothing'"):
        _ = adam_transition.nothing


def test_nothing_heavy_is_imported_before_it_is_used():
    script = (
        "import adam_transition, sys; print('jax' in sys.modules, end='');"
        "adam_transition.sampling; print(*({'jax', 'xarray', 'matplotlib'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert found == "Falsejax\n"
