"""Quality of an image before features are extracted: planes in; numbers, a verdict and its reasons in words out."""

from forestbridge.qc.measure import ChannelQuality, Histogram, PlaneQuality, Statistics
from forestbridge.qc.quality import QualityReport, quality
from forestbridge.qc.verdict import Verdict

__all__ = ["ChannelQuality", "Histogram", "PlaneQuality", "QualityReport", "Statistics", "Verdict", "quality"]
