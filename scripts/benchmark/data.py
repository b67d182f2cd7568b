"""Synthetic inputs of the benchmark: an image of blobs, what an encoder might make of it, and strokes that label it.

Files in a folder: `image.npy` (Y, X) uint8, `truth.npy` (Y, X) uint8, `scribble_y.npy`, `scribble_x.npy`, `scribble_class.npy` (N,),
`bank.npy` (49, Y, X) float32 (ilastik's features), `embedding.npy` (256, Y/16, X/16) float32, and `level_4.npy`, `level_8.npy`,
`level_16.npy`, (256, Y/s, X/s) float16.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.draw import line

BLOB = 24.0
"""Size of the blobs in pixels: structures of 50 to 100 pixels, as nuclei at 40× have them."""

STROKE = 50
"""Longest stroke in pixels."""


def draw_blobs(size: int, classes: int, seed: int) -> NDArray[np.uint8]:
    """Return the (Y, X) class 0..K-1 of each pixel of a square: the largest of K smooth random fields."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((size, size), np.float32), BLOB) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def paint(truth: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Return a (Y, X) uint8 micrograph of the classes: brightness, texture, uneven light, noise."""
    rng = np.random.default_rng(seed)
    classes = int(truth.max()) + 1
    brightness = np.linspace(90, 170, classes, dtype=np.float32)
    grain = gaussian_filter(rng.standard_normal(truth.shape, np.float32), 2.0) * 60
    light = gaussian_filter(rng.standard_normal(truth.shape, np.float32), truth.shape[0] / 6)
    signal = brightness[truth] + grain * (1 + truth % 2) + 15 * light / max(float(np.abs(light).max()), 1e-6)
    noise = rng.normal(0, 14, truth.shape).astype(np.float32)
    return np.clip(np.rint(signal + noise), 0, 255).astype(np.uint8)


def embed(truth: NDArray[np.uint8], stride: int, features: int, seed: int) -> NDArray[np.float32]:
    """Return (F, Y/s, X/s) cells like an encoder's: what classes a cell sees, what varies slowly over the image, and noise."""
    size, classes = truth.shape[0] // stride, int(truth.max()) + 1
    rng = np.random.default_rng(seed)
    cells = truth.reshape(size, stride, size, stride)
    seen = np.stack([gaussian_filter((cells == k).mean(axis=(1, 3)).astype(np.float32), 0.5) for k in range(classes)])
    slow = np.stack([gaussian_filter(rng.standard_normal((size, size), np.float32), 64 / stride) for _ in range(8)])
    slow /= slow.std(axis=(1, 2), keepdims=True)
    own = np.random.default_rng(stride)  # what a feature means does not change with the image
    meaning = own.normal(0, 0.6, (features, classes)).astype(np.float32)
    mixing = own.normal(0, 0.2, (features, len(slow))).astype(np.float32)
    noise = rng.normal(0, 0.5, (features, size, size)).astype(np.float32)
    return np.einsum("fk,kyx->fyx", meaning, seen) + np.einsum("fr,ryx->fyx", mixing, slow) + noise


def scribble(truth: NDArray[np.uint8], pixels: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return y, x and class of the pixels under straight strokes that stay in one class, as many of each class."""
    rng = np.random.default_rng(seed)
    classes = int(truth.max()) + 1
    found = []
    for k in range(classes):
        inside = np.argwhere(truth == k)
        missing = pixels // classes
        while missing > 0:
            start, angle = inside[rng.integers(len(inside))], rng.uniform(0, 2 * np.pi)
            end = np.rint(start + STROKE * np.array([np.sin(angle), np.cos(angle)])).astype(int)
            y, x = line(*start, *end)
            valid = (y >= 0) & (y < truth.shape[0]) & (x >= 0) & (x < truth.shape[1])
            y, x = y[valid], x[valid]
            length = min(int((np.cumsum(truth[y, x] != k) == 0).sum()), missing)
            found.append((y[:length], x[:length], np.full(length, k)))
            missing -= length
    y, x, k = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return y, x, k


def write_inputs(folder: Path, *, size: int = 1024, classes: int = 2, pixels: int = 3000, seed: int = 0) -> None:
    """Write all inputs of one problem."""
    import forestbridge as fb

    folder.mkdir(parents=True, exist_ok=True)
    truth = draw_blobs(size, classes, seed)
    image = paint(truth, seed + 1)
    y, x, k = scribble(truth, pixels, seed + 2)
    arrays = {"image": image, "truth": truth, "scribble_y": y, "scribble_x": x, "scribble_class": k}
    arrays["bank"] = fb.features(image, fb.open_encoder("filters"))
    arrays["embedding"] = embed(truth, 16, 256, seed + 3)
    for stride in (4, 8, 16):
        arrays[f"level_{stride}"] = embed(truth, stride, 256, seed + stride).astype(np.float16)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
