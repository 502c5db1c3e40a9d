"""A small model of every kind, with weights drawn at random: what holds for one must hold for all."""

from napari_unet.intensities.normalise import Normalisation
from napari_unet.model import Model
from napari_unet.network import UNetConfig
from napari_unet.task import Autoencode, Instances, Restore, Semantic, SuperResolve
from test_network import random_net

SEEDS = {2: 4, 3: 7}  # of random networks that find several objects


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


def restorer_of(network, kind=Restore, seed=0, **task):
    names = tuple(f"channel {i}" for i in range(network.out_channels // (1 + task.get("predict_std", False))))
    fields = {"channels": names, "offset": (100.0,) * len(names), "scale": (50.0,) * len(names)}
    fixed = Normalisation("fixed", offset=(400.0,) * network.in_channels, scale=(250.0,) * network.in_channels)
    return model_of(network, seed, task=kind(**fields | task), normalisation=fixed)


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
    "cascade": cascade,
}
