"""The documentation's scripts run as they are written."""

import re
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in sorted(Path("docs").glob("*.md"))
        if "```python" in page.read_text(encoding="utf-8")
    ],
    ids=str,
)
def test_the_scripts_of_a_page_run(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": "page"})
    assert "nan" not in capsys.readouterr().out
