"""Weights for tests of deep encoders: those of Cellpose that the featureforest package ships, and random ones in the official layouts."""

from importlib.metadata import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forestbridge.encoders.deep import DeepEncoder, plan_run
from forestbridge.encoders.deep_module import RawNetwork, build_module, convert_checkpoint, family_of
from forestbridge.encoders.networks import network_of, plan_spec
from forestbridge.encoders.planning import plan_deep


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


def random_encoder(name: str, *, exportable: bool = False, **options: Any) -> DeepEncoder:
    """Return a deep encoder with random weights, for 0 to 255 in each channel."""
    network = network_of(name)
    channels = options.setdefault("channels", 1)
    limits = {"low": [0.0] * channels, "high": [255.0] * channels}
    spec = plan_spec(network, **{**limits, "weights": "0" * 64, **options})
    module = family_of(name).build_network(name, [m.name for m in spec.maps], exportable=exportable)
    return DeepEncoder(spec, RawNetwork(spec, randomise(module)), plan_run(network))


def patchwise_encoder_of(content: Any, name: str, **options: Any) -> DeepEncoder:
    """Return the deep encoder in FeatureForest's way of what a published file holds, without writing the file."""
    network = network_of(name)
    spec = plan_deep(network, **{"channels": 1, "interpolation": "featureforest", **options})
    return DeepEncoder(spec, build_module(spec, convert_checkpoint(network)(content)), plan_run(network))


def encoder_of(content: Any, name: str, **options: Any) -> DeepEncoder:
    """Return a deep encoder of what a published file holds, without writing the file."""
    network = network_of(name)
    spec = plan_spec(network, **{"channels": 1, "low": [0], "high": [255], "weights": "0" * 64, **options})
    return DeepEncoder(spec, build_module(spec, convert_checkpoint(network)(content)), plan_run(network))


def mobile_sam_shapes() -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of MobileSAM's image encoder, written down from its published architecture."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        shapes[f"{name}.c.weight"] = (outputs, inputs, kernel, kernel)
        norm(f"{name}.bn", outputs)
        shapes.update({f"{name}.bn.running_mean": (outputs,), f"{name}.bn.running_var": (outputs,)})
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    widths, depths, heads, windows = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
    convolution("patch_embed.seq.0", 32, 3, 3)
    convolution("patch_embed.seq.2", 64, 32, 3)
    for n, width in enumerate(widths):
        for b in range(depths[n]):
            block = f"layers.{n}.blocks.{b}"
            if n == 0:
                convolution(f"{block}.conv1", 256, 64, 1)
                convolution(f"{block}.conv2", 256, 1, 3)
                convolution(f"{block}.conv3", 64, 256, 1)
                continue
            shapes[f"{block}.attn.attention_biases"] = (heads[n], windows[n] ** 2)
            norm(f"{block}.attn.norm", width)
            layer(f"{block}.attn.qkv", 3 * width, width)
            layer(f"{block}.attn.proj", width, width)
            norm(f"{block}.mlp.norm", width)
            layer(f"{block}.mlp.fc1", 4 * width, width)
            layer(f"{block}.mlp.fc2", width, 4 * width)
            convolution(f"{block}.local_conv", width, 1, 3)
        if n < 3:
            convolution(f"layers.{n}.downsample.conv1", widths[n + 1], width, 1)
            convolution(f"layers.{n}.downsample.conv2", widths[n + 1], 1, 3)
            convolution(f"layers.{n}.downsample.conv3", widths[n + 1], widths[n + 1], 1)
    norm("norm_head", 320)
    layer("head", 1000, 320)
    shapes["neck.0.weight"], shapes["neck.2.weight"] = (256, 320, 1, 1), (256, 256, 3, 3)
    norm("neck.1", 256)
    norm("neck.3", 256)
    return shapes


def mobile_sam_state(*, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random weights in MobileSAM's layout, with something of its other parts beside the image encoder."""
    generator = torch.Generator().manual_seed(seed)

    def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name.endswith("tracked"):
            return torch.zeros(shape, dtype=torch.long)
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            return noise / max(noise[0].numel(), 1) ** 0.5
        return (0.1 * noise).abs() + 1 if name.endswith(("weight", "var")) else 0.1 * noise

    state = {f"image_encoder.{k}": value(k, shape) for k, shape in mobile_sam_shapes().items()}
    return state | {"prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256)}


HIERA = {
    "sam2_base": {"embed_dim": 112, "num_heads": 2},
    "sam2_large": {
        "embed_dim": 144,
        "num_heads": 2,
        "stages": [2, 6, 36, 4],
        "global_att_blocks": [23, 33, 43],
        "window_pos_embed_bkg_spatial_size": [7, 7],
        "window_spec": [8, 4, 16, 8],
    },
}


def sam2_of_its_authors(name: str) -> nn.Module:
    """Return SAM 2's image encoder as the package sam2 builds it."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    trunk = Hiera(**HIERA[name])
    neck = FpnNeck(
        PositionEmbeddingSine(num_pos_feats=256),
        d_model=256,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk, neck, scalp=1)


def sam2_file(encoder: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return what a published file of SAM 2 holds, with something of its other parts."""
    state = {f"image_encoder.{k}": v for k, v in encoder.state_dict().items()}
    return {"model": state | {"memory_attention.norm.weight": torch.zeros(256)}}
