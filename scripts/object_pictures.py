"""Make the pictures of docs/objects.md, and its scribbles and truth: run with the environment's Python, without arguments.

The truth is the watershed of scikit-image's tutorial on region-based segmentation; the scribbles are strokes at fixed places.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.filters import sobel
from skimage.segmentation import watershed

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = ("coins_histogram.png", "coins_otsu_outlines.png", "coins_outlines.png")
PALETTE = (40, 40, 40, 0, 114, 178, 230, 159, 0)  # unlabelled, background, coin
SMALLEST = 300
"""Pixels of the smallest coin: what is smaller is dirt."""

HORIZONTAL = ((12, 10, 290), (88, 10, 370), (160, 10, 300), (228, 10, 300), (298, 60, 330))  # y, from x, to x
VERTICAL = ((72, 30, 70), (184, 100, 150), (240, 180, 215), (208, 245, 285), (14, 100, 150))  # x, from y, to y
COINS = (
    (52, 155),
    (44, 335),
    (124, 45),
    (125, 336),
    (197, 44),
    (187, 347),
    (261, 172),
    (263, 244),
    (119, 271),
    (54, 100),
)


def scribbles() -> np.ndarray:
    """Return (303, 384) strokes: 1 background, 2 coin."""
    strokes = np.zeros((303, 384), np.uint8)
    for y, start, stop in HORIZONTAL:
        strokes[y : y + 2, start:stop] = 1
    for x, start, stop in VERTICAL:
        strokes[start:stop, x : x + 2] = 1
    for y, x in COINS:
        strokes[y : y + 2, x - 14 : x + 14] = strokes[y - 12 : y + 12, x : x + 2] = 2
    return strokes


def truth() -> np.ndarray:
    """Return (303, 384) numbers of coins."""
    coins = data.coins()
    markers = np.where(coins > 150, 2, np.where(coins < 30, 1, 0))
    labels = ndimage.label(ndimage.binary_fill_holes(watershed(sobel(coins), markers) == 2))[0]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    number = np.cumsum(sizes > SMALLEST) * (sizes > SMALLEST)
    return number[labels].astype(np.uint8)


def main() -> None:
    """Write the inputs, run the page's lines, and copy the pictures."""
    strokes = Image.fromarray(scribbles())
    strokes.putpalette([*PALETTE, *[0] * (768 - len(PALETTE))])
    strokes.save(DOCS / "images" / "coins_scribbles.png", optimize=True)
    Image.fromarray(truth()).save(DOCS / "images" / "coins_truth.png", optimize=True)
    text = (DOCS / "objects.md").read_text(encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("coins_scribbles.png", "coins_truth.png"):
            shutil.copy(DOCS / "images" / name, folder)
        for language, block in re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL):
            commands = [[sys.executable, "-c", block]] if language == "python" else map(shlex.split, block.splitlines())
            for command in commands:
                print(shlex.join(command) if language == "bash" else block)
                subprocess.run(command, cwd=folder, env=environment, check=True)
        for name in PICTURES:
            with Image.open(Path(folder) / name) as picture:
                picture.convert("RGB").save(DOCS / "images" / name, optimize=True)


if __name__ == "__main__":
    main()
