"""Networks of other libraries: the same numbers as there, and results that do not depend on the tiling."""

import dataclasses
import io
import itertools
import zlib

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from helpers import FP32, example, image_of
from napari_unet import PredictConfig, TrainConfig, load_model, open_stack, predict, train, wait
from napari_unet.arrays.stack import Stack
from napari_unet.errors import ModelError, UnsafeError
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.network import Known, build, footprint, halo_of, windows
from napari_unet.network.steps import Step
from napari_unet.task import Semantic
from napari_unet.zoo.known import known, placed
from napari_unet.zoo.measure import look
from napari_unet.zoo.states import fitted_to, read_state, tensors_of

MONAI, NNUNET = "monai.networks.nets", "dynamic_network_architectures.architectures.unet"


def of_nnunet(ndim, **more):
    """Settings as nnU-Net's plans have them."""
    words = {
        "input_channels": 2,
        "num_classes": 3,
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
        "kernel_sizes": [[1, 3, 3][-ndim:], [3] * ndim, [3] * ndim],
        "strides": [[1] * ndim, [1, 2, 2][-ndim:], [2] * ndim],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return words | more


def of_monai(ndim, **more):
    return {"spatial_dims": ndim, "in_channels": 2, "out_channels": 3} | more


PLAIN = {"n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2]}
RESIDUAL = {"n_blocks_per_stage": [1, 3, 2], "n_conv_per_stage_decoder": [1, 1]}
BATCH = {"norm_op": "torch.nn.modules.batchnorm.BatchNorm2d", "norm_op_kwargs": {}}
BASIC, UNET = {"features": [4, 4, 8, 8, 8, 6]}, {"channels": [4, 6, 8], "strides": [2, 2]}
BLOCK = {
    "block": "dynamic_network_architectures.building_blocks.residual.BottleneckD",
    "bottleneck_channels": [2, 3, 4],
}
GROUPS = {"norm": ("group", {"num_groups": 2}), "act": "relu", "adn_ordering": "ADN"}
# Mean, deviation and two elements of the output, as monai 1.6.1 and dynamic-network-architectures 0.4.4 compute them
# with the weights and the image below.
THEIRS = {
    "plain": (NNUNET, "PlainConvUNet", of_nnunet(2, **PLAIN), [0.362713, 0.316125, 0.136575, 0.033012]),
    "plain 3-D": (NNUNET, "PlainConvUNet", of_nnunet(3, **PLAIN), [0.363851, 0.321069, 0.169389, 0.002095]),
    "plain, batch norm behind": (
        NNUNET,
        "PlainConvUNet",
        of_nnunet(2, n_conv_per_stage=[1, 2, 1], n_conv_per_stage_decoder=[1, 2], nonlin_first=True, **BATCH),
        [0.386595, 0.260172, 0.177725, 0.202226],
    ),
    "residual": (NNUNET, "ResidualEncoderUNet", of_nnunet(2, **RESIDUAL), [0.321813, 0.105835, 0.446585, 0.268722]),
    "residual 3-D": (NNUNET, "ResidualEncoderUNet", of_nnunet(3, **RESIDUAL), [0.321862, 0.10573, 0.285377, 0.274729]),
    "bottleneck": (
        NNUNET,
        "ResidualEncoderUNet",
        of_nnunet(2, **RESIDUAL | {"n_blocks_per_stage": [1, 2, 1], "stem_channels": 5} | BLOCK),
        [0.321874, 0.104981, 0.289361, 0.304137],
    ),
    "basic": (MONAI, "BasicUNet", of_monai(2, **BASIC), [-0.196916, 0.39399, 0.209459, -0.681108]),
    "basic 3-D": (
        MONAI,
        "BasicUNet",
        of_monai(3, **BASIC, norm="batch", act="relu"),
        [-0.197266, 0.528459, 0.358339, -0.822205],
    ),
    "unet": (MONAI, "UNet", of_monai(2, **UNET), [-0.222912, 1.040482, 0.88424, -0.195209]),
    "unet, residual": (
        MONAI,
        "UNet",
        of_monai(3, **UNET, num_res_units=2, norm="batch", kernel_size=(1, 3, 3)),
        [0.757759, 1.615028, 1.306856, 0.908325],
    ),
    "unet, wide": (
        MONAI,
        "UNet",
        of_monai(2, **UNET | {"strides": [2, 1]}, kernel_size=5, num_res_units=1, **GROUPS) | {"out_channels": 4},
        [-0.125761, 1.47138, -0.883991, 0.064955],
    ),
}


def filled(net):
    """Give each weight values that follow from its name, so that they are the same in each library."""
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            new = np.random.default_rng(zlib.crc32(name.encode())).normal(size=value.shape).astype(np.float32) * 0.3
            value.copy_(torch.from_numpy(np.abs(new) + 0.5 if "running_var" in name else new))
    return net.eval()


def config_of(kind):
    library, name, words, numbers = THEIRS[kind]
    return known(library, name, words), numbers


@pytest.mark.parametrize("kind", THEIRS)
def test_a_network_gives_the_numbers_of_its_library(kind):
    config, numbers = config_of(kind)
    shape = (1, 2, *[32] * config.ndim)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    with torch.inference_mode():
        y = filled(build(config))(x)[0]
    found = [y.mean(), y.std(correction=1), y[(1, *(7, 9, 20)[-config.ndim :])], y[(2, *(0,) * config.ndim)]]
    assert np.allclose([float(v) for v in found], numbers, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("kind", ["plain, batch norm behind", "unet", "unet, wide", "basic"])
def test_how_far_it_looks_is_what_is_measured(kind):
    config, _ = config_of(kind)
    config = dataclasses.replace(config, settings=config.settings | {"norm": ["none", {}], "act": ["elu", {}]})
    net = filled(build(config))

    def run(x):
        with torch.inference_mode():
            return net(torch.from_numpy(x)).numpy()

    stride = config.stride[1]
    radius, measured = look(run, (1, 2, 4 * stride, 64 * stride), 1, 1)
    assert measured == stride
    assert halo_of(config)[1] - 2 * stride < radius <= halo_of(config)[1] + stride


def model_of(kind, window=(), blended=False, **more):
    config, _ = config_of(kind)
    config = dataclasses.replace(placed(config, window, blended), **more)
    weights = {k: v.numpy() for k, v in filled(build(config)).state_dict().items()}
    count = config.out_channels
    task = Semantic(tuple(range(count)), tuple(f"class {i}" for i in range(count)))
    return Model(config, weights, task, Normalisation("zscore"), "zyx"[-config.ndim :], record={"name": "theirs"})


def normalised(stack):
    return Normalisation("zscore").measure(stack).apply(np.asarray(stack.data))[None]


AS_FLOATS = {"probabilities": True, "probability_type": "float16", **FP32}


def results(model, stack, folder, block):
    path = folder / f"{block[-1]}.ome.zarr"
    wait(
        predict(stack, model, path, PredictConfig(block=block, probabilities=True, probability_type="float16", **FP32))
    )
    return np.asarray(open_stack(path / "probabilities").data[...])


def test_any_tiling_gives_the_whole_where_norms_are_pointwise(tmp_path):
    model, stack = model_of("plain, batch norm behind"), Stack(image_of((2, 70, 90), 5), "cyx")
    first, second = (results(model, stack, tmp_path, block) for block in ((16, 24), (70, 90)))
    assert np.array_equal(first, second)


def test_windows_at_fixed_places_give_the_same_for_any_tiling(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "WHOLE", 0)
    model, stack = model_of("plain", (32, 32)), Stack(image_of((2, 70, 90), 5), "cyx")
    config = model.config
    assert (config.window, config.margin, config.core, config.stride) == ((32, 32), (8, 8), (16, 16), (4, 4))
    assert footprint(config).stride == (16, 16) and config.tile_exact
    first, second, third = (results(model, stack, tmp_path, block) for block in ((16, 16), (32, 48), (70, 90)))
    assert np.array_equal(first, second) and np.array_equal(second, third)
    net, x = Known(config, model.weights), normalised(stack)
    x = np.pad(x, [(0, 0), (0, 0), (0, 10), (0, 6)], mode="reflect")
    wanted = np.zeros((3, 80, 96), np.float32)
    for y0, x0 in itertools.product(range(0, 80, 16), range(0, 96, 16)):
        low = max(y0 - 8, 0), max(x0 - 8, 0)
        with torch.inference_mode():
            found = net(torch.from_numpy(x[:, :, low[0] : y0 + 24, low[1] : x0 + 24].copy())).softmax(1)[0].numpy()
        wanted[:, y0 : y0 + 16, x0 : x0 + 16] = found[:, y0 - low[0] : y0 - low[0] + 16, x0 - low[1] : x0 - low[1] + 16]
    assert np.abs(first - wanted[:, :70, :90]).max() < 1e-3  # of float16


def test_a_small_image_goes_through_a_network_that_takes_statistics_in_one_pass(tmp_path):
    model, stack = model_of("plain", (32, 32)), Stack(image_of((2, 70, 90), 5), "cyx")
    found = [results(model, stack, tmp_path, block) for block in ((16, 16), (32, 48), (70, 90))]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[1], found[2])
    x = np.pad(normalised(stack), [(0, 0), (0, 0), (0, 2), (0, 2)], mode="reflect")
    with torch.inference_mode():
        wanted = Known(model.config, model.weights)(torch.from_numpy(x)).softmax(1)[0].numpy()[:, :70, :90]
    assert np.abs(found[0] - wanted).max() < 1e-3  # of float16
    part = tmp_path / "part.ome.zarr"
    wait(predict(stack, model, part, PredictConfig(block=(16, 16), region="30:60,41:90", **AS_FLOATS)))
    assert np.array_equal(np.asarray(open_stack(part / "probabilities").data), found[0][:, 30:60, 41:90])
    assert (
        zarr.open_group(part, mode="r").attrs["napari_unet"]["provenance"]["windows"] == "one pass over the whole image"
    )


@pytest.mark.parametrize("shape", [(70, 90), (27, 50), (20, 21)])  # larger than a window, partly, and smaller
def test_windows_of_nnunet_overlap_and_are_weighed_as_its_own(tmp_path, shape):
    """Written out as nnU-Net does it, but for its sums in float16."""
    model, stack = model_of("plain", (32, 36), blended=True), Stack(image_of((2, *shape), 5), "cyx")
    found = [results(model, stack, tmp_path, block) for block in ((16, 16), (32, 48), shape)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[1], found[2])
    around = [max(w - n, 0) for n, w in zip(shape, (32, 36), strict=True)]
    pads = [(n // 2, n - n // 2) for n in around]
    x = np.pad(normalised(stack), [(0, 0), (0, 0), *pads])
    spot = np.zeros((32, 36))
    spot[16, 18] = 1
    weigh = ndimage.gaussian_filter(spot, (4, 4.5), 0, mode="constant")
    weigh = (weigh / weigh.max() * 10).astype(np.float16)
    weigh[weigh == 0] = weigh[weigh > 0].min()
    steps = []
    for n, w in zip(x.shape[2:], (32, 36), strict=True):
        count = int(np.ceil((n - w) / (w / 2))) + 1
        steps.append([int(np.round((n - w) / max(count - 1, 1) * i)) for i in range(count)])
    total, weight = np.zeros((3, *x.shape[2:])), np.zeros(x.shape[2:])
    net = Known(model.config, model.weights)
    for y0, x0 in itertools.product(*steps):
        at = (slice(y0, y0 + 32), slice(x0, x0 + 36))
        with torch.inference_mode():
            total[:, *at] += net(torch.from_numpy(x[:, :, *at].copy()))[0].numpy() * weigh.astype(np.float64)
        weight[at] += weigh
    wanted = torch.from_numpy(total / weight).softmax(0).numpy()
    wanted = wanted[:, pads[0][0] : pads[0][0] + shape[0], pads[1][0] : pads[1][0] + shape[1]]
    assert np.abs(found[0] - wanted).max() < 1e-3  # of float16
    part = tmp_path / "part.ome.zarr"
    wait(predict(stack, model, part, PredictConfig(block=(8, 16), region="9:20,5:20", **AS_FLOATS)))
    assert np.array_equal(np.asarray(open_stack(part / "probabilities").data), found[0][:, 9:20, 5:20])
    told = zarr.open_group(part, mode="r").attrs["napari_unet"]["provenance"]["windows"]
    assert told == "windows of 32 x 36, half over each other, weighed"


def test_a_model_of_another_library_is_kept_as_it_is(tmp_path):
    model = model_of("unet", (32, 32), before=(Step("clip", {"low": -1.0, "high": 2.0}),))
    model.save(tmp_path / "theirs.model")
    again = load_model(tmp_path / "theirs.model")
    assert again.sha256 == model.sha256 and again.config == model.config
    assert "2-D MONAI UNet, " in again.card() and "windows of 32 x 32 at fixed places" in again.card()


def saved(content):
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "net."])
def test_weights_are_found_under_the_names_that_wrappers_give_them(prefix):
    config, _ = config_of("unet")
    own = filled(build(config)).state_dict()
    data = saved({"epoch": 3, "state_dict": {prefix + k: v for k, v in own.items()}})
    found = fitted_to(config, tensors_of(read_state(data, "a.ckpt"), "a.ckpt"), "a.ckpt")
    assert set(found) == set(own) and all(np.array_equal(found[k], own[k].numpy()) for k in own)


def test_what_nnunet_writes_twice_and_for_its_training_is_left_out():
    config, _ = config_of("plain")
    own = filled(build(config)).state_dict()
    twice = {k.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1."): v for k, v in own.items()}
    again = {f"decoder.{k}": v for k, v in own.items() if k.startswith("encoder.")}
    coarser = {"decoder.seg_layers.0.weight": torch.zeros(3, 6, 1, 1), "decoder.seg_layers.0.bias": torch.zeros(3)}
    beside = {"logging": {"losses": [np.float64(1.5), np.float32(2)]}, "trainer_name": "nnUNetTrainer"}
    data = saved({"network_weights": twice | again | coarser | own, **beside})
    found = fitted_to(config, tensors_of(read_state(data, "a.pth"), "a.pth"), "a.pth")
    assert set(found) == set(own)


class Evil:
    def __reduce__(self):
        return (print, ("code was run",))


def test_code_in_a_file_of_weights_is_not_run(capsys):
    with pytest.raises(UnsafeError, match=r"more than tensors.*\(print\).*state_dict") as found:
        read_state(saved({"state_dict": {}, "more": Evil()}), "a.pth")
    assert "weights_only" not in str(found.value)  # how to run it all the same
    net = torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4))
    out = io.BytesIO()
    torch.jit.save(net, out)
    with pytest.raises(UnsafeError, match="TorchScript"):
        read_state(out.getvalue(), "a.pt")
    with pytest.raises(ModelError, match="no file of weights"):
        read_state(b"text, no weights", "a.pt")
    assert "code was run" not in capsys.readouterr().out


def test_weights_of_another_network_do_not_fit():
    config, _ = config_of("unet")
    weights = {k: v.numpy() for k, v in build(config).state_dict().items()}
    with pytest.raises(ModelError, match=r"do not fit MONAI UNet.*missing"):
        fitted_to(config, {"conv.weight": np.zeros((1, 1, 3, 3), np.float32)}, "a.pth")
    first = next(iter(weights))
    with pytest.raises(ModelError, match=rf"do not fit.*{first}"):
        fitted_to(config, weights | {first: np.zeros((1, 1, 3, 3), np.float32)}, "a.pth")


@pytest.mark.parametrize(
    ("kind", "wrong", "match"),
    [
        ("basic", {"upsample": "pixelshuffle"}, "deconv"),
        ("unet", {"norm": "layer"}, "the norm layer"),
        ("unet", {"act": "tanhshrink"}, "the activation tanhshrink"),
        ("unet", {"dimensions": 2}, "with dimensions"),
        ("unet", {"strides": [2]}, "3 channels and 1 strides"),
        ("plain", {"strides": [[2, 2], [2, 2], [2, 2]]}, "the first level"),
        ("plain", {"kernel_sizes": [[2, 2], [3, 3], [3, 3]]}, "no centre"),
    ],
)
def test_settings_that_are_not_understood_are_named(kind, wrong, match):
    library, name, words, _ = THEIRS[kind]
    with pytest.raises(ModelError, match=match):
        build(known(library, name, words | wrong))


def test_a_card_with_settings_of_no_network_is_refused():
    config, _ = config_of("unet")
    for wrong in ({"features": [4] * 99}, {"units": 10**9}, {"strides": [[2], [2]]}, {"features": [-4, 4, 4]}):
        with pytest.raises(ModelError, match="cannot be built"):
            dataclasses.replace(config, settings=config.settings | wrong)


@pytest.mark.parametrize("kind", ["plain", "unet", "basic"])
def test_a_network_of_another_library_is_fine_tuned(kind, tmp_path):
    """It goes on from its own weights, ends as a model of its kind, and a training that was stopped goes on."""
    library, name, words, _ = THEIRS[kind]
    one = {"input_channels": 1} if library == NNUNET else {"in_channels": 1}
    config = placed(known(library, name, words | one))
    weights = {k: v.numpy() for k, v in filled(build(config)).state_dict().items()}
    task = Semantic((0, 1, 2), ("a", "b", "c"))
    start = Model(config, weights, task, Normalisation("zscore"), "yx", record={"name": "theirs"})
    pairs = [example((64, 64), seed=i, name=f"image {i}") for i in range(3)]
    settings = {"steps": 4, "patch": (32, 32), "batch": 2, **FP32}
    stopped = train(pairs, tmp_path / "tuned.model", TrainConfig(**settings), init=start)
    for event in stopped:
        if getattr(event, "message", "").startswith("step 2"):
            break
    stopped.close()
    model = wait(train(pairs, tmp_path / "tuned.model", TrainConfig(**settings, resume=True), init=start))
    at_once = wait(train(pairs, tmp_path / "whole.model", TrainConfig(**settings), init=start))
    assert model.sha256 == at_once.sha256 == load_model(tmp_path / "tuned.model").sha256
    assert model.config.network == config.network and model.task.values == (0, 255)
    assert model.config.window == ((32, 32) if kind == "plain" else (64, 64) if kind == "basic" else (32, 32))
    first = next(key for key, value in weights.items() if value.ndim == 4)
    step = np.abs(model.weights[first] - weights[first]).max()
    assert 0 < step < 0.05 * np.abs(weights[first]).max()
