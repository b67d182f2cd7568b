"""SAM's attention with its positions folded into its products: timm's numbers, timm's names, and no scores in memory."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer_sam import Attention
from torch.overrides import TorchFunctionMode

from deep_weights import randomise
from forestbridge.encoders import sam


class Largest(TorchFunctionMode):
    """Takes note of the largest tensor that a function gave."""

    numbers = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("shape", [(1, 24, 24, 96), (3, 8, 8, 96), (1, 5, 9, 96)])
@pytest.mark.parametrize("trained", [None, (14, 11)])
def test_it_is_that_of_timm(shape: tuple[int, int, int, int], trained: tuple[int, int] | None) -> None:
    """On the grid that its positions are for, and on others."""
    attention = randomise(Attention(96, 6, qkv_bias=True, use_rel_pos=True, input_size=trained or (shape[1], shape[2])))
    ours = sam.FoldedPositions(attention)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in attention.state_dict().items()}
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = attention(x)
        with Largest() as largest:
            found = ours(x)
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()
    cells, features = shape[1] * shape[2], 96 // 6 + shape[1] + shape[2]
    assert largest.numbers <= max(shape[0] * 6 * cells * features, 3 * x.numel())  # and none of heads × cells × cells
