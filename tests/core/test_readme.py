"""What the README says runs."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from napari_unet.cli import app
from warm import ended

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_blocks_run(code, tmp_path):
    ended_with, _, wrong = ended(f"import os; os.chdir({str(tmp_path)!r})\n{code}")
    assert ended_with == 0, wrong


def test_every_command_shown_is_there_with_its_options():
    commands = get_command(app).commands
    lines = re.findall(r"^napari-unet (\w+)(.*)$", README, re.MULTILINE)
    assert lines
    for name, rest in lines:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known


@pytest.mark.parametrize("marker", ["demo", "tests"])
def test_the_two_commands_are_one_line_each(marker):
    block = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert len(block.group(1).strip().splitlines()) == 1
