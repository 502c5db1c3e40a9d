"""A training in its own process: heard, asked, paused, killed and gone on with, to the same model."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_unet import TrainConfig, load_model, open_labels, open_stack, predict, train, wait
from napari_unet.errors import UsageError
from napari_unet.inference.config import PredictConfig
from napari_unet.training.fit import begin
from napari_unet.training.process import TrainJob, labels_in
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


class Child:
    """The process, and what it has said."""

    def __init__(self, job, *more):
        command = [sys.executable, "-m", "napari_unet.training.process", str(job), *more]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.said = []

    def until(self, event, **values):
        """Listen until it says this, or nothing more."""
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event and values.items() <= self.said[-1].items():
                return self.said[-1]
        raise AssertionError(f"it never said {event}: {self.said[-3:]} {self.process.stderr.read()}")

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def end(self):
        """Listen to the end; return its exit code."""
        self.said += [json.loads(line) for line in self.process.stdout]
        return self.process.wait(60)


def losses(path):
    history = load_model(path.with_suffix(".model")).record["history"]
    return [(row["step"], row["train_loss"], row["validation_loss"]) for row in history]


def test_it_says_how_far_it_is_and_where_the_model_is(job):
    child = Child(job(steps=8))
    done = child.until("done")
    assert child.end() == 0
    assert {"progress", "epoch"} <= {event["event"] for event in child.said}
    assert load_model(done["model"]).task.name == "semantic"
    assert "semantic" in done["card"]


def test_paused_and_gone_on_with_it_ends_with_the_same_losses_and_weights(job):
    whole, parts = job("whole", steps=60), job("parts", steps=60)
    assert Child(whole).end() == 0
    child = Child(parts)
    child.until("epoch")
    child.ask(ask="pause")
    child.until("stopped")
    assert child.end() == 0
    again = Child(parts, "--resume")
    again.until("done")
    assert losses(whole) == losses(parts)
    a, b = (load_model(path.with_suffix(".model")) for path in (whole, parts))
    assert a.sha256 == b.sha256


def test_killed_it_goes_on_to_the_same_losses(job):
    whole, parts = job("whole", steps=40), job("parts", steps=40)
    assert Child(whole).end() == 0
    child = Child(parts)
    child.until("epoch")
    child.process.kill()
    child.process.wait()
    assert Child(parts, "--resume").end() == 0
    assert losses(whole) == losses(parts)


def test_stopped_it_makes_a_model_at_once_and_can_still_be_gone_on_with(job):
    path = job(steps=100_000)
    child = Child(path)
    child.until("progress", stage="train")
    child.ask(ask="stop")
    done = child.until("done")
    assert child.end() == 0
    steps = load_model(done["model"]).record["steps"]
    assert steps < 100_000
    again = Child(path, "--resume")
    again.until("epoch")
    again.ask(ask="stop")
    done = again.until("done")
    assert load_model(done["model"]).record["steps"] > steps


@pytest.mark.parametrize("on_disconnect", ["stop", "continue"])
def test_when_nobody_listens_any_more_it_does_as_it_was_told(job, on_disconnect):
    path = job(steps=60, on_disconnect=on_disconnect)
    child = Child(path)
    child.until("progress", stage="train")
    child.process.stdin.close()
    assert child.end() == 0
    assert child.said[-1]["event"] == {"stop": "stopped", "continue": "done"}[on_disconnect]


def test_told_to_go_on_alone_it_does(job):
    path = job(steps=60)
    child = Child(path)
    child.until("progress", stage="train")
    child.ask(ask="leave")
    child.process.stdin.close()
    child.process.stdout.close()
    assert child.process.wait(60) == 0
    assert load_model(path.with_suffix(".model"))


def test_a_view_is_the_prediction_of_the_network_as_it_is(job, tmp_path):
    child = Child(job(steps=100_000))
    child.until("progress", stage="train")
    child.ask(ask="view", id=1, image=0, box=[[10, 90], [0, 70]])
    child.ask(ask="view", id=2, image=0, box=[[16, 96], [5, 70]])
    found = child.until("view")
    labels = labels_in(found)
    assert (found["id"], labels.shape) == (2, (80, 65))
    assert set(np.unique(labels)) <= {0, 1}
    child.ask(ask="pause")
    assert child.end() == 0

    pairs = [(open_stack(tmp_path / "image.tif"), open_labels(tmp_path / "labels.tif"))]
    config = TrainConfig(steps=6, **SETTINGS | {"patch": (32, 32)})
    training = wait(begin(pairs, tmp_path / "here.model", config))
    models = [training.model(), *(training.model() for _ in training.events())]
    assert models[0] is None
    last = wait(predict(pairs[0][0], models[-1], tmp_path / "a.zarr", PredictConfig(precision="fp32")))
    first = next(model for model in models if model is not None)
    assert first.sha256 != models[-1].sha256
    assert last.shape == (96, 96)


def test_a_job_that_cannot_be_done_is_an_error_with_its_exit_code(job, tmp_path):
    path = job(steps=5)
    for change, code, what in (
        ({"config": {"depht": 3}}, 2, "depht"),
        ({"pairs": []}, 2, "pairs"),
        ({"on_disconnect": "perhaps"}, 2, "on_disconnect"),
        ({"orphan": "perhaps"}, 2, "on_disconnect"),
        ({"pairs": [{"image": "gone.tif", "labels": "gone.tif"}]}, 3, "gone.tif"),
    ):
        values = json.loads(path.read_text()) | change
        other = tmp_path / "other.json"
        other.write_text(json.dumps(values))
        child = Child(other)
        assert child.end() == code
        assert child.said[-1]["event"] == "error"
        assert what in child.said[-1]["message"]
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
