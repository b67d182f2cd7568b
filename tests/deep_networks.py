"""A small real network as a deep encoder, for tests of what is exported: strides 2, 4 and 8, offsets of its convolutions."""

from itertools import pairwise

from torch import Tensor, nn

from deep_weights import randomise
from forestbridge.encoders.deep import DeepEncoder, plan_run
from forestbridge.encoders.networks import network_of
from forestbridge.spec import EncoderSpec, MapSpec

WIDTHS = (6, 8, 10)


class SmallNetwork(nn.Module):
    """Three convolutions 3 × 3 of stride 2: offsets 0 of kernels that are padded by 1."""

    def __init__(self, channels: int, *, gain: float = 1.0, attention: bool = False) -> None:
        super().__init__()
        inputs = (channels, *WIDTHS)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(inputs))
        self.gain = gain
        self.attention = attention

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        maps, x = [], raw / 255
        for layer in self.layers:
            x = layer(x).relu()
            maps.append(x * self.gain)
        if self.attention:
            tokens = x.flatten(2).transpose(1, 2)  # (N, t·t, F)
            maps[2] = (
                nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)
            )
        return tuple(maps)


def small_network(
    channels: int = 1, *, name: str = "small", core: int = 64, halo: int = 16, seed: int = 0, **options
) -> DeepEncoder:
    """Return an encoder of cores of 64 and a halo of 16; its cells see 7 pixels further."""
    maps = tuple(
        MapSpec(f"s{2 ** (n + 1)}", tuple(f"s{2 ** (n + 1)}.{c}" for c in range(width)), 2 ** (n + 1), 0.0)
        for n, width in enumerate(WIDTHS)
    )
    spec = EncoderSpec(
        name=name,
        version=1,
        axes="yx",
        channels=channels,
        halo=(halo, halo),
        maps=maps,
        intensity={"rule": "linear", "low": [0.0] * channels, "high": [255.0] * channels},
        options={},
        tile=(core, core),
        dtype="float16",
        weights="0" * 64,
    )
    module = randomise(SmallNetwork(channels, **options), seed=channels + seed)
    return DeepEncoder(spec, module, plan_run(network_of("cellpose_cyto3")))
