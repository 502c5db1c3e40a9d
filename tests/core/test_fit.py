import csv
import dataclasses
import hashlib
import json
import math
import os
import re
import signal
import textwrap
import threading

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers import collect, example, same
from helpers import short as small
from kinds import finder
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, IncompleteError, ModelError, OutputError, UnetError, UsageError
from napari_unet.events import Epoch, Progress, wait
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import load_model
from napari_unet.network import UNetConfig
from napari_unet.training import finish, train
from napari_unet.training.checkpoint import Checkpoints
from napari_unet.training.fingerprint import fingerprint
from napari_unet.training.holdout import former_division
from napari_unet.training.learner import rate_at
from napari_unet.training.run import RUN, training_folder
from napari_unet.training.setup import set_up
from napari_unet.training.split import samples
from napari_unet.training.state import State
from warm import warm


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def losses(model):
    return [(row["step"], row["train_loss"], row["validation_loss"]) for row in model.record["history"]]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(0.2, 1.0), (0.5, 2.0), (0.4, 0.5)], 2),  # the score decides
        ([(0.0, 1.0), (0.0, 0.5), (0.0, 0.7)], 2),  # it says nothing: the loss
        ([(math.nan, 1.0), (math.nan, 0.9), (math.nan, 0.8)], 3),
        ([(0.6, 1.0), (0.6, 0.5), (0.6, 0.5)], 2),  # a tie: the loss, then the earlier
        ([(0.0, 0.1), (0.1, 2.0), (0.0, 0.01)], 2),
        ([(0.014, 1.9), (0.0, 1.7), (0.0, 1.5)], 3),  # so little is found by chance
        ([(0.3, 1.0), (0.9, math.nan), (0.2, 0.1)], 1),  # what is not finite is never kept
        ([(-3.0, 1.0), (-2.0, 2.0), (-2.0, 1.5)], 3),
        ([(math.nan, math.inf), (math.nan, 3.0)], 2),
    ],
)
def test_the_score_keeps_an_epoch_and_where_it_does_not_tell_the_loss(rows, kept):
    state = State()
    for score, loss in rows:
        state.epoch += 1
        state.keep_if_best(score, loss)
    assert state.best_epoch == kept


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_a_score_of_nothing_is_said(tmp_path, task):
    image, labels = example()
    blank = Stack(np.random.default_rng(1).normal(size=(48, 48)), "yx"), Stack(np.zeros((48, 48), np.uint8), "yx")
    labels = Stack(np.asarray(ndimage.label(labels.data)[0], np.uint8) if task == "instances" else labels.data, "yx")
    config = small(task=task, augment=0.0, steps=4)
    said, model = collect(train([(image, labels)], tmp_path / "m.model", config, validation=[blank]))
    assert any("by its validation loss" in event.message for event in said if isinstance(event, Progress))
    history = model.record["history"]
    assert model.record["best"]["validation_loss"] == min(row["validation_loss"] for row in history)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_training_learns_and_makes_a_model(tmp_path):
    config = small(steps=100, batch=4, base_features=8, learning_rate=1e-2)
    events, model = collect(train([example((64, 64))], tmp_path / "m", config))
    epochs = [e for e in events if isinstance(e, Epoch)]
    assert [e.number for e in epochs] == list(range(1, len(epochs) + 1))
    assert epochs[-1].number == epochs[-1].total
    assert epochs[-1].train_loss < 0.7 * epochs[0].train_loss
    assert max(e.scores["dice"] for e in epochs) > 0.8
    said = " ".join(e.message for e in events if isinstance(e, Progress))
    assert re.search(r"1 labelled image: background [\d.]+ %, foreground [\d.]+ %", said)
    loaded = load_model(tmp_path / "m")
    assert same(loaded, model)
    assert loaded.task.values == (0, 255)
    assert loaded.record["data"]["stacks"][0]["shape"] == [64, 64]
    assert {"history", "scores", "plan", "versions", "threads", "device", "minutes", "settings"} <= loaded.record.keys()
    with (tmp_path / "m.training" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(epochs)


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, stop):
    pairs = [example(), example(seed=1)]
    whole = wait(train(pairs, tmp_path / "whole", small()))
    work = train(pairs, tmp_path / "parts", small())
    for event in work:
        if isinstance(event, Progress) and event.stage == "train" and event.done == stop:
            break
    work.close()
    assert not (tmp_path / "parts").exists()
    parts = wait(train(pairs, tmp_path / "parts", small(resume=True)))
    assert same(whole, parts)
    assert losses(whole) == losses(parts)
    assert not [t for t in threading.enumerate() if t.name == "patches"]


def test_the_papers_preset_goes_on_to_the_same_weights_too(tmp_path):
    wishes = {"preset": "ronneberger2015", "steps": 6, "patch": (4, 4), "learning_rate": 1e-3}
    pairs = [example()]
    whole = wait(train(pairs, tmp_path / "whole", small(**wishes)))
    work = train(pairs, tmp_path / "parts", small(**wishes))
    next(e for e in work if isinstance(e, Progress) and e.stage == "train" and e.done == 4)
    work.close()
    assert same(whole, wait(train(pairs, tmp_path / "parts", small(**wishes, resume=True))))
    assert whole.config.padding == "valid"


SCRIPT = """
    import os, signal, sys
    import torch
    from helpers import example, short as small
    from napari_unet.events import Epoch
    from napari_unet.training import train
    torch.set_num_threads(1)
    epochs = 0
    from pathlib import Path
    for event in train([example(), example(seed=1)], Path(sys.argv[1]), small()):
        epochs += isinstance(event, Epoch)
        if epochs == 2 and getattr(event, "stage", "") == "train":
            os.kill(os.getpid(), signal.SIGKILL)
"""


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import torch
    from helpers import example, short as small
    from napari_unet.errors import ResourceError
    from napari_unet.events import Epoch
    from napari_unet.training import train
    torch.set_num_threads(1)
    said = []
    try:
        for event in train([example(), example(seed=1)], Path(sys.argv[1]), small()):
            said.append(getattr(event, "message", ""))
            if isinstance(event, Epoch) or sys.argv[3:] == [getattr(event, "stage", "")]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    except ResourceError:
        said.append("ResourceError")
    Path(sys.argv[2]).write_text("; ".join(said)[-2900:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_costs_the_newest_state_only(tmp_path):
    pairs = [example(), example(seed=1)]
    full = warm(textwrap.dedent(FULL_DISK), tmp_path / "m", tmp_path / "said")
    assert full.wait() == 0, full.stderr.read()
    said = (tmp_path / "said").read_text()
    assert "training continues" in said
    assert "step 12, loss" in said
    assert said.endswith("ResourceError")
    assert not (tmp_path / "m").exists()
    whole = wait(train(pairs, tmp_path / "whole", small()))
    assert same(whole, wait(train(pairs, tmp_path / "m", small(resume=True))))


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_disk_that_takes_no_state_at_all_is_named_at_the_end(tmp_path):
    full = warm(textwrap.dedent(FULL_DISK), tmp_path / "m", tmp_path / "said", "train")
    assert full.wait() == 0, full.stderr.read()
    assert (tmp_path / "said").read_text().endswith("ResourceError")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "where",
    [
        (torch.nn.functional, "batch_norm"),
        (torch.Tensor, "backward"),
        (torch.optim.AdamW, "step"),
        (torch.Tensor, "lerp_"),
    ],
    ids=lambda where: where[1],
)
def test_an_interrupt_inside_a_step_loses_no_step_and_repeats_none(where, tmp_path, monkeypatch):
    pairs, calls = [example(), example(seed=1)], []
    whole = wait(train(pairs, tmp_path / "whole", small()))
    real = getattr(*where)

    def interrupted(*args, **more):
        found = real(*args, **more)
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(*where, interrupted)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(train(pairs, tmp_path / "m", small()))
    monkeypatch.undo()
    assert Checkpoints(training_folder(tmp_path / "m")).steps() == [1 + sum(event.stage == "train" for event in seen)]
    assert same(whole, wait(train(pairs, tmp_path / "m", small(resume=True))))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_curve(tmp_path):
    pairs = [example(), example(seed=1)]
    killed = warm(textwrap.dedent(SCRIPT), tmp_path / "killed")
    assert killed.wait() == -signal.SIGKILL, killed.stderr.read()
    assert not (tmp_path / "killed").exists()
    whole = wait(train(pairs, tmp_path / "whole", small()))
    resumed = wait(train(pairs, tmp_path / "killed", small(resume=True)))
    assert losses(resumed) == losses(whole)
    assert same(resumed, whole)


def test_what_a_killed_training_has_half_written_goes(tmp_path):
    folder = training_folder(tmp_path / "m")
    folder.mkdir()
    (folder / f".plan.txt.{'0' * 32}.partial").write_text("half")
    wait(train([example()], tmp_path / "m", small(steps=2)))
    (folder / f".checkpoint.{'0' * 32}.partial").write_text("half")
    wait(train([example()], tmp_path / "m", small(steps=2, resume=True)))
    assert not list(folder.rglob("*.partial"))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    first, second, third = (wait(train([example()], tmp_path / str(i), small(seed=s))) for i, s in enumerate((3, 3, 4)))
    assert first.sha256 == second.sha256
    assert not same(first, third)


def test_more_steps_go_on_without_a_jump_of_the_rate(tmp_path):
    def rate():
        newest = max((tmp_path / "m.training").glob("checkpoint-*.json"))
        return json.loads(newest.read_text())["state"]["rate"]

    highest = wait(train([example()], tmp_path / "m", small())).record["plan"]["learning_rate"]
    before = rate()
    work = train([example()], tmp_path / "m", small(steps=2000, resume=True))
    next(e for e in work if isinstance(e, Progress) and e.stage == "train" and e.done == 13)
    work.close()
    assert abs(rate() - before) < 0.05 * highest < 0.5 * rate_at(13 / 2000, highest)
    model = wait(train([example()], tmp_path / "m", small(steps=40, resume=True)))
    assert model.record["steps"] == 40
    assert load_model(tmp_path / "m").sha256 == model.sha256


def test_a_run_goes_on_with_what_it_held_out(tmp_path):
    pairs, out = [example(seed=i) for i in range(8)], tmp_path / "m"
    wait(train(pairs, out, small()))
    path = tmp_path / "m.training/run.json"
    values = json.loads(path.read_text())

    def held_out(split):
        values["data"]["split"] = split
        path.write_text(json.dumps({**values, "data": {k: v for k, v in values["data"].items() if v is not None}}))
        run, _, held = wait(set_up(pairs, out, small(resume=True), None, ()))
        run.release()
        return [next(i for i, pair in enumerate(pairs) if np.array_equal(pair[0].data, s.image.data)) for s in held]

    assert len(values["data"]["split"]["whole"]) == 2
    assert held_out({"whole": [7], "regions": [], "kinds": 1}) == [7]
    every = samples(pairs, wait(fingerprint(pairs)), "yx")
    assert held_out(None) == list(former_division(every, 0).whole)


def test_what_the_score_does_not_see_is_said(tmp_path):
    image, labels = example()
    empty = image, Stack(np.zeros_like(labels.data), "yx")
    lines = [e.message for e in train([(image, labels)], tmp_path / "a", small(), validation=[empty])]
    assert any("nothing is held out of class 255" in line for line in lines)
    objects = small(task="instances", number_objects=True)
    lines = [e.message for e in train([(image, labels)], tmp_path / "b", objects, validation=[empty])]
    assert any("no object is held out: the score says nothing" in line for line in lines)
    lines = [e.message for e in train([(image, labels)], tmp_path / "c", small())]
    assert "held out for validation: a region of each image" in lines
    assert not any("the score says" in line for line in lines)


def test_a_finished_run_resumed_is_the_same_model(tmp_path):
    first = wait(train([example()], tmp_path / "m", small()))
    again = wait(train([example()], tmp_path / "m", small(resume=True)))
    assert first.sha256 == again.sha256


def test_a_rate_warms_up_and_falls_to_nothing():
    rates = [rate_at(p, 1.0) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < 0.1
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def refused(kind, match, tmp_path, pairs, config=None, **more):
    before = tree(tmp_path)
    with pytest.raises(kind, match=match) as caught:
        wait(train(pairs, tmp_path / "m", config or small(), **more))
    assert isinstance(caught.value, UnetError)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path):
    image, labels = example()
    good = (image, labels)
    other = example((40, 48), name="other")
    refused(DataError, r"other.*\(40, 48\).*\(48, 48\)", tmp_path, [good, (other[0], labels)])
    sized = Stack(image.data, "yx", (0.5, 0.5), ("micrometer",) * 2)
    refused(DataError, "pixel sizes", tmp_path, [(sized, Stack(labels.data, "yx", (0.7, 0.7)))])
    refused(DataError, "float32 labels", tmp_path, [(image, Stack(labels.data.astype(np.float32), "yx"))])
    refused(DataError, "negative", tmp_path, [(image, Stack(labels.data.astype(np.int16) - 1, "yx"))])
    refused(DataError, "only background", tmp_path, [(image, Stack(labels.data * 0, "yx"))])
    refused(DataError, "one class only", tmp_path, [(image, Stack(labels.data * 0 + 3, "yx"))])
    refused(DataError, "nothing is annotated", tmp_path, [(image, Stack(labels.data * 0, "yx"))], small(sparse=True))
    refused(DataError, "one class only.*paint", tmp_path, [good], small(sparse=True))
    refused(DataError, "constant", tmp_path, [(Stack(image.data * 0 + 7, "yx"), labels)])
    bad = image.data.copy()
    bad[3, 5] = np.nan
    refused(DataError, r"1 NaN.*\(3, 5\)", tmp_path, [(Stack(bad, "yx"), labels)])
    ids = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
    refused(DataError, "--binary", tmp_path, [(image, Stack(ids, "yx"))])
    refused(DataError, "there is no labelled image", tmp_path, [])
    refused(DataError, "channels", tmp_path, [good, (Stack(np.stack([image.data] * 2), "cyx"), labels)])
    refused(UsageError, "multiple", tmp_path, [good], small(patch=(17, 16)))
    strange = (image, Stack(labels.data // 2, "yx"))
    refused(DataError, "127", tmp_path, [good], validation=[strange])


def test_objects_that_leave_no_background_are_learnt_and_background_may_be_held_out(tmp_path):
    ids = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((16, 16), int)).astype(np.uint16)
    image = Stack(example()[0].data, "yx", name="tissue")
    config = small(task="instances")
    edge = Stack(example(seed=1)[0].data, "yx", name="edge"), Stack(np.where(ids > 3, ids, 0).astype(ids.dtype), "yx")
    wait(train([(image, Stack(ids, "yx"))], tmp_path / "a", config, validation=[edge]))
    refused(DataError, "one class only", tmp_path, [(image, Stack(ids * 0 + 3, "yx"))], config)
    refused(DataError, "one class only", tmp_path, [(image, Stack(ids, "yx"))], small(binary=True))


def test_an_output_that_exists_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.docx").write_text("mine")
    refused(OutputError, "exists", tmp_path, [example()])
    refused(OutputError, "exists", tmp_path, [example()], small(resume=True))
    wait(train([example()], tmp_path / "n", small(steps=2)))
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="--resume"):
        wait(train([example()], tmp_path / "n", small(steps=2)))
    assert tree(tmp_path) == before


def test_a_resume_with_other_settings_or_data_names_what_changed(tmp_path):
    work = train([example()], tmp_path / "m", small())
    next(e for e in work if isinstance(e, Epoch))
    work.close()
    refused(OutputError, "seed = 0, now it is 5", tmp_path, [example()], small(resume=True, seed=5))
    refused(OutputError, "other data", tmp_path, [example(seed=9)], small(resume=True))


def test_a_training_of_before_a_setting_was_there_had_its_default(tmp_path):
    whole = wait(train([example()], tmp_path / "whole", small()))
    work = train([example()], tmp_path / "m", small())
    next(e for e in work if isinstance(e, Epoch))
    work.close()
    path = tmp_path / "m.training" / RUN
    run = json.loads(path.read_text())
    del run["settings"]["seed"]
    path.write_text(json.dumps(run))
    refused(OutputError, "seed = 0, now it is 5", tmp_path, [example()], small(resume=True, seed=5))
    found = wait(train([example()], tmp_path / "m", small(resume=True)))
    assert same(found, whole)


def test_a_damaged_checkpoint_falls_back_and_says_so(tmp_path):
    whole = wait(train([example()], tmp_path / "whole", small()))
    work = train([example()], tmp_path / "m", small())
    next(e for e in work if isinstance(e, Epoch) and e.number == 3)
    work.close()
    newest = max((tmp_path / "m.training").glob("checkpoint-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    events, model = collect(train([example()], tmp_path / "m", small(resume=True)))
    said = [e.message for e in events if isinstance(e, Progress) and e.stage == "resume"]
    assert newest.name in said[0]
    assert "went back to step" in said[-1]
    assert same(model, whole)


def test_numbers_that_are_not_finite_stop_it_and_the_best_is_kept(tmp_path):
    wait(train([example()], tmp_path / "m", small()))
    best = Checkpoints(tmp_path / "m.training", "best")
    sha = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in best.folder.glob("best-*")}
    with pytest.raises(IncompleteError, match=r"epoch \d+, step \d+.*image.*state of step 12"):
        wait(train([example()], tmp_path / "m", small(steps=60, learning_rate=1e30, resume=True)))
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in best.folder.glob("best-*")}
    assert sha.items() <= found.items()
    assert all(np.isfinite(v.numpy()).all() for v in best.load().tensors.values())
    assert wait(train([example()], tmp_path / "m", small(steps=14, resume=True))).record["steps"] == 14


def test_a_stopped_run_can_be_made_a_model(tmp_path):
    work = train([example()], tmp_path / "m", small())
    with pytest.raises(OutputError, match="no training"):
        finish(tmp_path / "m")
    next(e for e in work if isinstance(e, Epoch))
    with pytest.raises(OutputError):
        finish(tmp_path / "m")
    work.close()
    assert finish(tmp_path / "m").sha256 == load_model(tmp_path / "m").sha256


def test_minutes_bound_a_run_and_it_ends_validated(tmp_path):
    events, model = collect(train([example()], tmp_path / "m", small(steps=None, minutes=0.05)))
    assert [e for e in events if isinstance(e, Epoch)][-1].total is None
    assert model.record["steps"] > 0
    assert model.record["history"][-1]["step"] == model.record["steps"]


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    config = small(steps=200, learning_rate=0.0, patience=2)
    assert wait(train([example()], tmp_path / "m", config)).record["steps"] < 200


def test_a_model_is_started_from_another(tmp_path):
    first = wait(train([example()], tmp_path / "a", small()))
    still = small(steps=1, learning_rate=0.0, depth=None, base_features=None)
    second = wait(train([example()], tmp_path / "b", still, init=first))
    trained = [k for k in first.weights if "norm" not in k]
    assert all(np.array_equal(first.weights[k], second.weights[k]) for k in trained)
    three = example()[0], Stack(np.arange(48 * 48, dtype=np.uint8).reshape(48, 48) % 3, "yx")
    third = wait(train([three], tmp_path / "c", still, init=first))
    assert third.config.out_channels == 3
    refused(ModelError, "depth", tmp_path, [example()], small(depth=2), init=first)
    refused(ModelError, "skip connections", tmp_path, [example()], small(depth=None, skips=False), init=first)
    paper = small(depth=None, base_features=None, preset="ronneberger2015", patch=None)
    refused(ModelError, "network of ronneberger2015", tmp_path, [example()], paper, init=first)


def test_objects_are_not_learnt_as_classes_from_a_model_of_objects(tmp_path):
    init = finder(2)
    many = example()[0], Stack(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) // 96, "yx")
    refused(ModelError, "24 values.*choose the task instances", tmp_path, [many], small(), init=init)


def test_a_model_to_start_from_takes_intensities_its_own_way(tmp_path):
    first = wait(train([example()], tmp_path / "a", small()))
    other = dataclasses.replace(first, normalisation=Normalisation("zscore"))
    image, labels = example(seed=1)
    config = small(depth=None, base_features=None)
    run, training, held_out = wait(set_up([(image, labels)], tmp_path / "b", config, other, [example()]))
    run.release()
    for sample, source in ((training[0], image), (held_out[0], example()[0])):
        seen = sample.read((), (0, 0), (48, 48))[0][0]
        np.testing.assert_allclose(seen, (source.data - source.data.mean()) / source.data.std(), atol=1e-4)


def test_planes_times_channels_and_volumes_are_learnt(tmp_path):
    image, labels = example((6, 20, 24))
    double = Stack(np.stack([image.data, image.data]), "czyx")
    model = wait(train([(double, labels)], tmp_path / "planes", small(steps=3)))
    assert (model.axes, model.config.in_channels) == ("yx", 2)
    model = wait(train([example((6, 20, 24))], tmp_path / "volume", small(steps=3, patch=(4, 16, 16))))
    assert model.axes == "zyx"
    times = Stack(image.data, "tyx", (9.0, 0.5, 0.5), (None, "micrometer", "micrometer"))
    model = wait(train([(times, Stack(labels.data, "tyx"))], tmp_path / "times", small(steps=3)))
    assert (model.scale, model.units) == ((0.5, 0.5), ("micrometer", "micrometer"))


def test_painted_labels_and_object_numbers_are_learnt(tmp_path):
    image, labels = example((64, 64))
    painted = np.zeros_like(labels.data)
    painted[::7], painted[::7][labels.data[::7] > 0] = 1, 2
    model = wait(train([(image, Stack(painted, "yx"))], tmp_path / "sparse", small(sparse=True)))
    assert model.task.values == (1, 2)
    numbered = (labels.data > 0) * np.arange(1, 65, dtype=np.uint16)[:, None] * 2
    model = wait(train([(image, Stack(numbered, "yx"))], tmp_path / "binary", small(binary=True)))
    assert model.task.values == (0, 1)


def test_every_network_is_validated_on_what_was_given(tmp_path):
    image, labels = example(seed=7)
    config = small(steps=2)
    model = wait(train([example()], tmp_path / "m", config, validation=[(image, labels)]))
    assert model.record["history"][-1]["validation_loss"] > 0
    assert isinstance(model.config, UNetConfig)
