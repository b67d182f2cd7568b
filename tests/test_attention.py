"""SAM's attention with its positions folded in, attention head by head, SAM 2 in bands: timm's numbers, in less memory."""

import math
from typing import Any

import pytest
import torch
from timm.models import vision_transformer
from timm.models.hieradet_sam2 import MultiScaleAttention
from timm.models.vision_transformer_sam import Attention
from torch import nn
from torch.overrides import TorchFunctionMode

from deep_weights import randomise
from forestbridge.encoders import sam, sam2
from forestbridge.encoders.layers import HeadByHead
from forestbridge.graphs.torchscript import tracing_without_warnings


class Largest(TorchFunctionMode):
    """Takes note of the largest tensor that a function gave."""

    numbers = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def largest_of_the_same(ours: nn.Module, timm: nn.Module, shape: tuple[int, ...], *, tolerance: float) -> int:
    """Return how many numbers the largest tensor inside has; parameters and results are timm's."""
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in timm.state_dict().items()}
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = timm(x)
        with Largest() as largest:
            found = ours(x)
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    return largest.numbers


@pytest.mark.parametrize("shape", [(1, 24, 24, 96), (3, 8, 8, 96), (1, 5, 9, 96)])
@pytest.mark.parametrize("trained", [None, (14, 11)])
@pytest.mark.parametrize("exportable", [False, True])
def test_it_is_that_of_timm(
    shape: tuple[int, int, int, int], trained: tuple[int, int] | None, *, exportable: bool
) -> None:
    """On the grid that its positions are for, and on others."""
    attention = randomise(Attention(96, 6, qkv_bias=True, use_rel_pos=True, input_size=trained or (shape[1], shape[2])))
    ours = sam.FoldedPositions(attention, exportable=exportable)
    largest = largest_of_the_same(ours, attention, shape, tolerance=2e-6)
    cells, features = shape[1] * shape[2], 96 // 6 + shape[1] + shape[2]
    scores = shape[0] * cells**2 if exportable else 0  # of one head; those of all never
    assert largest <= max(shape[0] * 6 * cells * features, 3 * math.prod(shape), scores)


def test_what_is_traced_follows_to_another_device() -> None:
    """The device "meta" has shapes and no numbers; like a GPU it takes no tensors of the CPU."""
    attention = randomise(Attention(24, 2, use_rel_pos=True, input_size=(3, 4)))
    ours = sam.FoldedPositions(attention, exportable=True).eval()
    x = torch.randn((1, 3, 4, 24), generator=torch.Generator().manual_seed(0))
    with tracing_without_warnings(), torch.no_grad():
        traced: Any = torch.jit.trace(ours, x)
        assert traced.to("meta")(x.to("meta")).shape == x.shape


@pytest.mark.parametrize("shape", [(1, 8, 8, 96), (3, 5, 9, 96), (2, 50, 96)])
def test_head_by_head_is_that_of_timm(shape: tuple[int, ...]) -> None:
    """That of SAM 2 on rows and columns of cells, that of DINOv2 on a row of tokens."""
    timm = (
        MultiScaleAttention(96, 96, num_heads=6)
        if len(shape) == 4
        else vision_transformer.Attention(96, num_heads=6, qkv_bias=True)
    )
    attention = randomise(timm)
    largest = largest_of_the_same(HeadByHead(attention), attention, shape, tolerance=1e-6)
    assert largest <= max(shape[0] * math.prod(shape[1:-1]) ** 2, 3 * math.prod(shape))


@pytest.fixture(scope="module")
def exportable() -> sam2.Sam2Encoder:
    network = sam2.build_network("sam2_base", ["s4", "s8", "s16"], exportable=True)
    randomise(network)
    return network


@pytest.mark.parametrize("band", [8, 16, 24])
def test_bands_change_nothing(band: int, exportable: sam2.Sam2Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 rows do not divide the 32 of stride 4."""
    picture = torch.randn((2, 3, 128, 64), generator=torch.Generator().manual_seed(0))
    maps = []
    for rows in (None, band):
        monkeypatch.setattr(exportable, "band", rows)
        with torch.inference_mode():
            maps.append(exportable(picture))
    for found, expected in zip(*reversed(maps), strict=True):
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()  # measured: 0


@pytest.mark.parametrize("name", sam2.MODELS)
def test_bands_hold_whole_windows(name: str) -> None:
    """Of the blocks up to the first one of the third stage, in rows of stride 4."""
    network = sam2.build_network(name, ["trunk16"], exportable=True)
    stride = 1
    for n, block in enumerate(network.trunk.blocks[: network.trunk.stage_ends[1] + 2]):
        assert block.is_windowed and network.band is not None
        assert network.band % (stride * block.window_size[0]) == 0, n
        stride *= 2 if block.q_stride else 1


def test_the_largest_tensor_of_what_is_exported(exportable: sam2.Sam2Encoder) -> None:
    """That of the queries, keys and values of a band where the second stage begins: 672 numbers a cell of stride 4."""
    picture = torch.randn((1, 3, 512, 512), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), Largest() as largest:
        exportable(picture)
    assert largest.numbers == sam2.BAND * 128 * 3 * 224
