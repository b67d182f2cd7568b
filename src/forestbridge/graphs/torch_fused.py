"""Filter bank and forest as one torch module: raw intensities (b, C, ...) in, class probabilities (b, K, ...) out."""

from torch import Tensor, nn

from forestbridge.graphs.torch_filters import FilterBankModule
from forestbridge.graphs.torch_forest import ForestModule


class FusedModule(nn.Module):
    """The filter bank, then the forest on its features."""

    def __init__(self, bank: FilterBankModule, forest: ForestModule) -> None:
        super().__init__()
        self.bank = bank
        self.forest = forest

    def forward(self, raw: Tensor) -> Tensor:
        """Return the probabilities (b, K, ...) of the raw intensities (b, C, ...)."""
        return self.forest(self.bank(raw))
