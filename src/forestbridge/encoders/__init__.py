"""Encoders: from a tile of raw intensities to its feature maps."""

from forestbridge.encoders.base import NAMES, Encoder, encoder_from_spec, encoder_names, open_encoder
from forestbridge.encoders.features import features

__all__ = ["NAMES", "Encoder", "encoder_from_spec", "encoder_names", "features", "open_encoder"]
