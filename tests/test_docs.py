"""The documentation: its scripts run as they are written, and its site builds without a warning."""

import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import adam_transition

BLOCKS = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in sorted(Path("docs").rglob("*.md"))
        if BLOCKS.search(page.read_text(encoding="utf-8"))
    ],
    ids=str,
)
def test_the_scripts_of_a_page_run(page, capsys):
    blocks = BLOCKS.findall(page.read_text(encoding="utf-8"))
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": "page"})
    assert "nan" not in capsys.readouterr().out


class _Page(HTMLParser):
    """The links of a page, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id"))
        self.links.update(found[name] for name in ("href", "src") if found.get(name))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", str(out / "doctrees"), "docs", str(out / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: _Page(path) for path in site.rglob("*.html")}


def test_every_page_and_notebook_is_in_the_site(site):
    sources = [path.relative_to("docs") for path in Path("docs").rglob("*.md")]
    sources += [Path("notebooks", path.name) for path in Path("notebooks").glob("*.ipynb")]
    start = _Page(site / "index.html")
    for source in sources:
        assert (site / source.with_suffix(".html")).is_file()
        if source != Path("index.md"):
            assert str(source.with_suffix(".html")) in start.links


def test_every_module_is_in_the_reference(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    packaged = {
        module.name
        for module in pkgutil.walk_packages(adam_transition.__path__, "adam_transition.")
        if not any(part.startswith("_") for part in module.name.split("."))
    }
    assert {f"module-{name}" for name in packaged} <= anchors


def test_every_public_name_is_in_the_reference(pages):
    anchors = set().union(*(page.anchors for page in pages.values()))
    for package in ("advise", "problems"):
        module = __import__(f"adam_transition.{package}", fromlist=["__all__"])
        for name in module.__all__:
            one = getattr(module, name)
            if getattr(one, "__module__", "").startswith("adam_transition"):
                assert f"{one.__module__}.{one.__qualname__}" in anchors


def test_links_and_anchors_lead_somewhere(site, pages):
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target.suffix == ".html":
                found = pages[site / target.relative_to(site.resolve())].anchors
                assert unquote(parts.fragment) in found, f"{path.relative_to(site)}: {link}"


def test_signatures_are_those_of_the_source(site):
    text = (site / "api/theory.html").read_text(encoding="utf-8")
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text)).replace("&#39;", "'")
    assert "gradients: Float[np.ndarray, 'n d']" in plain
    assert "drift: Float[np.ndarray, '... d'] – −n E[m/(√v + ε)]" in plain  # a comment of a field
    assert "Alias for field number" not in plain
