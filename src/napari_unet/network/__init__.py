"""The U-Net and its numbers: channels, receptive field, stride, and how it is folded for inference."""

from .config import UNetConfig, ronneberger2015
from .graph import Graph, GraphConfig
from .reach import footprint, receptive_radius
from .timed import Way, drift, euler_step, euler_steps
from .unet import ConvUnit, UNet, Up, crop_centre, deployable, pool, repeated

NetworkConfig = UNetConfig | GraphConfig

__all__ = [
    "ConvUnit",
    "Graph",
    "GraphConfig",
    "NetworkConfig",
    "UNet",
    "UNetConfig",
    "Up",
    "Way",
    "crop_centre",
    "deployable",
    "drift",
    "euler_step",
    "euler_steps",
    "footprint",
    "pool",
    "receptive_radius",
    "repeated",
    "ronneberger2015",
]
