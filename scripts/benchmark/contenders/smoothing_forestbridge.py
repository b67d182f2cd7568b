"""forestbridge's smoothing of a mask: closing, 25 iterations of mean curvature, Otsu."""

from common import grains

from forestbridge.objects.clean import smooth_mask


def prepare(folder):
    """Return the (Y, X) bool mask."""
    mask = grains(folder)
    smooth_mask(mask[:64], 1)  # compiles
    return mask


def run(mask):
    """Return the smooth mask, (Y, X) bool."""
    return smooth_mask(mask, 25)[1]
