import os
import subprocess
import sys

import pytest
import torch

from kinds import random_net
from napari_unet.network import UNetConfig, deployable
from napari_unet.network.fused import FusedUnit, fused

fuses = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_convolution_pointwise") or not torch.cpu.get_capabilities().get("avx2"),
    reason="this processor has no fused units",
)


@fuses
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_laid_out_for_the_shape_that_comes_and_give_what_they_gave(dtype):
    net = deployable(random_net(UNetConfig(depth=2, base_features=24))).to(dtype)
    mine = fused(deployable(net).to(memory_format=torch.channels_last))
    units = [unit for unit in mine.modules() if isinstance(unit, FusedUnit)]
    assert len(units) == 10
    for size in (64, 16, 64):  # another shape, and back
        x = torch.rand(1, 1, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found, wanted = mine(x).float(), net(x).float()
        assert (found - wanted).abs().max() <= {torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype] * wanted.abs().max()
        assert {tuple(unit._packed[0][0][2:]) for unit in units} == {(size >> level,) * 2 for level in range(3)}
        assert torch.equal(mine(x).float(), found)


def test_where_onednn_takes_no_bfloat16_float32_is_chosen_and_bfloat16_still_runs():
    # What processors with AVX2 alone do, on any: oneDNN reads its limit when it is loaded.
    program = """
import torch
from napari_unet.device import choose_precision
from napari_unet.network import UNet, UNetConfig, deployable
from napari_unet.network.fused import fused
assert choose_precision("auto", torch.device("cpu")) == torch.float32
torch.manual_seed(0)
net = deployable(UNet(UNetConfig(depth=1, base_features=8)).eval()).bfloat16()
x = torch.rand(1, 1, 32, 32, dtype=torch.bfloat16)
with torch.inference_mode():
    assert torch.allclose(fused(deployable(net))(x).float(), net.float()(x.float()), atol=0.05)
"""
    limit = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **limit}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
