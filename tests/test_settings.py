import dataclasses

import pytest

from napari_unet.errors import UsageError
from napari_unet.inference.config import PredictConfig
from napari_unet.settings import check, setting
from napari_unet.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = setting(4, "Size", ge=1, le=8)
    colour: str = setting("red", "Colour", choices=("red", "blue"))
    limit: float | None = setting(None, "Limit", ge=0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"size": 9}, "size is 9; it must be at most 8"),
        ({"colour": "green"}, "colour is 'green'; choose one of red, blue"),
        ({"limit": -1.0}, "limit is -1.0; it must be at least 0"),
    ],
)
def test_a_value_beyond_its_limits_is_named(wrong, says):
    with pytest.raises(UsageError, match=says):
        check(Settings(**wrong))


def test_values_within_their_limits_pass():
    check(Settings())
    check(Settings(size=8, colour="blue", limit=0.0))


@pytest.mark.parametrize("config", [PredictConfig, TrainConfig])
def test_every_setting_has_a_line_of_help_and_a_default_within_its_limits(config):
    check(config())
    for field in dataclasses.fields(config):
        assert 0 < len(field.metadata["help"]) < 100
