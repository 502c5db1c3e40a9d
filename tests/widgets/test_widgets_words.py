"""What a message in the window tells somebody to use is there: a control by its name, and no option of the shell."""

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("napari")
pytest.importorskip("qtpy.QtWidgets")

from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

import napari_unet
from napari_unet.widgets.batch import BatchWidget
from napari_unet.widgets.panel import as_said_here
from napari_unet.widgets.segment import SegmentWidget
from napari_unet.widgets.train import TrainWidget

SOURCE = Path(napari_unet.__file__).parent
# What no window calls: the shell itself, packages for other programs, and what is copied for the shell.
ELSEWHERE = ("cli/", "doctor.py", "zoo/", "__init__.py", "widgets/snippets.py", "demo.py")
OPTION = r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])"
TOLD = r"\b(?:press|tick|untick|below|choose the task) \"?([A-Z][a-z]+(?: (?:[a-z]+|\+1))*)\"?(?= and|[ ,.;:]|$)"


def strings():
    """(place, text) of every string that a window may show."""
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith(ELSEWHERE):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
                yield f"{place}:{node.lineno}", node.value


@pytest.fixture
def names(viewer, folders):
    """The texts of all controls of the three forms."""
    found = set()
    for kind in (SegmentWidget, TrainWidget, BatchWidget):
        native = kind(viewer).native
        found |= {child.text() for child in (*native.findChildren(QLabel), *native.findChildren(QAbstractButton))}
        for box in native.findChildren(QComboBox):
            found |= {box.itemText(i) for i in range(box.count())}
    return {re.sub(r" \(.*|[▸▾] ?|:$", "", text).strip() for text in found}


def test_whatever_a_message_calls_an_option_of_the_shell_is_a_control_here(names):
    options = {(option, place) for place, text in strings() for option in re.findall(OPTION, text)}
    assert len(options) > 30
    said = {(as_said_here(option).strip('"'), place) for option, place in options}
    assert not [(name, place) for name, place in sorted(said) if name not in names]


def test_whatever_a_message_tells_somebody_to_press_is_there(names):
    told = [(n, p) for p, text in strings() if p.startswith("widgets/") for n in re.findall(TOLD, text)]
    assert len(told) >= 4
    assert not [(name, place) for name, place in told if not any(known and name.startswith(known) for known in names)]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("choose less with --memory", 'choose less with "Memory"'),
        ("replace it with --overwrite", 'replace it with "Overwrite"'),
        (
            "take every label above 0 as one class with --binary",
            'take every label above 0 as one class with "Foreground"',
        ),
        ("(--axes czyx)", '("Axes" czyx)'),
        ("a well-known --thing", 'a well-known "Thing"'),
    ],
)
def test_options_are_called_what_their_controls_are(message, said):
    assert as_said_here(message) == said
