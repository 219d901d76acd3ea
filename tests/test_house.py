"""The rooms of the package: who may import whom, and how large things may grow."""

import ast
import re
from pathlib import Path

import grimp
import pytest

import adam_transition

PACKAGE = Path(adam_transition.__file__).parent
FLOORS = (
    {"__main__"},
    {"commands"},
    {"studies"},
    {"advise"},
    {"networks"},
    {"kernels", "theory"},
    {"simulate"},
    {"moving_unit", "optimizers", "problems"},
    {"adam", "sampling"},
    {"checks", "sweeps"},
)
"""From the commands down; a room imports from lower floors only."""


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("adam_transition", exclude_type_checking_imports=True, cache_dir=None)


def _room(module):
    return module.split(".")[1] if "." in module else ""


def _imports(graph):
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            yield module, imported


def test_every_room_has_its_floor(graph):
    rooms = {_room(module) for module in graph.modules} - {""}
    assert rooms == set().union(*FLOORS)


def test_imports_go_down(graph):
    level = {room: i for i, floor in enumerate(FLOORS) for room in floor}
    wrong = [
        f"{module} imports {imported}"
        for module, imported in _imports(graph)
        if _room(module)
        and _room(imported)
        and _room(module) != _room(imported)
        and level[_room(module)] >= level[_room(imported)]
    ]
    assert wrong == []


def test_studies_share_only_what_is_meant_to_be_shared(graph):
    """Advice is about the networks of `batch_size`; the authors' maps are of studies we have."""
    allowed = {
        ("advise", "batch_size"),
        ("published", "phase"),
        ("mnist_plane", "networks"),
        ("mnist_plane", "published"),
    }
    found = set()
    for module, imported in _imports(graph):
        one, other = (re.match(r"adam_transition\.studies\.(\w+)\.", m) for m in (module, imported))
        if one and other and one[1] != other[1]:
            found.add((one[1], other[1]))
    assert found <= allowed


def test_no_modules_import_each_other_in_a_circle(graph):
    """A lazy import inside a function counts too."""
    edges = {}
    for module, imported in _imports(graph):
        edges.setdefault(module, set()).add(imported)
    circles = {
        tuple(sorted((module, imported)))
        for module, imported in _imports(graph)
        if module in _reachable(imported, edges)
    }
    assert circles == set()


def _reachable(start, edges):
    seen, todo = set(), [start]
    while todo:
        for following in edges.get(todo.pop(), ()):
            if following not in seen:
                seen.add(following)
                todo.append(following)
    return seen


def test_what_runs_sweeps_knows_nothing_of_adam(graph):
    for module in graph.find_descendants("adam_transition.sweeps"):
        for imported in graph.find_modules_directly_imported_by(module):
            assert imported.startswith("adam_transition.sweeps"), (module, imported)


def _functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def _lines(node):
    """Of a function, without its docstring."""
    first = node.body[0]
    docstring = 0
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        docstring = first.end_lineno - first.lineno + 1
    return node.end_lineno - node.lineno + 1 - docstring


def test_no_function_is_longer_than_70_lines():
    long = {
        f"{path.relative_to(PACKAGE)}:{node.name}": _lines(node)
        for path in PACKAGE.rglob("*.py")
        for node in _functions(path)
        if _lines(node) > 70
    }
    assert long == {}
