"""Convolution and ReLU in one pass over the memory, with weights laid out beforehand for the processor."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..device import onednn_takes_bfloat16
from . import ConvUnit, UNet


class FusedUnit(ConvUnit):
    """A convolution unit whose norm is folded, as one kernel of oneDNN.

    The weights are kept as the last shape of input wants them: the kernel of another shape may want other blocks of
    channels, and to bring the one to the other takes up to ten times the convolution of a small image.

    Parameters
    ----------
    unit : ConvUnit
        On the CPU; its weights are shared.
    """

    def __init__(self, unit: ConvUnit) -> None:
        nn.Module.__init__(self)
        self.conv, self.norm = unit.conv, unit.norm
        self._ones = [1] * (unit.conv.weight.ndim - 2)
        self._packed: tuple[Any, Any] = None, None  # one value: threads may share the network

    def convolved(self, x: Tensor, padding: Any) -> Tensor:
        """(B, C, *S) -> (B, C', *S'), with ReLU."""
        run: Any = torch.ops.mkldnn._convolution_pointwise
        wanted, (shape, weight) = (x.shape, tuple(padding)), self._packed
        if wanted != shape:
            pack: Any = torch.ops.mkldnn._reorder_convolution_weight
            weight = pack(self.conv.weight, list(padding), self._ones, self._ones, 1, list(x.shape))
            self._packed = wanted, weight
        found = run(x, weight, self.conv.bias, padding, self._ones, self._ones, 1, "relu", [], "")
        return cast("Tensor", found)


@torch.inference_mode()
def fused(net: UNet) -> UNet:
    """Replace the units of a network on the CPU by fused ones, where oneDNN has them; in place.

    torch on its own sends 3-D convolutions of small batches to a kernel that is several times slower.

    Parameters
    ----------
    net : UNet
        As `deployable` gives it, on its device and in its precision.
    """
    first = next(net.parameters())
    device, taken = first.device, first.dtype != torch.bfloat16 or onednn_takes_bfloat16()
    there = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and cast("Any", torch.backends.mkldnn).is_available()
    if device.type == "cpu" and there and taken and torch.cpu.get_capabilities().get("avx2"):
        finer = [] if net.finer is None else [net.finer]
        for block in (*net.encoder, net.bottleneck, *net.decoder, *finer):
            units = cast("nn.Sequential", block)
            for i, unit in enumerate(units):
                if isinstance(unit, ConvUnit) and isinstance(unit.norm, nn.Identity):
                    units[i] = FusedUnit(unit)
    return net
