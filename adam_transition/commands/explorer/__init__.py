"""The explorer: an interactive page of the boundary and the runs at any n, a and order.

It shows Adam and the five optimisers whose drift in cyclic order is exact because their state
repeats with the epoch. In random orders only Adam's is exact: of the others it then shows the runs.

The page is self-contained and can be opened from a file. Example:

    python -m experiments.explorer --out=out/explorer
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from adam_transition.commands import _flags, _outputs, _runner

FLAGS = _flags.common_flags("explorer", figures=False)


def main(values: dict[str, Any]) -> None:
    """Writes explorer.html; all computation happens in the browser."""
    path = Path(values["out"]) / "explorer.html"
    _outputs.write_text(path, page())
    _outputs.write_json("explorer", values, [])
    if values["json"] != "-":
        print(f"wrote {path}")


def page() -> str:
    """The page as HTML, with the colours of the figures."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"](range(256), bytes=True)[:, :3].tolist()
    return (
        _asset("page.html")
        .replace("/*PALETTE*/[]", json.dumps(colours, separators=(",", ":")))
        .replace("/*MATHEMATICS*/", _asset("mathematics.js"))
        .replace("/*OPTIMIZERS*/", _asset("optimizers.js"))
        .replace("/*PAGE*/", _asset("page.js"))
    )


def _asset(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


COMMAND = _runner.Command("explorer", __doc__, FLAGS, main)
