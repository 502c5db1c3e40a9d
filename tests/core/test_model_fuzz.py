"""Whatever a model's card holds in place of what it should, it is refused in one line, or loads to a whole model."""

import json
import math

import numpy as np
import pytest
import torch

from kinds import KINDS
from napari_unet.errors import DataError, UnetError
from napari_unet.model import load_model
from napari_unet.training.checkpoint import Checkpoints
from napari_unet.training.run import RUN, Run

DEEP = "DEEP"
ODD = [
    float("inf"),
    float("nan"),
    -1,
    0,
    1e308,
    10**400,
    2**63,
    True,
    None,
    "",
    "\x00" * 3,
    [],
    [None],
    [[1]],
    {},
    {"a": 1},
    [float("nan")] * 3,
    [10**30] * 2,
    DEEP,
]


def places(value, at=()):
    """Yield the path of each value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if at == ("record",):
            continue
        yield (*at, key)
        yield from places(inner, (*at, key))


def changed(card, at, value):
    card = json.loads(json.dumps(card))
    place = card
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    text = json.dumps(card)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "cascade"])
def test_no_odd_value_in_a_card_ends_in_a_traceback(kind, tmp_path):
    model = KINDS[kind]().save(tmp_path / "m.model")
    path = tmp_path / "m.model" / "model.json"
    card = json.loads(path.read_bytes())
    first = list(KINDS).index(kind)
    for number, at in enumerate(places(card), first):
        for odd in (ODD[number % len(ODD)], ODD[(7 * number + 3) % len(ODD)]):  # all of them, over keys and kinds
            path.write_text(changed(card, at, odd))
            try:
                found = load_model(path.parent)
            except UnetError as error:
                assert str(error) and "\n" not in str(error), (at, odd)
            else:
                assert found.sha256 == model.sha256, (at, odd)
                assert found.card()


@pytest.mark.parametrize("at", [(), ("config",), ("task",), ("normalisation",), ("weights",), ("record",)])
def test_a_part_that_is_gone_or_of_another_type_is_named(at, tmp_path):
    KINDS["instances"]().save(tmp_path / "m.model")
    path = tmp_path / "m.model" / "model.json"
    card = json.loads(path.read_bytes())
    for odd in [*ODD, "x" * 100_000, list(range(1000)), np.pi]:
        path.write_text(changed({"card": card}, ("card", *at), odd).removeprefix('{"card": ').removesuffix("}"))
        try:
            load_model(path.parent)
        except UnetError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        else:
            assert at == ("record",)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_value_in_a_checkpoint_or_a_run_goes_back_or_is_named(odd, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"a": torch.ones(2)}, {"step": step, "best": -math.inf, "history": [{"loss": 0.5}]})
    path = tmp_path / "checkpoint-000000002.json"
    card = json.loads(path.read_bytes())
    for at in [*places(card), ("state", "more")]:
        path.write_text(changed(card, at, odd))
        found = checkpoints.load()
        assert found is not None and (found.state["step"] == 1 or found.state == card["state"])
        if found.state["step"] == 1:
            assert "checkpoint-000000002" in found.notes[0] and "\n" not in found.notes[0]
    for at in [("plan",), ("task",), ("settings",), ("data",), ("channel_names",)]:
        (tmp_path / RUN).write_text(changed({key: {} for (key,) in [at]}, at, odd))
        with pytest.raises(DataError, match=r"run\.json is damaged"):
            Run.open(tmp_path)
