"""What a message tells somebody to use exists: options, commands, functions."""

import ast
import re
from pathlib import Path

import pytest
import typer

import napari_unet
from napari_unet.cli import app

SOURCE = Path(napari_unet.__file__).parent
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {name for c in COMMANDS.values() for p in c.params for name in (*p.opts, *p.secondary_opts)}
OPTIONS |= {"--help", "--version"}
OF_OTHERS = {"--force-reinstall", "--no-deps"}  # pip's


def docstrings(tree):
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (node.body[0] for node in ast.walk(tree) if isinstance(node, holders) and node.body)
    return {id(first.value) for first in found if isinstance(first, ast.Expr)}


def messages():
    """(file and line, text) of every string that is not a docstring; what is filled in is a blank."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        passed = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                passed |= {id(part) for part in node.values}
                text = "".join(part.value if isinstance(part, ast.Constant) else " \0 " for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
                text = node.value
            else:
                continue
            yield f"{path.relative_to(SOURCE)}:{node.lineno}", text


MESSAGES = list(messages())


def named(pattern):
    return [(place, name) for place, text in MESSAGES for name in re.findall(pattern, text)]


def test_messages_are_found():
    assert "--overwrite" in {name for _, name in named(r"--[a-z][a-z-]*")}
    assert len(MESSAGES) > 1000


def test_every_option_that_is_named_exists():
    wrong = [
        (place, name)
        for place, name in named(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
        if name not in OPTIONS | OF_OTHERS
    ]
    assert not wrong


def test_every_command_that_is_named_exists():
    named_so = named(r"napari-unet ([a-z]\w+)(?!\w)")
    people = {"contributors"}  # who made the package
    assert not [(place, name) for place, name in named_so if name not in {*COMMANDS, *people}]


@pytest.mark.parametrize("pattern", [r"napari_unet\.([a-z_]\w*(?:\.\w+)*)\("])
def test_every_function_that_is_named_exists(pattern):
    assert not [(place, name) for place, name in named(pattern) if not hasattr(napari_unet, name.partition(".")[0])]
