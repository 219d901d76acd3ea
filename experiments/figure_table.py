"""docs/figures.md from the headers of the flagfiles.

python -m experiments.figure_table
"""

from pathlib import Path

from adam_transition.commands import NAMES, _flagfiles

PAGE = Path(__file__).parent.parent / "docs" / "figures.md"

_INTRODUCTION = """# Every figure

A flagfile stores the flags of one figure. In a checkout it is run as

```sh
python -m experiments.phase --flagfile=experiments/flagfiles/phase.flags
```

and from an installed package, where flagfiles go by their names, as

```sh
adam-transition phase --flagfile=phase
```

Flags after it win over its own: `--n=20 --out=out/mine`. Results go to the folder of `--out`:
labelled data as `NAME.zarr`, a summary with claims and verdicts as `NAME.json`, figures as PNG and
PDF. They are as wide as two columns of a paper; `--figure_width=3.4` draws them for one. Rerun a
command to resume an interrupted run; the result is the same bit for bit. Compiled programs are kept
in the user's cache folder (at most 1 GiB); `JAX_ENABLE_COMPILATION_CACHE=false` turns that off, and
`JAX_COMPILATION_CACHE_DIR` moves it.

`python -m experiments.paper --scale=laptop` (`make paper`) runs those of one laptop and puts every
claim on one page. Times are for two cores.
"""


def page() -> str:
    """The page as Markdown, a table for each command."""
    lines = [_INTRODUCTION]
    names = [name for name in _flagfiles.names() if "/" not in name]
    for command in NAMES:
        of_command = [name for name in names if _flagfiles.command_of(name) == command]
        if not of_command:
            continue
        lines += [
            f"## `experiments.{command}`",
            "",
            "| flagfile | shows | runs | time | result |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name in of_command:
            cells = [text.replace("|", "\\|").rstrip(".") for text in _flagfiles.header(name)]
            shows, runs, time, result = cells
            time = time.removesuffix(" on two cores")
            lines.append(f"| `{name}.flags` | {shows} | {runs} | {time} | {result} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
