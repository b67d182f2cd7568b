"""Encoders from packages of bioimage.io format 0.4: valid for bioimageio.spec, and the same maps as bioimageio.core computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

from numpy.typing import NDArray
from torch import nn

import forestbridge as fb
from foreign_encoders import Maps, old_package
from forestbridge.consumers import validate_with_spec
from forestbridge.encoders import Encoder
from forestbridge.errors import PackageError

PICTURE = np.random.default_rng(0).integers(0, 4000, (2, 64, 64)).astype(np.uint16)
"""As large as a tile."""


def network(channels: int = 2) -> Maps:
    return Maps([nn.Conv2d(channels, 4, 3, 1, 1), nn.Tanh()], [nn.Conv2d(4, 6, 2, 2)])


def step(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "kwargs": kwargs} if kwargs else {"name": name}


STEPS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "linear": [
        step("scale_linear", axes="yx", gain=[0.001, 0.002], offset=[0.1, -0.1]),
        step("clip", min=0.2, max=3.0),
    ],
    "one gain": [step("scale_linear", gain=0.001)],
    "binarize": [step("binarize", threshold=1500.0)],
    "sigmoid": [step("scale_linear", gain=0.002, offset=-4.0), step("sigmoid")],
    "fixed": [step("zero_mean_unit_variance", mode="fixed", axes="xy", mean=[100.0, 3000.0], std=[900.0, 500.0])],
    "fixed by default": [step("zero_mean_unit_variance", axes="cyx", mean=2000.0, std=1200.0)],
    "variance": [step("zero_mean_unit_variance", mode="per_sample", axes="xy")],
    "variance together": [step("zero_mean_unit_variance", mode="per_sample", axes="cyx", eps=0.1)],
    "variance of all": [step("zero_mean_unit_variance", mode="per_dataset", axes="yx")],
    "range": [
        step("scale_range", mode="per_sample", axes="xy", min_percentile=1.0, max_percentile=99.8, eps=0.01),
        step("clip", min=0.0, max=1.0),
    ],
    "range together": [step("scale_range", mode="per_dataset", axes="cyx", min_percentile=5, max_percentile=95)],
}


def in_core(path: Path, picture: NDArray) -> list[NDArray]:
    """Return the (F, y, x) maps that bioimageio.core computes of a picture."""
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.spec import load_model_description

    model = load_model_description(path, perform_io_checks=False, format_version="latest")
    sample = create_sample_for_model(model, inputs={"raw": picture[None].astype(np.float32)})  # pyright: ignore[reportArgumentType]
    with create_prediction_pipeline(model, weight_format="onnx", devices=["CPUExecutionProvider"]) as pipeline:  # pyright: ignore[reportArgumentType]
        result = pipeline.predict_sample_without_blocking(sample)
    return [result.members[name].data.to_numpy()[0] for name in ("map0", "map1")]  # pyright: ignore[reportArgumentType]


def maps_of(path: Path, picture: NDArray, **options: Any) -> tuple[Encoder, list[NDArray]]:
    """Return the encoder of a package, and its maps of the core of a picture of the size of a tile."""
    encoder = fb.open_encoder(path, images=[picture], **options)
    assert encoder.spec.tile is not None
    core = tuple(slice(h, h + c) for h, c in zip(encoder.spec.halo, encoder.spec.tile, strict=True))
    return encoder, list(encoder.encode(picture.astype(np.float32), core))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # bioimageio.spec leaves the zip open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", STEPS)
def test_maps_are_those_of_bioimageio_core(tmp_path: Path, name: str) -> None:
    path = old_package(tmp_path / "old.zip", network(), channels=2, size=64, steps=STEPS[name])
    assert validate_with_spec(path) == []
    compare(path, *maps_of(path, PICTURE), PICTURE)


def compare(path: Path, encoder: Encoder, found: list[NDArray], picture: NDArray) -> None:
    """Compare the maps of a package of `network` with those of core, in the tile's core."""
    side = picture.shape[1]
    assert [m.stride for m in encoder.spec.maps] == [1, 2]
    assert [m.offset for m in encoder.spec.maps] == [0, 0.5]
    assert encoder.spec.tile == (side - 8, side - 8) and encoder.spec.halo == (4, 4)
    for m, values, expected in zip(encoder.spec.maps, found, in_core(path, picture), strict=True):
        first, last = round(4 / m.stride), round((side - 4) / m.stride)
        expected = expected[:, first:last, first:last]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


LAYOUTS: dict[str, dict[str, Any]] = {
    "any size": {"least": 32, "step": 16},
    "halo": {"least": 32, "step": 16, "halo": 4},
    "raw bytes, float network": {"size": 96, "dtype": "uint8", "steps": [step("scale_linear", gain=0.01)]},
    "steps after": {
        "size": 96,
        "after": [step("scale_linear", axes="yx", gain=[2.0, 1.0, 1.0, 1.0], offset=[1.0, 0.0, 0.0, 0.0])],
    },
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", LAYOUTS)
def test_sizes_halos_and_dtypes(tmp_path: Path, name: str) -> None:
    path = old_package(tmp_path / "old.zip", network(), channels=2, **LAYOUTS[name])
    assert validate_with_spec(path) == []
    picture = np.random.default_rng(1).integers(0, 255, (2, 96, 96)).astype(np.uint8)
    options = {} if "size" in LAYOUTS[name] else {"tile": 96}
    compare(path, *maps_of(path, picture, **options), picture)


def test_halo_of_a_fixed_size(tmp_path: Path) -> None:
    """The halo is measured, whatever the package says; bioimageio.core takes no tile of that size here."""
    plain, other = (old_package(tmp_path / f"{halo}.zip", network(), channels=2, size=64, halo=halo) for halo in (0, 8))
    assert validate_with_spec(other) == []
    (a, found), (b, expected) = maps_of(other, PICTURE), maps_of(plain, PICTURE)
    assert a.spec.fingerprint() == b.spec.fingerprint()
    for values, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(values, same)


def test_tile_follows_from_least_and_step(tmp_path: Path) -> None:
    path = old_package(tmp_path / "old.zip", network(), channels=2, least=40, step=24)
    assert fb.open_encoder(path).spec.tile == (488, 488)
    with pytest.raises(ValueError, match=r"a tile of 40 \+ n · 24 pixels along y that is a multiple of 2, found 96;"):
        fb.open_encoder(path, tile=96)


def _shape(rdf: dict[str, Any], **changes: Any) -> None:
    rdf["inputs"][0].update(changes)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "statistics of rows": (
        {"steps": [step("zero_mean_unit_variance", mode="per_sample", axes="x")]},
        r"expected constants of the step zero_mean_unit_variance .*\(statistics that are not over y and x\); export",
    ),
    "numbers of rows": (
        {"steps": [step("scale_linear", axes="cx", gain=[1.0, 2.0])]},
        r"expected constants of the step scale_linear .*\(numbers that are not those of channels\)",
    ),
    "numbers of other channels": (
        {"steps": [step("zero_mean_unit_variance", axes="yx", mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 3.0])]},
        r"\(mean of 3 channels for 2\)",
    ),
    "no mean": (
        {"steps": [step("zero_mean_unit_variance", mode="fixed", axes="yx")]},
        r"expected constants of the step zero_mean_unit_variance .*\('mean'\); export the package again",
    ),
    "another tensor's range": (
        {"steps": [step("scale_range", mode="per_sample", axes="yx", reference_tensor="b")]},
        r"\(statistics of another tensor\)",
    ),
    "scale_mean_variance": (
        {"after": [step("scale_mean_variance", mode="per_sample", reference_tensor="raw")]},
        r"expected the steps binarize, .* after the model, found scale_mean_variance; wrap them into the model",
    ),
    "z": (
        {"change": lambda rdf: _shape(rdf, axes="bczyx", shape=[1, 2, 8, 64, 64])},
        r"expected an ONNX graph with the inputs of rdf.yaml: 'raw' \(batch, channel=2, z=8, y=64, x=64\) float32; found: 'raw'",
    ),
    "t": (
        {"change": lambda rdf: _shape(rdf, axes="tcyx")},
        r"found the axis time in 'raw'; such a model is no encoder",
    ),
    "bytes into a float network": (
        {"change": lambda rdf: _shape(rdf, data_type="uint8") or rdf.update(format_version="0.5.9")},
        r"line \d+, key inputs\[0\]",
    ),
    "size": (
        {"change": lambda rdf: _shape(rdf, shape=[1, 2, 96, 96])},
        r"found: 'raw' \(1, 2, 64, 64\) float32; export the package again",
    ),
    "one size too few": (
        {"change": lambda rdf: _shape(rdf, shape=[1, 2, 64])},
        r"rdf.yaml line \d+, key inputs\[0\].shape: expected one number for each of the axes bcyx, found",
    ),
    "an axis from another tensor": (
        {
            "change": lambda rdf: rdf["outputs"][1].update(
                shape={"reference_tensor": "no", "scale": [1] * 4, "offset": [0] * 4}
            )
        },
        r"key outputs\[1\].shape: expected the name of an axis of an input, found no.channel",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported(tmp_path: Path, name: str) -> None:
    options, message = REFUSED[name]
    path = old_package(tmp_path / "old.zip", network(), channels=2, size=64, **options)
    with pytest.raises(PackageError, match=message):
        fb.open_encoder(path, images=[PICTURE])
