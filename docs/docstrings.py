"""Sphinx extension: docstrings and signatures as they stand in the source.

Docstrings here are plain text that reads well in an editor: formulas in Unicode, displayed ones
indented, |x| for a norm, and fields of tuples and dataclasses described by a comment on their line.
Annotations are jaxtyping's, whose shapes are strings. This turns both into what Sphinx understands.
"""

import ast
import inspect
import pydoc
import re
import textwrap
from types import ModuleType
from typing import Any, NamedTuple

from sphinx.application import Sphinx

_PACKAGE = "adam_transition"
_DISPLAY = 4  # spaces before a displayed formula; sections of a docstring have two
_FIRST = 400  # before napoleon, which turns sections into fields


class Field(NamedTuple):
    """A field of a tuple or dataclass."""

    name: str
    annotation: str
    default: str | None
    comment: str


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the extension."""
    app.connect("autodoc-process-docstring", _process_docstring, priority=_FIRST)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    return {"version": "1", "parallel_read_safe": True}


def as_restructured_text(lines: list[str]) -> list[str]:
    """Bars escaped, so that they are no substitutions, and displayed formulas as they stand."""
    found: list[str] = []
    in_display = False
    for line in lines:
        indented = line.startswith(" " * _DISPLAY)
        if indented and not in_display and found and not found[-1].strip():
            in_display = not _continues_a_list(found)
            if in_display:
                found += [".. code-block:: text", ""]
        elif line.strip() and not indented:
            in_display = False
        if not in_display:
            line = re.sub(r"(?<!\\)\|", r"\\|", line)
            line = re.sub(r"(`[^`]+`)(\w?)", _separate, line)
        found.append(line)
    return found


def fields(cls: type) -> list[Field]:
    """The annotated fields of a class, in order, with the comments on their lines."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = []
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :]
            comment = last.decode().partition("#")[2].strip()
            default = ast.unparse(node.value) if node.value else None
            if default and default.startswith("field("):
                default = "…" if "default" in default else None
            found.append(Field(node.target.id, ast.unparse(node.annotation), default, comment))
    return [field for field in found if not field.name.startswith("_")]


def signature(function: Any) -> tuple[str, str | None]:
    """Arguments and result of a function, as the source annotates them."""
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(node, ast.FunctionDef)
    first = (node.args.posonlyargs or node.args.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        (node.args.posonlyargs or node.args.args).pop(0)
    result = None if node.returns is None else ast.unparse(node.returns)
    return f"({ast.unparse(node.args)})", result


def _separate(match: re.Match[str]) -> str:
    """The plural of a name: `Fraction`s."""
    return rf"{match[1]}\ {match[2]}" if match[2] else match[1]


def _is_record(what: str, obj: object) -> bool:
    return what == "class" and (hasattr(obj, "_fields") or hasattr(obj, "__dataclass_fields__"))


def _continues_a_list(lines: list[str]) -> bool:
    before = [line for line in lines if line.strip()][-1:]
    return bool(before) and before[0].startswith("  ")


def _process_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    del app, name, options
    found = as_restructured_text(lines)
    if what in ("data", "attribute", "property"):
        # an empty comment, or napoleon takes what is before a colon for a type
        found[:0] = ["..", ""]
    if _is_record(what, obj):
        found.append("")
        for field in fields(obj):
            comment = as_restructured_text([field.comment])[0]
            found.append(f"- ``{field.name}``: ``{field.annotation}``{comment and ' – '}{comment}")
        found.append("")
    lines[:] = found


def _process_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, result: Any
) -> tuple[str, str | None] | None:
    del app, name, options, arguments, result
    if _is_record(what, obj):
        names = [f.name if f.default is None else f"{f.name}={f.default}" for f in fields(obj)]
        return f"({', '.join(names)})", None
    if getattr(obj, "_is_protocol", False):
        return "", None
    if what in ("function", "method"):
        return signature(obj)
    return None


def _skip(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Fields are listed with their class, and what is built in is not ours."""
    del app, what, name, skip, options
    return True if type(obj).__name__ == "_tuplegetter" or inspect.isbuiltin(obj) else None


def _resolve(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Names as they are written in the code, `problems.counterexample`, say."""
    if node.get("refdomain") != "py":
        return None
    name = f"{_PACKAGE}.{node['reftarget'].removeprefix(f'{_PACKAGE}.')}"
    obj = pydoc.locate(name)
    if isinstance(obj, ModuleType):
        target = obj.__name__
    else:
        target = f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', '')}"
    python = env.get_domain("py")
    if target not in python.objects:
        return None
    return python.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], target, node, content
    )
