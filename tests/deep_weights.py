"""Weights for tests of deep encoders: those of Cellpose that the featureforest package ships, and random ones in the official layouts."""

from importlib.metadata import files
from pathlib import Path

import torch
from torch import nn


def cyto3_file() -> Path:
    """Return cyto3_downsample.pth, which the installed package featureforest holds (BSD-3-Clause); the package is not imported."""
    found = [f for f in files("featureforest") or [] if f.name == "cyto3_downsample.pth"]
    return Path(str(found[0].locate()))


def randomise(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Fill every parameter and running statistic with small numbers other than 0 and 1, so that each one shows in the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.1 * noise.abs())
            elif tensor.ndim > 1:
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            else:
                tensor.copy_((1.0 if name.endswith("weight") else 0.0) + 0.1 * noise)
    return module.eval()
