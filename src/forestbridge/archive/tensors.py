"""From a description (format 0.4 or 0.5) to its inputs and outputs: axes with sizes and halos, dtype, steps."""

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from forestbridge.archive.description import Description, Key

AxisType = Literal["batch", "channel", "space", "time", "index"]

_LETTERS: dict[str, tuple[str, AxisType]] = {
    "b": ("batch", "batch"),
    "c": ("channel", "channel"),
    "t": ("time", "time"),
    "i": ("index", "index"),
    **{letter: (letter, "space") for letter in "zyx"},
}


@dataclass(frozen=True)
class AxisInfo:
    """One axis of an input or output.

    Attributes
    ----------
    id, type
        Its name, and what it counts.
    size
        A fixed number of elements; None otherwise.
    min, step
        Sizes are ``min + n * step``; None where the size is fixed or follows from an input.
    reference, ratio, offset
        Input and axis that fix the size, (tensor, axis): size = size there * ratio + offset.
    scale
        Size of one element in the axis's unit.
    halo
        Elements at either end that are not to be trusted.
    channel_names
        Of a channel axis.
    """

    id: str
    type: AxisType
    size: int | None = None
    min: int | None = None
    step: int | None = None
    reference: tuple[str, str] | None = None
    ratio: float = 1.0
    offset: float = 0.0
    scale: float = 1.0
    halo: int = 0
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes
    ----------
    id
        Its name.
    axes
        In order.
    dtype
        As numpy names it.
    test, sample
        Names of the test and sample files; None where there is none.
    steps
        Names of the steps before the model (inputs) or after it (outputs).
    """

    id: str
    axes: tuple[AxisInfo, ...]
    dtype: str
    test: str | None = None
    sample: str | None = None
    steps: tuple[str, ...] = ()


def read_tensors(description: Description) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return inputs and outputs.

    Raises
    ------
    PackageError
        If a key is missing or of a wrong type, two names are equal, or a size refers to an axis that no input has.
    """
    old = description.data["format_version"].startswith("0.4.")
    read = _read_old if old else _read_new
    inputs, outputs = (
        tuple(read(description, (side, n)) for n in range(len(description.need(side, kind=list))))
        for side in ("inputs", "outputs")
    )
    seen: set[str] = set()
    for side, tensors in (("inputs", inputs), ("outputs", outputs)):
        for n, tensor in enumerate(tensors):
            if tensor.id in seen:
                raise description.fault((side, n, "name" if old else "id"), "every name once", f"{tensor.id!r} again")
            seen.add(tensor.id)
            ids = [axis.id for axis in tensor.axes]
            if len(set(ids)) != len(ids):
                raise description.fault((side, n, "axes"), "every axis once", ", ".join(ids))
    known = {(tensor.id, axis.id): axis.scale for tensor in inputs + outputs for axis in tensor.axes}
    for side, tensors in (("inputs", inputs), ("outputs", outputs)):
        for n, tensor in enumerate(tensors):
            for m, axis in enumerate(tensor.axes):
                if axis.reference is not None and axis.reference not in known:
                    key = (side, n, "shape") if old else (side, n, "axes", m, "size")
                    raise description.fault(key, "the name of an axis of an input", ".".join(axis.reference))
    return (inputs, outputs) if old else (_with_ratios(inputs, known), _with_ratios(outputs, known))


def _with_ratios(tensors: tuple[TensorInfo, ...], scales: dict[tuple[str, str], float]) -> tuple[TensorInfo, ...]:
    """Return tensors of format 0.5 with the ratio that follows from the two scales of a reference."""
    return tuple(
        replace(
            tensor,
            axes=tuple(
                replace(axis, ratio=scales[axis.reference] / axis.scale) if axis.reference is not None else axis
                for axis in tensor.axes
            ),
        )
        for tensor in tensors
    )


def _read_new(description: Description, key: Key) -> TensorInfo:
    description.need(*key, kind=dict)
    axes = tuple(_axis(description, (*key, "axes", n)) for n in range(len(description.need(*key, "axes", kind=list))))
    data = (*key, "data")
    if isinstance(description.get(*data, kind=object), list):  # one per channel, of one type
        description.need(*data, kind=list)
        data = (*data, 0)
    description.get(*data, kind=dict)
    dtype = description.get(*data, "type", kind=str, default="float32")
    test, sample = (_file(description, (*key, name)) for name in ("test_tensor", "sample_tensor"))
    return TensorInfo(description.need(*key, "id", kind=str), axes, dtype, test, sample, _steps(description, key, "id"))


def _file(description: Description, key: Key) -> str | None:
    if description.get(*key, kind=dict) is None:
        return None
    return description.need(*key, "source", kind=str).removeprefix("./")


def _steps(description: Description, key: Key, name: str) -> tuple[str, ...]:
    side = "preprocessing" if key[0] == "inputs" else "postprocessing"
    steps = description.get(*key, side, kind=list, default=[])
    return tuple(description.need(*key, side, n, name, kind=str) for n in range(len(steps)))


def _axis(description: Description, key: Key) -> AxisInfo:
    kind = description.need(*key, "type", kind=str)
    if kind not in ("batch", "channel", "space", "time", "index"):
        raise description.fault((*key, "type"), "batch, channel, space, time or index", repr(kind))
    # these three have only one in a tensor, and their type as their default name
    id = description.get(*key, "id", kind=str, default="x" if kind == "space" else kind)
    halo = description.get(*key, "halo", kind=int, default=0)
    scale = description.get(*key, "scale", kind=float, default=1.0)
    if halo < 0 or not 0 < scale < math.inf:
        raise description.fault(key, "a halo of 0 or more and a scale above 0", f"halo {halo} and scale {scale}")
    if kind == "channel":
        names = description.need(*key, "channel_names", kind=list)
        texts = tuple(description.need(*key, "channel_names", n, kind=str) for n in range(len(names)))
        return AxisInfo(id, kind, size=len(texts), channel_names=texts)
    size = description.get(*key, "size", kind=object)
    if size is None and kind == "batch":
        return AxisInfo(id, kind)
    if not isinstance(size, dict):
        number = _positive(description, (*key, "size"))
        return AxisInfo(id, kind, size=number, halo=halo, scale=scale)
    if "tensor_id" in size:
        tensor, axis = (description.need(*key, "size", name, kind=str) for name in ("tensor_id", "axis_id"))
        offset = float(description.get(*key, "size", "offset", kind=int, default=0))
        return AxisInfo(id, kind, reference=(tensor, axis), scale=scale, offset=offset, halo=halo)
    least = _positive(description, (*key, "size", "min"))
    # an output whose size depends on the data has min and max instead
    step = _positive(description, (*key, "size", "step")) if "max" not in size else None
    return AxisInfo(id, kind, min=least, step=step, scale=scale, halo=halo)


def _positive(description: Description, key: Key) -> int:
    number = description.need(*key, kind=int)
    if not 0 < number < 2**31:
        raise description.fault(key, "a whole number from 1 to 2147483647", str(number))
    return number


def _read_old(description: Description, key: Key) -> TensorInfo:
    """Read a tensor of format 0.4: ``axes: bcyx`` with one list of sizes."""
    description.need(*key, kind=dict)
    letters = description.need(*key, "axes", kind=str)
    if not re.fullmatch(f"[{''.join(_LETTERS)}]+", letters):
        raise description.fault((*key, "axes"), f"letters of {''.join(_LETTERS)}", repr(letters))
    shape = description.get(*key, "shape", kind=object)
    halo = description.get(*key, "halo", kind=list)
    parts: dict[str, list[float | None]] = {}
    reference = None
    if isinstance(shape, dict):
        names = ("min", "step") if key[0] == "inputs" else ("scale", "offset")
        reference = description.need(*key, "shape", "reference_tensor", kind=str) if key[0] == "outputs" else None
        for name in names:
            numbers = description.need(*key, "shape", name, kind=list)
            parts[name] = [description.get(*key, "shape", name, n, kind=float) for n in range(len(numbers))]
    else:
        sizes = description.need(*key, "shape", kind=list)
        parts["size"] = [_positive(description, (*key, "shape", n)) for n in range(len(sizes))]
    parts["halo"] = [] if halo is None else [description.get(*key, "halo", n, kind=int) for n in range(len(halo))]
    if any(len(values) != len(letters) for name, values in parts.items() if values or name != "halo"):
        raise description.fault((*key, "shape"), f"one number for each of the axes {letters}", str(shape)[:80])
    if any(value is not None and not abs(value) < 2**31 for values in parts.values() for value in values):
        raise description.fault((*key, "shape"), "numbers below 2147483648", str(shape)[:80])
    axes = tuple(
        _old_axis(letter, {k: v[n] for k, v in parts.items() if v}, reference) for n, letter in enumerate(letters)
    )
    number = key[1]
    side = "inputs" if key[0] == "inputs" else "outputs"
    test, sample = (_old_file(description, f"{kind}_{side}", int(number)) for kind in ("test", "sample"))
    dtype = description.need(*key, "data_type", kind=str)
    return TensorInfo(
        description.need(*key, "name", kind=str), axes, dtype, test, sample, _steps(description, key, "name")
    )


def _old_file(description: Description, key: str, number: int) -> str | None:
    names = description.get(key, kind=list, default=[])
    return description.need(key, number, kind=str).removeprefix("./") if number < len(names) else None


def _old_axis(letter: str, numbers: dict[str, float | None], reference: str | None) -> AxisInfo:
    id, kind = _LETTERS[letter]
    whole = {name: int(value) for name, value in numbers.items() if value is not None}
    halo = whole.get("halo", 0)
    if kind == "batch":
        return AxisInfo(id, kind)
    if "size" in numbers or whole.get("step") == 0:
        return AxisInfo(id, kind, size=whole.get("size", whole.get("min")), halo=halo)
    if reference is None:
        return AxisInfo(id, kind, min=whole.get("min"), step=whole.get("step"), halo=halo)
    offset = 2 * (numbers.get("offset") or 0.0)  # format 0.4 counts it at both ends
    if not numbers.get("scale"):  # an axis the input does not have
        return AxisInfo(id, kind, size=int(offset), halo=halo)
    return AxisInfo(id, kind, reference=(reference, id), ratio=float(numbers["scale"] or 1.0), offset=offset, halo=halo)
