import dataclasses

import pytest

from napari_unet.errors import UsageError
from napari_unet.inference.config import PredictConfig
from napari_unet.network import UNetConfig
from napari_unet.settings import check, from_keys, setting, to_keys
from napari_unet.task import Instances, Semantic, SuperResolve
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


FORMER_NAMES = [
    (PredictConfig, {"mirror": True, "split": 1.0}, {"tta": True, "border_bias": 1.0}),
    (TrainConfig, {"task": "instances", "mirror": False, "border": 3.0}, {"flips": False, "border_weight": 3.0}),
    (TrainConfig, {"task": "super_resolve", "factor": (2, 2)}, {"upscale": (2, 2)}),
    (TrainConfig, {"task": "restore", "objective": "l1", "spread": True}, {"loss": "l1", "predict_std": True}),
    (UNetConfig, {"factor": (2, 2)}, {"upscale": (2, 2)}),
    (Instances, {"split": 1.0}, {"border_bias": 1.0}),
    (Semantic, {"objective": "ce"}, {"loss_name": "ce"}),
    (SuperResolve, {"objective": "l1", "spread": True}, {"loss_name": "l1", "predict_std": True}),
]


@pytest.mark.parametrize(("kind", "former", "present"), FORMER_NAMES)
def test_a_script_may_use_former_names_and_is_told_the_present_ones(kind, former, present):
    with pytest.warns(DeprecationWarning, match="is now") as told:
        config = kind(**former)
    assert {name: getattr(config, name) for name in present} == present
    assert all(warning.filename == __file__ for warning in told)


@pytest.mark.parametrize(("kind", "former", "present"), FORMER_NAMES)
def test_files_keep_former_names_as_keys_and_are_read_under_both(kind, former, present):
    rest = {name: value for name, value in former.items() if name == "task"}
    config = kind(**rest, **present)
    keys = to_keys(config)
    assert not set(present) & set(keys) and former.items() <= keys.items()
    assert kind(**from_keys(kind, keys)) == config == kind(**from_keys(kind, {**rest, **present}))


def test_replacing_a_field_by_its_former_name_wins_over_what_was_there():
    with pytest.warns(DeprecationWarning, match="mirror of PredictConfig is now tta"):
        assert dataclasses.replace(PredictConfig(tta=True), mirror=False).tta is False
