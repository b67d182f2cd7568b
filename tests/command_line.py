"""The command line inside this process: its exit code, stdout and stderr apart; and small files for it to work on."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from forestbridge.cli import main, main_package
from forestbridge.phantom import phantom

CELLS = phantom((96, 112), classes=2)
STACK = phantom((6, 50, 60), classes=2, seed=1)
STAINED = phantom((60, 70), classes=2, channels=3, seed=2)
SCALES = ("--scales", "1")
"""Eight features with a halo of seven pixels: fast."""

RECIPE = """
[image]
source = "line/a.tif"
[scribbles]
source = "line/a_labels.tif"
names = ["background", "cell"]
[encoder]
name = "filters"
selection = { GaussianSmoothing = [1.0] }
[training]
n_trees = 3
[package]
name = "small cells"
authors = [{ name = "Ada Lovelace" }]
description = "Cells."
"""
"""Of a package of cells with one feature; lies beside the folder ``line`` that `write_line` fills."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.out)


def call(*arguments: str | Path, program: str = "forestbridge") -> Ended:
    """Run a command in this process, with stdout and stderr that are no terminals."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    argv = sys.argv
    sys.argv = [f"/somewhere/bin/{program}", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            {"forestbridge": main, "ff-package": main_package}[program]()
    except SystemExit as end:
        code = end.code or 0
    else:
        raise AssertionError("the program returned in place of ending")
    finally:
        sys.argv = argv
    assert isinstance(code, int)
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # pyright: ignore[reportAttributeAccessIssue]
    return Ended(code, *texts)


def done(*arguments: str | Path, program: str = "forestbridge") -> Ended:
    """Run a command that must succeed."""
    ended = call(*arguments, program=program)
    assert ended.code == 0, ended.err
    return ended


def tree(folder: Path) -> dict[str, int]:
    """Return every file and folder below a folder with its size."""
    return {str(p.relative_to(folder)): p.stat().st_size if p.is_file() else -1 for p in sorted(folder.rglob("*"))}


def write_images(folder: Path) -> None:
    """Write images and scribbles: a.tif and b.tif of cells, stack.tif, rgb.tif, each with its ..._labels.tif."""
    tifffile.imwrite(folder / "a.tif", CELLS.image)
    tifffile.imwrite(folder / "b.tif", phantom((96, 112), classes=2, seed=5).image)
    tifffile.imwrite(folder / "a_labels.tif", CELLS.scribbles)
    tifffile.imwrite(
        folder / "stack.tif", STACK.image.reshape(STACK.truth.shape), imagej=True, metadata={"axes": "ZYX"}
    )
    tifffile.imwrite(
        folder / "stack_labels.tif", STACK.scribbles.astype(np.uint8), imagej=True, metadata={"axes": "ZYX"}
    )
    pixels = (STAINED.image / STAINED.image.max() * 255).astype(np.uint8)
    tifffile.imwrite(folder / "rgb.tif", np.moveaxis(pixels, 0, -1), photometric="rgb")
    tifffile.imwrite(folder / "rgb_labels.tif", STAINED.scribbles)


def write_line(folder: Path) -> None:
    """Write the images, a store a.features.ome.zarr and a forest a.forest."""
    write_images(folder)
    done("extract", folder / "a.tif", "-o", folder / "a.features.ome.zarr", *SCALES)
    train = ["--labels", folder / "a_labels.tif", "--names", "background", "cell", "--n-trees", "10"]
    done("train", folder / "a.features.ome.zarr", *train, "-o", folder / "a.forest")
