"""Files of exports: HDF5, NPY, TIFF, PNG and OME-Zarr 0.4, written block by block and moved into place."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.files import check_output, new_file
from forestbridge.headless.export import FIVE, FORMATS, Export
from forestbridge.headless.plan import Plan
from forestbridge.image import Image
from forestbridge.image.hdf5_result import create_dataset, hdf5_attributes
from forestbridge.image.zarr_result import create_five_axes, new_folder

PIXEL_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""How a PNG holds so many channels of 8 bits."""

ZARR_ARRAY = "s0"

Write = Callable[[tuple[slice, ...], NDArray], None]
"""Takes a block in the axes of the file, and where it lies."""


@contextmanager
def created(export: Export, plan: Plan, image: Image, *, overwrite: bool) -> Iterator[Write]:
    """Make the file of an export; it appears under its name when it is complete."""
    with ExitStack() as stack:
        if export.format == "single-scale OME-Zarr":
            folder = stack.enter_context(new_folder(plan.path, overwrite=overwrite))
            yield _zarr_writer(folder, plan, image)
            return
        others = _datasets(plan.path) if FORMATS[export.format] == "h5" else None
        adds = others is not None and export.internal_path not in others
        if not adds:
            check_output(plan.path, overwrite=overwrite)
        file = stack.enter_context(new_file(plan.path, overwrite=overwrite or adds))
        if FORMATS[export.format] == "h5":
            if others is not None:  # they stay
                shutil.copyfile(plan.path, file)
            attributes = hdf5_attributes(plan.axes, image.pixel_size, None)
            if plan.limits is not None:
                attributes["drange"] = np.array(plan.limits).astype(plan.dtype)
            packed = export.format == "compressed hdf5"
            options: dict[str, Any] = {"attributes": attributes, "packed": packed}
            target = create_dataset(file, export.internal_path, plan.axes, plan.shape, plan.dtype, **options)
            yield target.write
            return
        pixels = np.lib.format.open_memmap(file, mode="w+", dtype=plan.dtype, shape=plan.shape)

        def write(place: tuple[slice, ...], block: NDArray) -> None:
            pixels[place] = block

        yield write
        pixels.flush()
        if export.format != "numpy":
            _pack(file, export.format, pixels, plan, image)


def _datasets(path: Path) -> set[str] | None:
    """Return the names in an HDF5 file; None where there is none."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return None
    names: set[str] = set()
    with h5py.File(path, "r") as file:
        file.visit(names.add)
    return names


def _zarr_writer(folder: Path, plan: Plan, image: Image) -> Write:
    sizes = dict(zip(plan.axes, plan.shape, strict=True))
    scale = [image.pixel_size.get(a, 1.0) for a in FIVE]
    axes = [{"name": a, "type": {"t": "time", "c": "channel"}.get(a, "space")} for a in FIVE]
    axes = [{**axis, "unit": "micrometer"} if axis["name"] in image.pixel_size else axis for axis in axes]
    level = {"path": ZARR_ARRAY, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    multiscale: dict[str, Any] = {"axes": axes, "datasets": [level]}
    first = [s.start * size for s, size in zip(plan.region, scale, strict=True)]
    if any(first):  # a part of the image lies where it was cut out; ilastik says so for the whole pyramid
        place = [{"type": "scale", "scale": [1.0] * 5}, {"type": "translation", "translation": first}]
        multiscale["coordinateTransformations"] = place
    target = create_five_axes(
        folder,
        tuple(sizes.get(a, 1) for a in FIVE),
        plan.dtype,
        multiscale=multiscale,
        attributes={},
        order=tuple(plan.axes.index(a) if a in plan.axes else None for a in FIVE),
    )
    return target.write


def _pack(file: Path, format: str, pixels: NDArray, plan: Plan, image: Image) -> None:
    """Replace plain pixels by an image file of the same content."""
    import tifffile
    from PIL import Image as Pillow

    packed = file.with_name(f"{file.name}.packed")
    try:
        if format == "multipage tiff":
            order = [
                plan.axes.index(a)
                for a in "tzcyx"
                if a in plan.axes and (a in "yx" or plan.shape[plan.axes.index(a)] > 1)
            ]
            rest = [i for i in range(len(plan.axes)) if i not in order]
            planes = pixels.transpose(*order, *rest).reshape([plan.shape[i] for i in order])
            axes = "".join(plan.axes[i].upper() for i in order)
            size = {f"PhysicalSize{a.upper()}": v for a, v in image.pixel_size.items()}
            size |= {f"PhysicalSize{a.upper()}Unit": "µm" for a in image.pixel_size}
            tifffile.imwrite(packed, planes, ome=True, photometric="minisblack", metadata={"axes": axes, **size})
        else:
            sizes = dict(zip(plan.axes, plan.shape, strict=True))
            order = [plan.axes.index(a) for a in "yxc" if a in plan.axes]
            rest = [i for i in range(len(plan.axes)) if i not in order]
            plane = pixels.transpose(*order, *rest).reshape(sizes["y"], sizes["x"], sizes.get("c", 1))
            plane = np.ascontiguousarray(plane[..., 0] if plane.shape[-1] == 1 else plane)
            if format == "png":
                mode = "I;16" if plane.dtype == np.uint16 else PIXEL_MODES[sizes.get("c", 1)]
                Pillow.frombytes(mode, plane.shape[1::-1], plane.tobytes()).save(packed, format="PNG")
            else:
                tifffile.imwrite(
                    packed, plane, photometric="minisblack", planarconfig="contig" if plane.ndim == 3 else None
                )
        packed.replace(file)
    finally:
        packed.unlink(missing_ok=True)
