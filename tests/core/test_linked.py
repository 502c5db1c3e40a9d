"""Objects linked by trackastra are the ones that trackastra links, frame by frame in memory."""

import csv
import sys

import numpy as np
import pytest

from helpers import call
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, UsageError
from napari_unet.events import wait
from napari_unet.exports import export

FRAMES = 5


def series(**more):
    """Two objects that move, whose ids change from frame to frame; in the fourth frame a third, in the last none."""
    data = np.zeros((FRAMES, 64, 60), np.uint16)
    for t in range(FRAMES - 1):
        data[t, 5 + 2 * t : 13 + 2 * t, 5:15], data[t, 30:40, 20 + t : 31 + t] = 7 + t, 300 - 9 * t
    data[3, 50:60, 40:50] = 12
    image = np.random.default_rng(0).random((FRAMES, 64, 60)).astype("f4")
    return Stack(data, "tyx", name="found", **more), Stack(image, "tyx", name="image")


@pytest.fixture
def model(tmp_path):
    """A small model of trackastra, with weights drawn at random that link objects."""
    pytest.importorskip("trackastra")
    import torch
    import yaml
    from trackastra.model.model import TrackingTransformer

    torch.manual_seed(2)
    sizes = {"d_model": 32, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "window": 3}
    net = TrackingTransformer(coord_dim=2, feat_dim=7, causal_norm="none", **sizes)
    net.head_y.load_state_dict(net.head_x.state_dict())  # what is alike is linked
    net.save(tmp_path / "small")
    (tmp_path / "small" / "train_config.yaml").write_text(yaml.safe_dump({"features": "wrfeat"}))
    return tmp_path / "small"


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tracks_are_those_of_trackastra(tmp_path, model):
    import dask.array as da
    from trackastra.model import Trackastra

    labels, image = series()
    wait(export(labels, tmp_path / "tracks.csv", image, tracks=True, trackastra=model))
    rows = rows_of(tmp_path / "tracks.csv")
    assert len(rows) == 9 and {"track_id", "t", "y", "x", "label", "parent"} == set(rows[0])
    arrays = [da.from_array(each.data, chunks=(1, -1, -1)) for each in (image, labels)]
    graph, _ = Trackastra.from_folder(model, device="cpu").track(arrays[0], arrays[1].compute())
    names = {key: (int(node["time"]), int(node["label"])) for key, node in graph.nodes.items()}
    wanted = {(names[a], names[b]) for a, b in graph.edges}
    assert wanted
    where = {(int(row["t"]), int(row["label"])): row for row in rows}
    found = set()
    for at, row in where.items():
        for other, next_row in where.items():
            if other[0] == at[0] + 1 and row["track_id"] in (next_row["track_id"], next_row["parent"]):
                found.add((at, other))
    assert found == wanted


def test_a_model_that_does_not_fit_is_named(tmp_path, model):
    labels, image = series()
    with pytest.raises(DataError, match="give it with --image"):
        wait(export(labels, tmp_path / "a.csv", tracks=True, trackastra=model))
    with pytest.raises(UsageError, match=r"no model of trackastra.*model\.pt"):
        wait(export(labels, tmp_path / "a.csv", image, tracks=True, trackastra=tmp_path))
    deep = Stack(np.zeros((2, 4, 20, 20), np.uint8), "tzyx", name="deep")
    with pytest.raises(DataError, match=r"deep is 3-D, the model .* 2-D"):
        wait(export(deep, tmp_path / "a.csv", deep, tracks=True, trackastra=model))
    assert not (tmp_path / "a.csv").exists()


def test_without_trackastra_the_extra_is_named(tmp_path, monkeypatch):
    for name in ("trackastra", "trackastra.model"):
        monkeypatch.setitem(sys.modules, name, None)
    labels, image = series()
    with pytest.raises(UsageError, match=r"pip install 'napari-unet-stacks\[trackastra\]'"):
        wait(export(labels, tmp_path / "a.csv", image, tracks=True, trackastra="general_2d"))
    with pytest.raises(UsageError, match="choose tracks too"):
        wait(export(labels, tmp_path / "a.csv", image, trackastra="general_2d"))
    np.save(tmp_path / "a.npy", labels.data)
    code, said = call("export", tmp_path / "a.npy", "--to", tmp_path / "a.csv", "--trackastra", "general_2d")
    assert code != 0 and "tracks" in said
