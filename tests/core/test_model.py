import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.cards import CARD_BYTES, describe_model, is_model
from napari_unet.errors import ModelError, OutputError, ResourceError, UnsafeError
from napari_unet.files import plain
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model, load_model
from napari_unet.model.weights import weights_of
from napari_unet.network import UNet, UNetConfig
from napari_unet.task import Semantic

CONFIG = UNetConfig(depth=1, base_features=2)


def make(config=CONFIG, seed=0, **changes):
    torch.manual_seed(seed)
    task = Semantic(tuple(range(config.out_channels)))
    axes = "zyx"[-config.ndim :]
    return Model(config, weights_of(UNet(config)), task, Normalisation(), axes, **changes)


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def saved(tmp_path):
    make().save(tmp_path / "m")
    return tmp_path / "m"


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from([2, 3]),
    st.integers(1, 3),
    st.sampled_from(["batch", "none", "instance"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_what_is_saved_loads_to_the_same(tmp_path_factory, ndim, channels, norm, half, seed):
    config = UNetConfig(ndim=ndim, in_channels=channels, out_channels=3, depth=1, base_features=2, norm=norm)
    names = tuple(f"c{i}" for i in range(channels))
    model = make(
        config, seed, scale=(0.5,) * ndim, units=("micrometer",) * ndim, channel_names=names, record={"a": [1]}
    )
    folder = tmp_path_factory.mktemp("models") / "m"
    stored = model.save(folder, half=half)
    loaded = load_model(folder)
    assert loaded.sha256 == stored.sha256 and (half or stored.sha256 == model.sha256)
    for field in dataclasses.fields(Model):
        if field.name != "weights":
            assert getattr(loaded, field.name) == getattr(stored, field.name)
    x = torch.rand(1, channels, *(4,) * ndim)
    assert torch.equal(loaded.network()(x), stored.network()(x))
    tolerance = 1e-2 if half else 0
    torch.testing.assert_close(loaded.network()(x), model.network()(x), atol=tolerance, rtol=tolerance)


def test_the_network_is_the_one_that_was_trained():
    net = UNet(CONFIG)
    net(torch.rand(2, 1, 8, 8))  # moves the running statistics
    model = dataclasses.replace(make(), weights=weights_of(net))
    state, x = torch.random.get_rng_state(), torch.ones(1, 1, 8, 8)
    built = model.network()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not built.training
    assert torch.equal(built(x), net.eval()(x))
    built.head.weight.data.zero_()
    assert model.weights["head.weight"].any()


def test_the_hash_sees_all_that_decides_the_result_and_no_more():
    model = make()
    other = {k: v + (k == "head.bias") for k, v in model.weights.items()}
    changes = [
        {"weights": other},
        {"normalisation": Normalisation("zscore")},
        {"task": Semantic((0, 255))},
        {"scale": (2.0, 2.0)},
    ]
    assert len({model.sha256, *(dataclasses.replace(model, **c).sha256 for c in changes)}) == 5
    assert dataclasses.replace(model, record={"seed": 3}).sha256 == model.sha256


@pytest.mark.parametrize(
    "wrong",
    [
        {"axes": "zyx"},
        {"scale": (1.0,)},
        {"scale": (0.0, 1.0)},
        {"channel_names": ("a", "b")},
        {"task": Semantic((0, 1, 2))},
        {"weights": {}},
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ModelError):
        dataclasses.replace(make(), **wrong)


# Damage (A4-A8)


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_file_cut_short_is_named(saved, name, share):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=f"{name}.*(damaged|does not fit)"):
        load_model(saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d + b"\0",
        lambda d: (2**62).to_bytes(8, "little") + d[8:],
        lambda d: d[:8] + b"[" * 1000 + d[1008:],
        lambda d: d.replace(b'"shape":[2]', b'"shape":[9]', 1),
        lambda d: d.replace(b'"shape":[2]', b'"shape":[-2]', 1),
        lambda d: d.replace(b'"F32"', b'"I64"', 1),
        lambda d: d.replace(b'"F32"', b'"F99"', 1),
    ],
)
def test_a_weights_file_that_lies_is_refused(saved, damage):
    path = saved / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        load_model(saved)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_flipped_bit_of_the_weights_goes_unseen(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip") / "m"
    make().save(folder)
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        load_model(folder)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_changed_card_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("card") / "m"
    model = make(record={"note": "x"})
    model.save(folder)
    content = bytearray((folder / "model.json").read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (folder / "model.json").write_bytes(content)
    try:
        assert load_model(folder).sha256 == model.sha256
    except ModelError as error:
        assert str(folder) in str(error) and error.exit_code == 3


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path):
    with path.open("r+b") as file:
        file.truncate(2**40)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices of POSIX")
@pytest.mark.parametrize("make", [pipe, device, sparse])
@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_what_is_no_plain_file_of_its_size_is_neither_waited_for_nor_read_on(saved, name, make):
    make(saved / name)
    for opened in (load_model, describe_model):
        with pytest.raises((ModelError, UnsafeError), match=name):
            opened(saved)
    (saved / "model.json").unlink()
    make_zoo = saved / "rdf.yaml"
    make_zoo.write_text("name: x")
    make(make_zoo)
    with pytest.raises((ModelError, UnsafeError), match=r"rdf\.yaml|bioimage\.io|not a model"):
        load_model(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(saved, value):
    weights = make().weights
    weights["head.bias"][0] = value
    with pytest.raises(ModelError, match=r"head\.bias"):
        dataclasses.replace(make(), weights=weights)
    path = saved / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save(weights))
    card = json.loads((saved / "model.json").read_text())
    card["weights"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"weights\.safetensors.*head\.bias"):
        load_model(saved)


def test_wrong_keys_are_listed_up_to_five(saved):
    weights = {f"other{i}": np.zeros(2, np.float32) for i in range(9)}
    (saved / "weights.safetensors").write_bytes(safetensors.numpy.save(weights))
    with pytest.raises(ModelError, match="other4 and 4 more"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "update"),
        ({"version": "1"}, "version"),
        ({"format": "other"}, "other"),
        ({"config": {"depth": 1, "colour": 3}}, "colour"),
        ({"config": {"depth": 12, "base_features": 4096, "max_features": 4096}}, "model.json.*too many"),
        ({"config": {"kernels": [[10**9 + 1] * 2] * 5}}, "model.json"),
        ({"config": 3}, "model.json cannot be used"),
        ({"task": {"name": "os.system"}}, "os.system"),
        ({"weights": {"file": "../../secret", "sha256": ""}}, "secret"),
        ({"axes": "zyx"}, "axes"),
        ({"scale": ["a", "b"]}, "scale"),
        ({"record": None}, "model.json cannot be used"),
        ({"padding": "x" * CARD_BYTES}, "larger"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(saved, change, says):
    card = json.loads((saved / "model.json").read_text()) | change
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=says):
        load_model(saved)


def test_a_setting_changed_by_hand_is_seen(saved):
    text = (saved / "model.json").read_text()
    (saved / "model.json").write_text(text.replace("99.8", "98.8"))
    with pytest.raises(ModelError, match="changed"):
        load_model(saved)


def test_what_is_not_a_model_is_named(tmp_path, saved):
    (tmp_path / "empty").mkdir()
    (saved / "weights.safetensors").unlink()
    for path in (tmp_path / "empty", tmp_path / "none", saved):
        with pytest.raises(ModelError, match=path.name):
            load_model(path)


# Code in models (A1-A3, A9, A11)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("how", ["torch", "pickle", "renamed"])
def test_a_pickle_never_runs(tmp_path, monkeypatch, forced, how):
    mark, path = tmp_path / "PWNED", tmp_path / "evil.pt"
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark)))
    else:
        torch.save({"a": Evil(mark)}, path)
    if how == "renamed":
        path = path.rename(tmp_path / "evil.zip")
    before = tree(tmp_path)
    with pytest.raises(UnsafeError, match=path.name) as caught:
        load_model(path)
    assert caught.value.exit_code == 4
    assert not any(word in str(caught.value).lower() for word in ("trust", "weights_only", "torch.load"))
    assert not mark.exists() and tree(tmp_path) == before


def test_the_pickle_would_run_where_nothing_stops_it(tmp_path):
    torch.save({"a": Evil(tmp_path / "PWNED")}, tmp_path / "evil.pt")
    code = f"import torch; torch.load({str(tmp_path / 'evil.pt')!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "PWNED").exists()


def test_an_address_of_a_pickle_is_refused(tmp_path):
    torch.save({"a": Evil(tmp_path / "PWNED")}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeError):
        load_model(f"file://{tmp_path}/evil.pt")
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ["../../x", "/abs", "a/../../b", "C:\\x", "C:/x", "link", "twice"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, name):
    path = tmp_path / "in" / "m.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        archive.writestr(info, "x")
        if name == "twice":
            archive.writestr("TWICE", "x")
    before = tree(tmp_path)
    with pytest.raises(UnsafeError, match=r"m\.zip has the member"):
        load_model(path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("packed", [False, True])
def test_a_package_that_needs_its_authors_code_is_refused(tmp_path, packed):
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "model.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w')\nclass Net: ...\n")
    (folder / "rdf.yaml").write_text(
        "type: model\nweights:\n  pytorch_state_dict:\n    architecture: {source: model.py, callable: Net}\n"
    )
    path = Path(shutil.make_archive(str(tmp_path / "zoo"), "zip", folder)) if packed else folder
    with pytest.raises(UnsafeError, match="code from the model's author"):
        load_model(path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2", "a.h5"])
def test_programs_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UnsafeError, match="program"):
        load_model(tmp_path / name)


# Saving


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_model_is_replaced_only_on_request_and_leaves_nothing_behind(tmp_path, times):
    make().save(tmp_path / "m")
    with pytest.raises(OutputError, match="already"):
        make(seed=9).save(tmp_path / "m")
    assert load_model(tmp_path / "m").sha256 == make().sha256
    (tmp_path / "m" / "notes.txt").write_text("mine")
    for seed in range(1, times + 1):
        make(seed=seed).save(tmp_path / "m", overwrite=True)
        assert load_model(tmp_path / "m").sha256 == make(seed=seed).sha256
    assert len(tree(tmp_path / "m")) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_model_is_never_overwritten(tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.docx").write_text("years")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    make().save(tmp_path / "m")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    before = tree(tmp_path)
    for name in ("thesis", "other", "file", "link"):
        with pytest.raises(OutputError, match=name):
            make(seed=1).save(tmp_path / name, overwrite=overwrite)
    assert tree(tmp_path) == before


def save_and_die(model, folder, steps):
    """Save in a process that ends without a word before the disk operation number `steps`; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = iter(range(steps))

    def counted(real):
        def call(*args, **kwargs):
            if next(left, None) is None:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    os.fsync, os.open, Path.replace = counted(os.fsync), counted(os.open), counted(Path.replace)
    Path.unlink = counted(Path.unlink)
    model.save(folder, overwrite=True)
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("there", [False, True])
def test_a_killed_save_leaves_the_old_model_the_new_or_none(tmp_path, there):
    old, new = make(), make(seed=1)
    seen, steps, ended = set(), 0, 9
    while ended == 9:
        folder = tmp_path / str(steps)
        if there:
            old.save(folder)
        ended = save_and_die(new, folder, steps)
        try:
            seen.add(load_model(folder).sha256)
        except ModelError as error:
            assert not there and "is not a model" in str(error)
        old.save(folder, overwrite=True)
        assert load_model(folder).sha256 == old.sha256
        assert len(tree(folder)) <= 3 or steps < 8
        steps += 1
    assert ended == 0 and steps > 8
    assert seen == ({old.sha256, new.sha256} if there else {new.sha256})


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files, which Windows cannot")
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_keeps_the_old_model_and_leaves_nothing_half(tmp_path, there):
    import resource
    import signal

    if there:
        make().save(tmp_path / "m")
    before = tree(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            make(seed=1).save(tmp_path / "m", overwrite=there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert tree(tmp_path) == before and (tmp_path / "m").exists() == there


def test_a_record_of_any_values_is_kept_as_plain_ones(tmp_path):
    history = [{"loss": np.float32(i), "bad": float("nan"), "path": Path("a")} for i in range(30_000)]
    model = make(record={"history": history, "seed": np.int64(3)})
    model.save(tmp_path / "m")
    assert (tmp_path / "m" / "model.json").stat().st_size <= CARD_BYTES
    record = load_model(tmp_path / "m").record
    assert record["seed"] == 3 and record["history"][-1] == {"loss": 29999.0, "bad": None, "path": "a"}
    values = (1, np.arange(2), {2: None, "b": True}, np.float32("nan"), {np.uint8(3)}, Path("a"))
    assert plain(values) == [1, [0, 1], {"2": None, "b": True}, "nan", [3], "a"]


def test_the_card_is_text_that_a_file_cannot_spoil():
    text = make(record={"note": "a\x1b[31m\nb", "scores": {"dice": 0.9}}).card()
    assert "\x1b" not in text and "dice 0.9" in text and "background, foreground" in text
    assert all(len(line) < 300 for line in text.splitlines())


def test_is_model_says_so(saved, tmp_path):
    assert is_model(saved)
    assert not is_model(tmp_path)


def test_statistics_past_the_range_of_float16_are_stored_whole(tmp_path):
    model = make(UNetConfig(ndim=2, out_channels=3, depth=1, base_features=2, norm="batch"))
    name = next(key for key in model.weights if key.endswith("running_var"))
    large = dataclasses.replace(model, weights=model.weights | {name: np.full_like(model.weights[name], 1e6)})
    assert np.array_equal(large.save(tmp_path / "m", half=True).weights[name], large.weights[name])


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_a_number_that_is_none_is_refused_where_a_card_is_only_shown(saved, number):
    path = saved / "model.json"
    path.write_text(re.sub('"depth": [0-9]+', f'"depth": {number}', path.read_text()))
    for opened in (load_model, describe_model):
        with pytest.raises(ModelError, match="finite number"):
            opened(saved)
