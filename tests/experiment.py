"""Running an experiment in this process."""

from types import ModuleType


def run(module: ModuleType, *argv: str) -> int:
    """Exit status of `python -m experiments.NAME`, with fresh flags."""
    module.FLAGS.unparse_flags()
    for flag in module.FLAGS:
        module.FLAGS[flag].unparse()
    return module.COMMAND.run(argv)


def assert_refused(module: ModuleType, out, capsys, argv: list[str], message: str) -> None:
    """Bad input: one line that holds the message, and nothing written."""
    assert run(module, f"--out={out}", *argv) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.startswith(f"{module.__name__.rpartition('.')[2]}: ")
    assert captured.count("\n") == 1
    assert not out.exists()
