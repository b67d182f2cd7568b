"""Weights of deep encoders: where they come from, and how they come into the user's cache."""

from forestbridge.weights.cache import WeightsFile, weights_file, weights_folder, weights_status
from forestbridge.weights.checkpoints import CHECKPOINTS, Checkpoint, checkpoint_of

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "WeightsFile",
    "checkpoint_of",
    "weights_file",
    "weights_folder",
    "weights_status",
]
