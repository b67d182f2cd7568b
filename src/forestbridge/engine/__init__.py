"""Forest prediction. `walk` explains how it is fast, `blocks` is what callers use; `torch_forest` is the same on a device."""

from forestbridge.engine.blocks import MapPart, predict, predict_block, predict_labels, require_finite

__all__ = ["MapPart", "predict", "predict_block", "predict_labels", "require_finite"]
