"""The explorer: one page on which n, a and the order move, and the boundary and the runs with them.

It needs nothing beside it, and works from a file. Example:

    python -m experiments.explorer --out=out/explorer
"""

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from experiments import common

FLAGS = common.common_flags("explorer", figures=False)


def main(values: dict[str, Any]) -> None:
    """Writes explorer.html; the browser computes the rest."""
    path = Path(values["out"]) / "explorer.html"
    common.write_text(path, page())
    common.write_json("explorer", values, [])
    if values["json"] != "-":
        print(f"wrote {path}")


def page() -> str:
    """The page as HTML, with the colours of the figures."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"](range(256), bytes=True)[:, :3].tolist()
    return (
        _asset("explorer.html")
        .replace("/*PALETTE*/[]", json.dumps(colours, separators=(",", ":")))
        .replace("/*ADAM*/", _asset("explorer_adam.js"))
        .replace("/*PAGE*/", _asset("explorer_page.js"))
    )


def _asset(name: str) -> str:
    return resources.files("experiments").joinpath("assets", name).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(common.run("explorer", __doc__, FLAGS, main))
