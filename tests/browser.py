"""A headless Chromium that runs a script in a copy of a page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)

needed = pytest.mark.skipif(not BROWSER, reason="no headless Chromium")


def evaluate(
    page: str, script: str, folder: Path, *, width: int = 1100, fragment: str = "", wait: int = 0
) -> Any:
    """The value of a JavaScript expression, `wait` milliseconds after the page has been loaded.

    Time is the browser's virtual one, which goes on as fast as the page's work allows. Errors of
    the page's own scripts are errors here.
    """
    measure = f"""<script>
      const errors = [];
      addEventListener("error", (event) => errors.push(event.message));
      addEventListener("load", () => setTimeout(async () => {{
        let value = null;
        try {{ value = await ({script}); }} catch (error) {{ errors.push(String(error)); }}
        document.title = JSON.stringify({{ value, errors }});
      }}, {wait}));
    </script>"""
    copy = folder / "page.html"
    copy.write_text(page.replace("<head>", f"<head>{measure}", 1), encoding="utf-8")
    assert BROWSER
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--disable-background-networking", "--disable-component-update", "--no-first-run",
         f"--virtual-time-budget={wait + 10_000}", "--dump-dom",
         f"--user-data-dir={folder / 'profile'}", f"{copy.as_uri()}{fragment}"],
        capture_output=True, text=True, check=True, timeout=240,
    ).stdout  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert title
    found = json.loads(html.unescape(title.group(1)))
    assert found["errors"] == []
    return found["value"]
