"""Every message of an error with its remedy, read from the source, for the page Troubleshooting: a hook of mkdocs."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "napari_unet"
MARK = "<!-- every message -->"
UNKNOWN = "…"  # what is only known in a run


class Message(NamedTuple):
    """What an error says, as Markdown, and the name of its class."""

    kind: str
    text: str


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the list in the place of its mark."""
    return markdown.replace(MARK, _listed()) if MARK in markdown else markdown


def messages() -> list[Message]:
    """Return what each error of the source says."""
    return sorted({message for tree in _trees() for message in _said(tree)})


def _listed() -> str:
    """Return a list for each kind of error; what to do comes after the last semicolon, in bold."""
    found = messages()
    parts = []
    for kind, about in _kinds().items():
        rows = [re.sub("; ([^;]+)$", r"; **\1**", text) for each, text in found if each == kind]
        if rows:
            parts.append("\n".join([f"### {kind}", "", about, "", *(f"- {row}" for row in rows)]))
    return "\n\n".join(parts)


@functools.cache
def _trees() -> list[ast.Module]:
    return [ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))]


@functools.cache
def _kinds() -> dict[str, str]:
    """Return what each class of errors is for."""
    tree = ast.parse((SOURCE / "errors.py").read_text("utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


@functools.cache
def _returned() -> dict[str, list[ast.expr]]:
    """Return what the functions of each name return."""
    found: dict[str, list[ast.expr]] = {}
    for node in (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        values = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
        found.setdefault(node.name, []).extend(values)
    return found


@functools.cache
def _constants() -> dict[str, str]:
    """Return the text of each constant that stands in a message."""
    found = {}
    for node in (node for tree in _trees() for node in tree.body if isinstance(node, ast.Assign)):
        match node.targets[0], node.value:
            case ast.Name(name), ast.Constant(str() | int() as value):
                found[name] = str(value)
    return found


def _said(tree: ast.Module) -> Iterator[Message]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in _kinds():
            texts = (re.sub(r"\s+", " ", text).strip() for text in _texts(node.args[0]))
            yield from (Message(ast.unparse(node.func), text) for text in texts if re.search("[a-z]", text))


def _texts(node: ast.expr) -> list[str]:
    """Return each text that an expression can be."""
    found = [UNKNOWN]
    match node:
        case ast.Constant(str(value)):
            found = [_plain(value)]
        case ast.JoinedStr(values):
            found = ["".join(_texts(each)[0] for each in values)]
        case ast.FormattedValue(value):
            found = [_named(value)]
        case ast.Name(name):
            found = [_plain(_constants()[name])] if name in _constants() else found
        case ast.BinOp(left, ast.Add(), right):
            found = [one + other for one in _texts(left) for other in _texts(right)]
        case ast.IfExp(_, yes, no):
            found = _texts(yes) + _texts(no)
        case ast.Call(ast.Name(name) | ast.Attribute(_, name)):
            found = [text for each in _returned().get(name, ()) for text in _texts(each)] or found
    return found


def _named(value: ast.expr) -> str:
    """Return what stands in a message for a value: a constant itself, else the last word of its name."""
    match value:
        case ast.Name(name) if name in _constants():
            return _plain(_constants()[name])
        case ast.Name(name) | ast.Attribute(_, name):
            return f"<i>{name.strip('_').replace('_', ' ')}</i>"
        case ast.BinOp(ast.Constant(str(end)), ast.Mult(), _):
            return f"({end})"
        case ast.Call(ast.Name(name)) if name.startswith("_"):
            return _texts(value)[0]
        case _:
            return UNKNOWN


def _plain(text: str) -> str:
    """Return a text in which nothing is taken for markup."""
    return re.sub(r"([\\`*_{}\[\]<>])", r"\\\1", text)
