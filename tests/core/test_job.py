"""A training in its own process: heard, asked, paused, killed and gone on with, to the same model."""

import json

import numpy as np
import pytest
import tifffile

from helpers import collect
from napari_unet import TrainConfig, load_model, open_labels, open_stack, predict, train, wait
from napari_unet.errors import DataError, ResourceError, UsageError
from napari_unet.events import Epoch, Progress
from napari_unet.inference.config import PredictConfig
from napari_unet.process.remote import Remote
from napari_unet.training.fit import begin
from napari_unet.training.job import TrainJob, View, ViewRequest, carry_out
from napari_unet.training.run import training_folder
from napari_unet.training.setup import outlook

SETTINGS = {"depth": 1, "base_features": 4, "precision": "fp32", "device": "cpu", "patch": [32, 32], "batch": 2}


@pytest.fixture
def job(tmp_path):
    """A function that makes a job; its images are bright squares."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (96, 96)).astype(np.float32)
    labels = np.zeros((96, 96), np.uint8)
    labels[20:60, 20:60] = 1
    image[20:60, 20:60] += 60
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    pair = {"image": str(tmp_path / "image.tif"), "labels": str(tmp_path / "labels.tif")}

    def make(name="a", on_disconnect="stop", **config):
        found = TrainJob([pair], str(tmp_path / f"{name}.model"), SETTINGS | config, on_disconnect=on_disconnect)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(found.to_json()))
        return path

    return make


class Heard:
    """A training in its process, and what it has said."""

    def __init__(self, job, resume=False, goes_on=False):
        self.remote = Remote(carry_out, job, resume, goes_on=goes_on, patience=60)
        self.events, self.said, self.result = self.remote.events(), [], None

    def until(self, kind, stage=None):
        """Listen until it says this."""
        for event in self.events:
            if event is not None:
                self.said.append(event)
            if isinstance(event, kind) and stage in (None, getattr(event, "stage", None)):
                return event
        raise AssertionError(f"it never said {kind}: {self.said[-3:]}")

    def end(self):
        """Listen to the end; return the path of the model, and its card."""
        self.result = collect(self.events)[1]
        return self.result


def losses(path):
    history = load_model(path.with_suffix(".model")).record["history"]
    return [(row["step"], row["train_loss"], row["validation_loss"]) for row in history]


def test_it_says_how_far_it_is_and_where_the_model_is(job):
    training = Heard(job(steps=8))
    training.until(Progress)
    training.until(Epoch)
    path, card = training.end()
    assert load_model(path).task.name == "semantic"
    assert "semantic" in card


def test_paused_and_gone_on_with_it_ends_with_the_same_losses_and_weights(job):
    whole, parts = job("whole", steps=60), job("parts", steps=60)
    Heard(whole).end()
    training = Heard(parts)
    training.until(Epoch)
    training.events.close()
    Heard(parts, resume=True).end()
    assert losses(whole) == losses(parts)
    a, b = (load_model(path.with_suffix(".model")) for path in (whole, parts))
    assert a.sha256 == b.sha256


def test_killed_it_goes_on_to_the_same_losses(job):
    whole, parts = job("whole", steps=40), job("parts", steps=40)
    Heard(whole).end()
    training = Heard(parts)
    training.until(Epoch)
    training.remote.child.process.kill()
    with pytest.raises(ResourceError, match="memory ran out; what is done is kept"):
        training.end()
    Heard(parts, resume=True).end()
    assert losses(whole) == losses(parts)


def test_stopped_it_makes_a_model_at_once_and_can_still_be_gone_on_with(job):
    path, steps = job(steps=100_000), [0]
    for resume in (False, True):
        training = Heard(path, resume)
        training.until(Progress, "train")
        training.remote.ask("stop")
        steps.append(load_model(training.end()[0]).record["steps"])
        assert steps[-2] < steps[-1] < 100_000


@pytest.mark.parametrize("goes_on", [False, True, "told to"])
def test_when_nobody_listens_any_more_it_does_as_it_was_told(goes_on, job):
    path = job(steps=60)
    training = Heard(path, goes_on=goes_on is True)
    training.until(Progress, "train")
    process = training.remote.child.process
    if goes_on == "told to":
        training.remote.leave()
    process.stdin.close()  # what the system does when the window's process is gone
    assert process.wait(60) == 0
    assert path.with_suffix(".model").is_dir() == bool(goes_on)
    if not goes_on:
        Heard(path, resume=True).end()


def test_a_view_is_the_prediction_of_the_network_as_it_is(job, tmp_path):
    training = Heard(job(steps=100_000))
    training.until(Progress, "train")
    for number, box in ((1, np.s_[10:90, 0:70]), (2, np.s_[16:96, 5:70])):
        training.remote.ask(ViewRequest(number, 0, box))
    view = training.until(View)
    while view.request.number < 2:
        view = training.until(View)
    assert view.data.shape == (80, 65)
    assert set(np.unique(view.data)) <= {0, 1}
    training.events.close()

    pairs = [(open_stack(tmp_path / "image.tif"), open_labels(tmp_path / "labels.tif"))]
    config = TrainConfig(steps=6, **SETTINGS | {"patch": (32, 32)})
    training = wait(begin(pairs, tmp_path / "here.model", config))
    models = [training.model(), *(training.model() for _ in training.events())]
    assert models[0] is None
    last = wait(predict(pairs[0][0], models[-1], tmp_path / "a.zarr", PredictConfig(precision="fp32")))
    first = next(model for model in models if model is not None)
    assert first.sha256 != models[-1].sha256
    assert last.shape == (96, 96)


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        ({"config": {"depht": 3}}, UsageError, "depht"),
        ({"pairs": []}, UsageError, "pairs"),
        ({"on_disconnect": "perhaps"}, UsageError, "on_disconnect"),
        ({"orphan": "perhaps"}, UsageError, "on_disconnect"),
        ({"pairs": [{"image": "gone.tif", "labels": "gone.tif"}]}, DataError, "gone.tif"),
    ],
)
def test_a_job_that_cannot_be_done_is_an_error(change, kind, what, job, tmp_path):
    path = job(steps=5)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(kind, match=what):
        Heard(path).end()
    assert not training_folder(tmp_path / "a.model").exists()
    with pytest.raises(UsageError, match="is no job"):
        TrainJob.read(tmp_path / "none.json")


def test_the_outlook_writes_nothing_and_is_what_a_run_does(job, tmp_path):
    pairs = [(open_stack(tmp_path / "image.tif"), open_labels(tmp_path / "labels.tif"))]
    config = TrainConfig(steps=4, **SETTINGS | {"patch": (32, 32)})
    job()
    before = sorted(tmp_path.iterdir())
    found = wait(outlook(pairs, config))
    assert sorted(tmp_path.iterdir()) == before
    wait(train(pairs, tmp_path / "b.model", config))
    plan = json.loads((training_folder(tmp_path / "b.model") / "run.json").read_text())["plan"]
    assert json.loads(json.dumps(found.plan.to_json())) == plan
    lines = "\n".join(found.lines())
    assert "1 foreground: 1,600 voxels" in lines
    assert "objects: 45 pixels across" in lines
