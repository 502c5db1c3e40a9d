"""A small model of every kind, with weights drawn at random: what holds for one must hold for all."""

import dataclasses

import numpy as np
import torch
from torch import nn

from helpers import cells
from napari_unet.arrays.stack import Stack
from napari_unet.grid.tiles import TileGrid, scaled
from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.network import UNet, UNetConfig, footprint
from napari_unet.task import Autoencode, Diffuse, Instances, Restore, Semantic, SuperResolve

SEEDS = {2: 4, 3: 7}  # of random networks that find several objects


def random_net(config, seed=0):
    """A network in eval mode whose batch norms have seen something."""
    torch.manual_seed(seed)
    net = UNet(config)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    if config.residual:  # it begins as nothing but the input
        net.head.weight.data.normal_(0, 0.3)
    return net.eval()


def run_tile(net, image, tile):
    """(C, *S) image -> the logits of the tile's core."""
    seen = tile.mirror(image[(slice(None), *tile.read)])
    with torch.inference_mode():
        out = net(torch.from_numpy(seen)[None])[0].numpy()
    return out[(slice(None), *scaled(tile.crop, net.config.factors))]


def run_tiled(net, image, core):
    grid = TileGrid(image.shape[1:], core, footprint(net.config))
    factors = net.config.factors
    out = np.empty(
        (net.config.out_channels, *(n * f for n, f in zip(image.shape[1:], factors, strict=True))), np.float32
    )
    for tile in grid:
        out[(slice(None), *scaled(tile.write, factors))] = run_tile(net, image, tile)
    return out


def whole_logits(model, data):
    """(C, *S) intensities -> logits of the network on the whole image at once."""
    stack = Stack(data=data, axes="c" + model.axes)
    image = model.normalisation.measure(stack).apply(data)
    return run_tiled(model.network().eval(), image, image.shape[1:])


def model_of(config, seed=0, task=None, normalisation=None):
    return Model(
        config=config,
        weights={k: v.numpy() for k, v in random_net(config, seed).state_dict().items()},
        task=task or Semantic.of(range(max(2, config.out_channels))),
        normalisation=normalisation or Normalisation(),
        axes="zyx"[-config.ndim :],
    )


def small(ndim=2, depth=2, **more):
    return model_of(UNetConfig(ndim=ndim, depth=depth, base_features=4, **more))


def finder(ndim=2, **options):
    network = UNetConfig(ndim=ndim, depth=1, base_features=4, out_channels=3)
    return model_of(network, SEEDS[ndim], task=Instances(**options))


def finder_of_classes(shape, ndim=2, names=("disc", "ring"), **options):
    """A model that finds objects of both classes in `cells` of this shape."""
    network = UNetConfig(ndim=ndim, depth=1, base_features=4, out_channels=3 + len(names))
    model = model_of(network, {2: 49, 3: 31}[ndim], task=Instances(object_classes=names, **options))
    logits = whole_logits(model, cells(shape).data[None])
    bias = np.array(model.weights["head.bias"])
    bias[3] -= np.median(logits[3] - logits[4])
    return dataclasses.replace(model, weights={**model.weights, "head.bias": bias})


def restorer_of(network, kind=Restore, seed=0, **task):
    names = tuple(f"channel {i}" for i in range(network.out_channels // (1 + task.get("predict_std", False))))
    fields = {"channels": names, "offset": (100.0,) * len(names), "scale": (50.0,) * len(names)}
    fixed = Normalisation("fixed", offset=(400.0,) * network.in_channels, scale=(250.0,) * network.in_channels)
    return model_of(network, seed, task=kind(**fields | task), normalisation=fixed)


def told(config, seed=0):
    """A network in eval mode that minds the time."""
    net = random_net(config, seed)
    for module in net.modules():
        if getattr(module, "time", None) is not None:
            module.time.weight.data.normal_(0, 0.2)
            module.time.bias.data.normal_(0, 0.2)
    return net


def sampler(ndim=2, channels=1, outs=1, depth=2, **task):
    """A model that draws samples."""
    network = UNetConfig(
        ndim=ndim, in_channels=channels + outs, out_channels=outs, depth=depth, base_features=4, timed=True
    )
    names = tuple(f"channel {i}" for i in range(outs))
    fields = {"channels": names, "offset": (100.0,) * outs, "scale": (50.0,) * outs}
    return Model(
        config=network,
        weights={k: v.numpy() for k, v in told(network).state_dict().items()},
        task=Diffuse(**fields | task),
        normalisation=Normalisation("fixed", offset=(400.0,) * channels, scale=(250.0,) * channels),
        axes="zyx"[-ndim:],
    )


def restorer(kind=Restore, ndim=2, channels=1, seed=0, **task):
    more = {"upscale": (2, 3, 1)[-ndim:] if ndim == 3 else (2, 2)} if kind is SuperResolve else {}
    more |= {"skips": False} if kind is Autoencode else {"residual": True}
    outs = channels * (1 + task.get("predict_std", False))
    network = UNetConfig(ndim=ndim, in_channels=channels, out_channels=outs, depth=2, base_features=4, **more)
    return restorer_of(network, kind, seed, **task)


def cascade(ndim=2):
    return [restorer(Restore, ndim), restorer(SuperResolve, ndim, seed=1), small(ndim)]


KINDS = {
    "semantic": small,
    "instances": finder,
    "restore": lambda ndim=2: restorer(Restore, ndim),
    "super_resolve": lambda ndim=2: restorer(SuperResolve, ndim),
    "autoencode": lambda ndim=2: restorer(Autoencode, ndim),
    "diffuse": lambda ndim=2: sampler(ndim, depth=1),
    "cascade": cascade,
}
