"""ilastik's filters with vigra, for the system's Python: `python3 vigra_reference.py IN.npz OUT.npy`.

IN holds `image` (C, y, x) or (C, z, y, x) float32, `scales` and `compute_in_2d` (one bool per scale); every feature is
computed at every scale. OUT is (F, ...) float64 in ilastik's order. Not for a sigma below 0.25: there ilastik's kernels
have radius 0, which vigra has not.
"""

import sys

import numpy as np
import vigra  # pyright: ignore[reportMissingImports]


def eigenvalues(tensor):
    """Return the eigenvalues of (..., 3 or 6) upper triangles, largest first, as (n, ...).

    vigra's own closed form for 3 × 3 works in float32 and loses half the digits where two eigenvalues meet.
    """
    t = np.asarray(tensor, np.float64)
    n = 2 if t.shape[-1] == 3 else 3
    matrix = np.empty((*t.shape[:-1], n, n))
    for k, (i, j) in enumerate((a, b) for a in range(n) for b in range(a, n)):
        matrix[..., i, j] = matrix[..., j, i] = t[..., k]
    return np.moveaxis(np.linalg.eigvalsh(matrix)[..., ::-1], -1, 0)


def smooth(array, sigma, window):
    """Return a Gaussian smoothing of (y, x) or (z, y, x)."""
    tagged = vigra.taggedView(np.ascontiguousarray(array), "zyx"[-array.ndim :])
    return vigra.filters.gaussianSmoothing(tagged, sigma, window_size=window)


def feature(number, presmoothed, sigma):
    """Return (n, ...) of the feature with this number in ilastik's order."""
    f = vigra.filters
    p = vigra.taggedView(np.ascontiguousarray(presmoothed), "zyx"[-presmoothed.ndim :])
    if number == 0:
        return np.asarray(f.gaussianSmoothing(p, sigma, window_size=2.0))[None]
    if number == 1:
        return np.asarray(f.laplacianOfGaussian(p, sigma, window_size=2.0))[None]
    if number == 2:
        return np.asarray(f.gaussianGradientMagnitude(p, sigma, window_size=2.0))[None]
    if number == 3:
        return np.asarray(smooth(p, sigma, 2.0) - smooth(p, 0.66 * sigma, 2.0))[None]
    if number == 4:
        return eigenvalues(f.structureTensor(p, 0.5 * sigma, sigma, window_size=2.0))
    return eigenvalues(f.hessianOfGaussian(p, sigma, window_size=2.0))


def main(source, target):
    """Compute all features of the image in `source`."""
    with np.load(source) as arrays:
        image, scales, in_2d = arrays["image"], arrays["scales"].tolist(), arrays["compute_in_2d"].tolist()
    result = []
    for number in range(6):
        for scale, flat in zip(scales, in_2d):
            first = np.sqrt(scale * scale - 1) if scale > 1 else scale
            for channel in image:
                if flat and channel.ndim == 3:
                    planes = [feature(number, smooth(plane, first, 3.5), min(scale, 1.0)) for plane in channel]
                    result.append(np.stack(planes, axis=1))  # z planes of (n, y, x) -> (n, z, y, x)
                else:
                    result.append(feature(number, smooth(channel, first, 3.5), min(scale, 1.0)))
    np.save(target, np.concatenate(result).astype(np.float64))


if __name__ == "__main__":
    main(*sys.argv[1:])
