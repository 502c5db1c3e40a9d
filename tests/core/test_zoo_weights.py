"""Results of nnU-Net, and weights alone: models that give what their own library gives."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_known import THEIRS, filled, known
from test_zoo_import import of_monai

from helpers import FP32, call, image_of
from napari_unet import PredictConfig, import_model, load_model, predict, wait
from napari_unet.arrays.stack import Stack
from napari_unet.errors import ModelError, UsageError
from napari_unet.network import build
from napari_unet.zoo.plain import inferred

ARCHITECTURE = {
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
OLDER = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 6,
    "n_conv_per_stage_encoder": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "pool_op_kernel_sizes": ARCHITECTURE["strides"],
    "conv_kernel_sizes": ARCHITECTURE["kernel_sizes"],
}
SEEN = {"mean": 500.0, "std": 200.0, "percentile_00_5": 150.0, "percentile_99_5": 900.0}


def plans_of(scheme="CTNormalization", forward=(0, 1, 2), older=False, **more):
    """Plans as nnU-Net writes them; older ones say the network in other words."""
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    new = {"architecture": {"network_class_name": name, "arch_kwargs": ARCHITECTURE, "_kw_requires_import": []}}
    base = {
        "patch_size": [8, 16, 16],
        "spacing": [2.0, 0.5, 0.5],
        "normalization_schemes": [scheme],
        "use_mask_for_norm": [False],
        **(OLDER if older else new),
    }
    return {
        "dataset_name": "Dataset001_Organ",
        "transpose_forward": list(forward),
        "image_reader_writer": "SimpleITKIO",
        "foreground_intensities_properties_per_channel": {"0": SEEN},
        "configurations": {"base": base, "3d_fullres": {"inherits_from": "base", "batch_size": 2, **more}},
    }


def result(folder, plans=None, labels=None):
    """A result folder as a training of nnU-Net leaves it; returns the network too."""
    plans = plans or plans_of()
    base = plans["configurations"]["base"]
    features = [4, 6, 6] if "UNet_class_name" in base else [4, 6, 8]
    words = ARCHITECTURE | {"features_per_stage": features, "input_channels": 1, "num_classes": 3}
    net = filled(build(known("dynamic_network_architectures.architectures.unet", "PlainConvUNet", words)))
    own = net.state_dict()
    twice = {k.replace(".conv.", ".all_modules.0."): v for k, v in own.items()}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels or {"background": 0, "organ": 1, "tumour": 2}}
    checkpoint = {
        "network_weights": twice | own,
        "optimizer_state": {"state": {}, "param_groups": []},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "losses": [np.float32(0.1)]},
        "_best_ema": np.float64(0.5),
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
    }
    folder = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for fold in ("fold_0", "fold_1"):
        (folder / fold).mkdir(parents=True)
        torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return net, folder


PREPARED = {  # what nnU-Net makes of intensities, written out
    "CTNormalization": lambda x: (np.clip(x, 150, 900) - 500) / 200,
    "ZScoreNormalization": lambda x: (x - x.mean()) / x.std(),
    "RescaleTo01Normalization": lambda x: (x - x.min()) / (x.max() - x.min()),
    "RGBTo01Normalization": lambda x: x / 255,
    "NoNormalization": lambda x: x,
}


@pytest.mark.parametrize("scheme", PREPARED)
@pytest.mark.parametrize(("forward", "older"), [((0, 1, 2), False), ((1, 0, 2), True)])
def test_a_result_of_nnunet_gives_what_nnunet_gives(scheme, forward, older, tmp_path):
    net, folder = result(tmp_path, plans_of(scheme, forward, older))
    model = wait(import_model(folder, tmp_path / "theirs.model"))
    size = tuple(np.array([8, 16, 16])[np.argsort(forward)])  # of one window, so that all of the image is in it
    image = image_of(size, 3).astype(np.float32)
    x = PREPARED[scheme](image.astype(np.float64)).astype(np.float32).transpose(forward)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(x)[None, None])[0].numpy().transpose(0, *(1 + i for i in np.argsort(forward)))
        given = model.normalisation.measure(Stack(image, "zyx")).apply(image[None])
        found = model.imported()(torch.from_numpy(given)[None])[0].numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert model.config.window == size and model.units == ("millimeter",) * 3
    assert model.scale == tuple(np.array([2.0, 0.5, 0.5])[np.argsort(forward)])
    assert model.task.class_names == ("background", "organ", "tumour") and model.record["name"] == "Dataset001_Organ"


def test_labels_of_a_result_of_nnunet_do_not_depend_on_the_tiling(tmp_path):
    _, folder = result(tmp_path)
    code, said = call("import", folder, "--out", tmp_path / "theirs.model")
    assert code == 0 and "fold_0 is taken; fold_1" in said and "windows of 8 x 16 x 16" in said
    stack = Stack(image_of((20, 40, 50), 5), "zyx", name="image")
    results = [
        np.asarray(wait(predict(stack, tmp_path / "theirs.model", tmp_path / f"{i}.ome.zarr", size)).data)
        for i, size in enumerate(PredictConfig(block=block, **FP32) for block in ((4, 8, 8), (20, 40, 50), (8, 24, 16)))
    ]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    assert len(np.unique(results[0])) == 3


def test_a_fold_or_its_checkpoint_may_be_given_too(tmp_path):
    _, folder = result(tmp_path)
    found = [
        wait(import_model(path, tmp_path / f"{i}.model"))
        for i, path in enumerate((folder / "fold_1", folder / "fold_1" / "checkpoint_final.pth", folder / "plans.json"))
    ]
    assert found[0].sha256 == found[1].sha256 == found[2].sha256 and found[0].record["imported from"].endswith("fold_1")


@pytest.mark.parametrize(
    ("plans", "labels", "match"),
    [
        (plans_of("MyNormalization"), None, "MyNormalization"),
        (plans_of(previous_stage="3d_lowres"), None, "cascade"),
        (plans_of(), {"background": 0, "whole": [1, 2], "core": 2}, "regions that overlap"),
        (plans_of(), {"background": 0, "organ": 1, "tumour": 5}, "without a gap"),
        (plans_of(), {"background": 0, "organ": 1}, "do not fit"),
        (plans_of(patch_size=None), None, "not understood"),
    ],
)
def test_what_is_not_done_of_nnunet_is_named(plans, labels, match, tmp_path):
    _, folder = result(tmp_path, plans, labels)
    with pytest.raises(ModelError, match=match):
        wait(import_model(folder, tmp_path / "theirs.model"))
    assert not (tmp_path / "theirs.model").exists()


def test_a_folder_without_a_finished_training_is_said_to_be_that(tmp_path):
    _, folder = result(tmp_path)
    for fold in ("fold_0", "fold_1"):
        (folder / fold / "checkpoint_final.pth").unlink()
    with pytest.raises(ModelError, match="no finished training"):
        wait(import_model(folder, tmp_path / "theirs.model"))


@pytest.mark.parametrize("kind", [kind for kind in THEIRS if kind not in ("unet, wide", "plain, batch norm behind")])
def test_the_network_of_weights_is_told_by_their_names_and_shapes(kind):
    """Where its norm and its activation are the usual ones, which weights do not say."""
    library, name, words, _ = THEIRS[kind]
    wanted = known(library, name, {k: v for k, v in words.items() if k != "act"})
    found, _ = inferred({k: v.numpy() for k, v in build(wanted).state_dict().items()}, "a.pth")
    assert found.network == wanted.network and found.in_channels == wanted.in_channels
    for part in wanted.settings:
        same = found.settings[part] == wanted.settings[part]
        assert same or part in ("norm", "act", "stem", "between"), part
    x = torch.randn(1, 2, *[32] * wanted.ndim)
    nets = [
        filled(build(dataclasses.replace(each, settings=each.settings | {"act": ["relu", {}]})))
        for each in (found, wanted)
    ]
    with torch.inference_mode():
        assert torch.equal(nets[0](x), nets[1](x))


def test_weights_alone_make_a_model_with_what_a_description_says(tmp_path):
    library, name, words, _ = THEIRS["unet, wide"]
    net = filled(build(known(library, name, words)))
    torch.save({"model": net.state_dict()}, tmp_path / "weights.pt")
    arguments = words | {"norm": list(words["norm"])}
    told = {"network": f"{library}.{name}", "arguments": arguments, "intensities": "percentile", "unit": "micrometer"}
    told |= {"classes": ["ground", "a", "b", "c"], "channels": ["red", "green"], "pixel_size": [0.5, 0.5]}
    (tmp_path / "network.json").write_text(json.dumps(told))
    code, said = call(
        "import", tmp_path / "weights.pt", "--network", tmp_path / "network.json", "--out", tmp_path / "theirs.model"
    )
    model = load_model(tmp_path / "theirs.model")
    assert code == 0 and "no test in it" in said and model.normalisation.kind == "percentile"
    assert model.scale == (0.5, 0.5) and model.channel_names == ("red", "green")
    x = torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net(x), model.imported()(x))


def test_weights_of_no_known_network_are_refused(tmp_path):
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"no network that is known here.*--network"):
        wait(import_model(tmp_path / "weights.pt", tmp_path / "theirs.model"))
    with pytest.raises(ModelError, match=r"their\.Net is not known"):
        wait(import_model(tmp_path / "weights.pt", tmp_path / "theirs.model", network={"network": "their.Net"}))
    with pytest.raises(ModelError, match="not by code"):
        wait(import_model(tmp_path / "weights.pt", tmp_path / "theirs.model", network={"code": "net.py"}))


def test_a_package_says_itself_what_its_network_is(tmp_path):
    _, folder = of_monai(tmp_path / "zoo", "batch")
    with pytest.raises(UsageError, match="leave the network out"):
        wait(import_model(folder, tmp_path / "theirs.model", network={"network": "monai.networks.nets.BasicUNet"}))
