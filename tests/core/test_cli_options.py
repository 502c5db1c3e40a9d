import re

import pytest
import typer
from typer.testing import CliRunner

from napari_unet.cli.options import Several, repeated, with_settings
from napari_unet.inference.config import PredictConfig
from napari_unet.settings import FORMER
from napari_unet.training.config import TrainConfig


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("--images A B --out M", "--images A --images B --out M"),
        ("--images A --labels B C D", "--images A --labels B --labels C --labels D"),
        ("--block 64 128 128 STACK --out R", "--block 64 --block 128 --block 128 STACK --out R"),
        ("STACK --block 64 64", "STACK --block 64 --block 64"),
        ("--images A --images B", "--images A --images B"),
        ("--out A B", "--out A B"),
    ],
)
def test_an_option_of_several_values_is_repeated(given, parsed):
    assert list(repeated(given.split(), {"--images", "--labels", "--block"})) == parsed.split()


@pytest.mark.parametrize(
    ("kind", "given", "field", "value"),
    [
        (PredictConfig, "--mirror", "tta", True),
        (PredictConfig, "--split=-1.5", "border_bias", -1.5),
        (PredictConfig, "--split -1.5", "border_bias", -1.5),
        (TrainConfig, "--no-mirror", "flips", False),
        (TrainConfig, "--task super_resolve --factor 2 4 1", "upscale", (2, 4, 1)),
        (TrainConfig, "--task super_resolve --factor 2 --factor 4", "upscale", (2, 4)),
        (TrainConfig, "--task restore --objective l1", "loss", "l1"),
        (TrainConfig, "--task restore --spread", "predict_std", True),
        (TrainConfig, "--border 4", "border_weight", 4.0),
    ],
)
def test_a_former_option_works_and_says_its_present_name(kind, given, field, value):
    found = []
    app = typer.Typer()
    app.command(cls=Several)(with_settings(kind)(lambda config: found.append(config)))
    result = CliRunner().invoke(app, given.split())
    assert result.exit_code == 0, result.output
    assert getattr(found[0], field) == value
    assert f"is now --{'no-' * ('--no-' in given)}{field.replace('_', '-')}" in result.stderr
    assert f"is now --{'no-' * ('--no-' in given)}{field.replace('_', '-')}" not in result.stdout


@pytest.mark.parametrize("kind", [PredictConfig, TrainConfig])
def test_former_options_are_not_in_the_help(kind):
    app = typer.Typer()
    app.command(cls=Several)(with_settings(kind)(lambda config: None))
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert not re.search(rf"--(no-)?({'|'.join(FORMER.values())})\b(?!-)", text)
