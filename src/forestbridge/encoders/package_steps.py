"""The steps before a model of bioimage.io, as arithmetic on single pixels: read, frozen into constants, applied.

A step that normalises by the picture at hand would give the same pixels other values in another tile. Its statistics are therefore taken
once, over all images, and stand in the spec as constants: `freeze_steps`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo, TensorInfo
from forestbridge.encoders.intensity import sample_pixels
from forestbridge.errors import PackageError
from forestbridge.image import Image

Step = dict[str, Any]
"""``{"step": name, ...}``: the name, and its constants; those of channels are lists of one number, or of one for each channel."""

STEPS = ("binarize", "clip", "ensure_dtype", "fixed_zero_mean_unit_variance", "scale_linear", "sigmoid")
"""That work on single pixels."""

LARGEST_WHOLE = 2.0**62
"""At which whole numbers of 64 bits are cut: what float32 and float64 hold exactly."""

MEASURED = ("scale_range", "zero_mean_unit_variance")
"""Whose statistics are measured."""


def read_steps(info: PackageInfo, tensor: TensorInfo, *, after: bool = False) -> list[Step]:
    """Return the steps of a tensor of rdf.yaml, in their order.

    Parameters
    ----------
    after
        Whether the tensor is an output.

    Raises
    ------
    PackageError
        If a step is not known, or is told in a way that is not.
    """
    side, key = ("outputs", "postprocessing") if after else ("inputs", "preprocessing")
    entry = info.rdf[side][(info.outputs if after else info.inputs).index(tensor)]
    found = []
    channels = next((axis.size for axis in tensor.axes if axis.type == "channel"), 1)
    for name, step in zip(tensor.steps, entry.get(key) or [], strict=True):
        known = STEPS if after else (*STEPS, *MEASURED)
        kwargs = step.get("kwargs") or {}
        if name not in known or not isinstance(kwargs, Mapping):
            advice = "wrap them into the model" if after else "export the model with them inside, or with scale_linear"
            raise PackageError(
                f"{info.path}: expected the steps {', '.join(known)} {'after' if after else 'before'} the model, found {name}; {advice}"
            )
        try:
            found.append(_read(name, kwargs))
            _check_counts(found[-1], channels)
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"{info.path}: expected constants of the step {name} that bioimage.io describes, found {str(dict(kwargs))[:120]} "
                f"({error}); export the package again"
            ) from error
    return found


def _read(name: str, kwargs: Mapping[str, Any]) -> Step:
    """Return a step with what decides its values."""
    if name in MEASURED:
        if kwargs.get("reference_tensor") or kwargs.get("tensor_name"):
            raise ValueError("statistics of another tensor")
        if name == "zero_mean_unit_variance" and (kwargs.get("mode") == "fixed" or kwargs.get("mean") is not None):
            return _read("fixed_zero_mean_unit_variance", kwargs)  # in format 0.4, where it is the default
        axes = kwargs.get("axes")
        if axes is not None and not {"y", "x"} <= set(axes):
            raise ValueError("statistics that are not over y and x")
        together = axes is None or "c" in axes or "channel" in axes
        measured: Step = {"step": name, "eps": float(kwargs.get("eps", 1e-6)), "together": together}
        if name == "scale_range":
            low, high = kwargs.get("min_percentile", 0.0), kwargs.get("max_percentile", 100.0)
            measured |= {"percentiles": [float(low), float(high)]}
        return measured
    if kwargs.get("axis") not in (None, "channel", "c"):
        raise ValueError(f"numbers along the axis {kwargs['axis']}")
    several = any(isinstance(v, list) and len(v) > 1 for v in kwargs.values())
    if several and kwargs.get("axes") is not None and set(kwargs["axes"]) - {"b"} != {"y", "x"}:  # format 0.4
        raise ValueError("numbers that are not those of channels")
    match name:
        case "binarize":
            return {"step": name, "threshold": _numbers(kwargs["threshold"])}
        case "clip":
            limits = {k: float(kwargs[k]) for k in ("min", "max") if kwargs.get(k) is not None}
            if not limits or any(k not in ("min", "max") for k, v in kwargs.items() if v is not None):
                raise ValueError("limits that are no numbers")
            return {"step": name, **limits}
        case "ensure_dtype":
            dtype = np.dtype(kwargs["dtype"])
            if dtype.kind not in "biuf":
                raise ValueError("no dtype of numbers")
            return {"step": name, "dtype": dtype.name}
        case "fixed_zero_mean_unit_variance":
            return {"step": name, **{k: _numbers(kwargs[k]) for k in ("mean", "std")}, "eps": 1e-6}
        case "scale_linear":
            return {"step": name, "gain": _numbers(kwargs.get("gain", 1)), "offset": _numbers(kwargs.get("offset", 0))}
    return {"step": name}


def _check_counts(step: Step, channels: int | None) -> None:
    """Refuse numbers of channels that the tensor has not."""
    for name in ("gain", "offset", "mean", "std", "threshold"):
        if channels is not None and len(step.get(name, [0])) not in (1, channels):
            raise ValueError(f"{name} of {len(step[name])} channels for {channels}")


def _numbers(value: Any) -> list[float]:
    values = [float(v) for v in (value if isinstance(value, list) else [value])]
    if not np.isfinite(values).all():
        raise ValueError("numbers that are not finite")
    return values


def freeze_steps(
    steps: Sequence[Step],
    *,
    images: Sequence[Image] | None,
    limits: tuple[Sequence[float], Sequence[float]] | None,
    source: str,
) -> list[Step]:
    """Return the steps with constants in place of statistics.

    Parameters
    ----------
    images
        Over which they are measured.
    limits
        Raw intensities, one per channel, that take the place of the percentiles of scale_range.

    Raises
    ------
    ValueError
        If statistics are needed and neither is given, or limits where no step is a scale_range.
    """
    measured = [step["step"] for step in steps if step["step"] in MEASURED]
    if limits is not None and measured != ["scale_range"]:
        raise ValueError(
            f"expected low and high (--range) for a package whose intensities are scaled by scale_range, found the steps "
            f"{', '.join(s['step'] for s in steps) or 'none'} in {source}; leave them out"
        )
    if measured and images is None and limits is None:
        raise ValueError(
            f"expected constants for {', '.join(measured)} of {source}, which would take them from each tile, found none; give "
            "images=[...] to measure them once over all images, or for scale_range low=[...] and high=[...]"
        )
    frozen: list[Step] = []
    samples = sample_pixels(images) if images is not None and limits is None and measured else None  # (C, N)
    for step in steps:
        if step["step"] not in MEASURED:
            frozen.append(step)
            continue
        if limits is not None:
            ends = np.stack([np.asarray(v, np.float32).reshape(-1, 1) for v in limits])  # (2, C, 1)
            low, high = (apply_steps(frozen, end)[:, 0] for end in ends)
            frozen.append(_scaling(low, high - low + step["eps"]))
            continue
        assert samples is not None
        values = apply_steps(frozen, samples)
        if step["together"]:
            values = values.reshape(1, -1)
        if step["step"] == "scale_range":
            low, high = np.percentile(values, step["percentiles"], axis=1)
            frozen.append(_scaling(low, high - low + step["eps"]))
        else:
            frozen.append(
                _scaling(values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64) + step["eps"])
            )
    return frozen


def _scaling(zero: NDArray, span: NDArray) -> Step:
    """Return the step (x - zero) / span."""
    return {
        "step": "fixed_zero_mean_unit_variance",
        "mean": np.asarray(zero, np.float32).tolist(),
        "std": np.asarray(span, np.float32).tolist(),
        "eps": 0.0,
    }


def apply_steps(steps: Sequence[Step], pixels: NDArray) -> NDArray:
    """Return (C, ...) values after frozen steps, float32 unless a step says otherwise."""
    for step in steps:
        pixels = _APPLY[step["step"]](step, pixels)
    return pixels


def _column(values: Sequence[float], pixels: NDArray) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (pixels.ndim - 1))


def _normalise(step: Step, x: NDArray) -> NDArray[np.float32]:
    return ((x - _column(step["mean"], x)) / (_column(step["std"], x) + np.float32(step["eps"]))).astype(np.float32)


def cast(pixels: NDArray, dtype: str) -> NDArray:
    """Return pixels in another dtype; whole numbers are cut at its ends."""
    kind = np.dtype(dtype)
    if kind.kind in "iu" and pixels.dtype != kind:
        ends = np.iinfo(kind)
        pixels = np.clip(pixels, max(ends.min, -LARGEST_WHOLE), min(ends.max, LARGEST_WHOLE))
    return pixels.astype(kind)


def _sigmoid(_: Step, x: NDArray) -> NDArray[np.float32]:
    return (0.5 * (1 + np.tanh(0.5 * x))).astype(np.float32)


_APPLY: dict[str, Callable[[Step, NDArray], NDArray]] = {
    "binarize": lambda step, x: (x > _column(step["threshold"], x)).astype(np.float32),
    "clip": lambda step, x: np.clip(x, step.get("min"), step.get("max")),
    "ensure_dtype": lambda step, x: cast(x, step["dtype"]),
    "fixed_zero_mean_unit_variance": _normalise,
    "scale_linear": lambda step, x: (x * _column(step["gain"], x) + _column(step["offset"], x)).astype(np.float32),
    "sigmoid": _sigmoid,
}
