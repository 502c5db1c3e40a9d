"""The U-Net and its numbers: channels, receptive field, stride, and how it is folded for inference."""

from collections.abc import Mapping
from typing import Any

from .config import UNetConfig, ronneberger2015
from .graph import Graph, GraphConfig
from .known import Known, KnownConfig, build, halo_of, windowed
from .reach import footprint, receptive_radius
from .timed import Way, carried, drift, step_of, steps_of
from .unet import ConvUnit, UNet, Up, crop_centre, deployable, pool, repeated

NetworkConfig = UNetConfig | GraphConfig | KnownConfig
LearntConfig = UNetConfig | KnownConfig


def read_network(values: Mapping[str, Any]) -> NetworkConfig:
    """Build what a network is built from of what its ``to_json`` gave.

    Raises
    ------
    ModelError
        Naming the entries that are not known.
    """
    kinds: dict[Any, type[NetworkConfig]] = {each.kind: each for each in (GraphConfig, KnownConfig)}
    return kinds.get(values.get("kind"), UNetConfig).from_json(values)


__all__ = [
    "ConvUnit",
    "Graph",
    "GraphConfig",
    "Known",
    "KnownConfig",
    "LearntConfig",
    "NetworkConfig",
    "UNet",
    "UNetConfig",
    "Up",
    "Way",
    "build",
    "carried",
    "crop_centre",
    "deployable",
    "drift",
    "footprint",
    "halo_of",
    "pool",
    "read_network",
    "receptive_radius",
    "repeated",
    "ronneberger2015",
    "step_of",
    "steps_of",
    "windowed",
]
