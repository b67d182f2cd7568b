"""Files that a command must refuse, in one folder, beside the good ones of `command_line.write_line`."""

import json
import os
import pickle
import shutil
import socket
from pathlib import Path

import numpy as np
import tifffile
import zarr
from PIL import Image
from safetensors.numpy import save_file

from command_line import CELLS, SCALES, done, write_line
from image_files import cut
from packages import build, graph, npy
from small_line import small_forest


def write_bad_files(folder: Path) -> None:
    """Write them all."""
    write_line(folder)
    _images(folder)
    _labels(folder)
    _stores(folder)
    _forests_and_packages(folder)


def _images(folder: Path) -> None:
    pixels = CELLS.image.astype(np.float32)
    for name, value in (("nan", np.nan), ("inf", -np.inf)):
        pixels[3, 4] = value
        np.save(folder / f"{name}.npy", pixels)
    np.save(folder / "no_pixels.npy", np.zeros((0, 5), np.uint8))
    np.save(folder / "large.npy", np.full((40, 40), 2**40, np.uint64))
    np.save(folder / "complex.npy", np.zeros((40, 40), np.complex64))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.save(folder / "numbers.npy", CELLS.image)
    np.save(folder / "two_channels.npy", np.stack([CELLS.image] * 2))
    stack = np.arange(8 * 40 * 50, dtype=np.uint16).reshape(8, 40, 50)
    tifffile.imwrite(folder / "no_axes.tif", stack, photometric="minisblack", metadata=None)
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "zlib.tif", stack, compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "plain.tif", stack[0])
    Image.fromarray(CELLS.truth.astype(np.uint8)).save(folder / "picture.png")
    for name in ("imagej.tif", "zlib.tif", "plain.tif", "picture.png"):
        cut(folder / name, 0.5)
    Image.fromarray(CELLS.truth.astype(np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE).save(
        folder / "palette.png"
    )
    (folder / "empty.tif").touch()
    (folder / "words.tif").write_text("no image at all")
    (folder / "file.zarr").write_text("a file")
    (folder / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    (folder / "folder").mkdir()
    (folder / "folder" / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    zarr.create_group(folder / "other.zarr", attributes={"made": "by others"})
    zarr.create_group(folder / "plate.zarr", attributes={"ome": {"version": "0.5", "plate": []}})
    zarr.create_group(folder / "words.zarr", attributes={"ome": {"version": "0.5", "multiscales": ["a"]}})
    (folder / "list.zarr").mkdir()
    (folder / "list.zarr" / "zarr.json").write_text("[]")


def _labels(folder: Path) -> None:
    good = CELLS.scribbles.astype(np.int64)
    instance = np.arange(good.size).reshape(good.shape) % 400
    for name, labels in {
        "negative": good - 3,
        "half": good + 0.5 * (good == 1),
        "one_class": (good == 1).astype(np.int64),
        "nothing": np.zeros_like(good),
        "transposed": good.T,
        "small": good[:50, :50],
        "instance": instance,
        "ignore": np.where(good == 0, 255, good),
        "huge": np.where(good == 2, 2**63 - 1, good),
        "stack": np.stack([good] * 3),
    }.items():
        np.save(folder / f"{name}_labels.npy", np.ascontiguousarray(labels))
    Image.fromarray(np.stack([CELLS.truth.astype(np.uint8) * 20] * 3, axis=-1)).save(folder / "colour_labels.png")
    (folder / "labels.txt").write_text("1 2 3")
    (folder / "broken.geojson").write_text("{")


def _stores(folder: Path) -> None:
    good = folder / "a.features.ome.zarr"
    for name in ("no_metadata", "garbled", "newer", "no_chunk", "corrupt", "truncated", "locked", "undone"):
        shutil.copytree(good, folder / f"{name}.features.ome.zarr")
    (folder / "no_metadata.features.ome.zarr/zarr.json").unlink()
    (folder / "garbled.features.ome.zarr/zarr.json").write_text("{")
    _edit_root(folder / "newer.features.ome.zarr", format=99)
    _edit_root(folder / "undone.features.ome.zarr", done=False, input_sha256=None)
    (folder / "undone.features.ome.zarr/forestbridge/journal.0.jsonl").write_bytes(b"")
    for name in ("no_chunk", "corrupt", "truncated", "undone"):
        [file] = [f for f in (folder / f"{name}.features.ome.zarr/features").glob("*/0/c/**/*") if f.is_file()]
        content = bytearray(file.read_bytes())
        if name in ("no_chunk", "undone"):
            file.unlink()
        elif name == "corrupt":
            content[1000:1010] = b"x" * 10
            file.write_bytes(content)
        else:
            file.write_bytes(content[: len(content) // 2])
    lock = {"host": socket.gethostname(), "pid": os.getpid(), "token": "another"}
    (folder / "locked.features.ome.zarr/forestbridge/lock").write_text(json.dumps(lock))
    done("extract", folder / "b.tif", "-o", folder / "b.features.ome.zarr", "--scales", "1.6")
    done("extract", folder / "rgb.tif", "-o", folder / "rgb.features.ome.zarr", *SCALES)


def _edit_root(store: Path, **changes: object) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["forestbridge"] |= changes
    (store / "zarr.json").write_text(json.dumps(document))


def _forests_and_packages(folder: Path) -> None:
    good = (folder / "a.forest").read_bytes()
    (folder / "cut.forest").write_bytes(good[: len(good) // 2])
    (folder / "newer.forest").write_bytes(
        good.replace(b'\\"format\\":1,\\"n_features', b'\\"format\\":9,\\"n_features')
    )
    (folder / "pickle.forest").write_bytes(pickle.dumps([1, 2, 3]))
    (folder / "empty.forest").touch()
    save_file({"a": np.zeros(3, np.float32)}, folder / "strange.forest")
    small_forest("stack").save(folder / "volume.forest")
    np.save(folder / "random_labels.npy", np.random.default_rng(0).integers(1, 3, CELLS.truth.shape))
    deep = ["--labels", folder / "random_labels.npy", "--n-trees", "3", "--max-depth", "0"]
    done("train", folder / "a.features.ome.zarr", *deep, "-o", folder / "deep.forest")
    build(folder / "good.zip")
    build(folder / "no_rdf.zip", files={"rdf.yaml": None})
    build(folder / "no_weights.zip", files={"weights.onnx": None})
    build(folder / "wrong_hash.zip", lambda rdf: rdf["weights"]["onnx"].update(sha256="0" * 64))
    build(folder / "tabs.zip", files={"rdf.yaml": b"a:\n\tb: 1\n"})
    build(folder / "opset.zip", files={"weights.onnx": graph(opset=99)})
    build(folder / "channels.zip", files={"weights.onnx": graph(classes=3)})
    build(folder / "no_onnx.zip", lambda rdf: rdf["weights"].pop("onnx"))
    build(folder / "wrong_test.zip", files={"test_probabilities.npy": npy(np.zeros((1, 2, 128, 128), np.float32))})
    (folder / "words.zip").write_text("no zip at all")
    (folder / "recipe").mkdir()
    (folder / "recipe/recipe.toml").write_text('[image]\nsource = "a.tif"\n')
    (folder / "no_toml").mkdir()
    (folder / "no_toml/recipe.toml").write_text("=")
    (folder / "no_recipe").mkdir()
