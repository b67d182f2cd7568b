"""The filter bank's selection: counts, names, order, and the spec that carries it."""

from dataclasses import replace

import pytest

from filter_oracle import IDS
from forestbridge.encoders import encoder_from_spec, open_encoder
from forestbridge.encoders.filters import filter_bank_from_spec, open_filter_bank
from forestbridge.spec import EncoderSpec


@pytest.mark.parametrize(("compute_in_2d", "count"), [(True, 49), (False, 61)])
def test_default_selection(compute_in_2d, count):
    bank = open_filter_bank(compute_in_2d=compute_in_2d)
    assert len(bank.filters) == 37
    assert bank.spec.n_features == count == len(set(bank.spec.feature_names))


def test_names_are_ilastiks():
    chosen = {"HessianOfGaussianEigenvalues": [1.6, 10], "GaussianSmoothing": [0.3], "LaplacianOfGaussian": [0.7]}
    assert open_filter_bank(selection=chosen).spec.feature_names == (
        "Gaussian Smoothing (σ=0.3) in 2D",
        "Laplacian of Gaussian (σ=0.7) in 2D",
        "Hessian of Gaussian Eigenvalues (σ=1.6) in 2D [0]",
        "Hessian of Gaussian Eigenvalues (σ=1.6) in 2D [1]",
        "Hessian of Gaussian Eigenvalues (σ=10.0) in 2D [0]",
        "Hessian of Gaussian Eigenvalues (σ=10.0) in 2D [1]",
    )
    two = {"StructureTensorEigenvalues": [1.0], "DifferenceOfGaussians": [5.0], "GaussianGradientMagnitude": [1.0]}
    in_2d = {1.0: True, 5.0: False}
    assert open_filter_bank(selection=two, channels=2, compute_in_2d=in_2d).spec.feature_names == (
        *(f"Gaussian Gradient Magnitude (σ=1.0) in 2D [{k}]" for k in range(2)),
        *(f"Difference of Gaussians (σ=5.0) [{k}]" for k in range(2)),
        *(f"Structure Tensor Eigenvalues (σ=1.0) in 2D [{k}]" for k in range(4)),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": {"Gaussian": [1.0]}}, r"expected the feature ids GaussianSmoothing, .*, found Gaussian"),
        (
            {"selection": {IDS[0]: [0.0]}},
            r"expected different scales > 0 and up to 100 for GaussianSmoothing, .* found \[0.0\]",
        ),
        (
            {"selection": {IDS[1]: [-1.0]}},
            r"expected different scales > 0 and up to 100 for LaplacianOfGaussian, .*\[-1.0\]",
        ),
        ({"selection": {IDS[1]: [float("nan")]}}, r"expected different scales > 0 .*found \[nan\]"),
        ({"selection": {IDS[2]: [1e6]}}, r"expected different scales > 0 and up to 100 .*found \[1000000.0\]"),
        ({"selection": {IDS[0]: [1.0, 1.0]}}, r"expected different scales > 0 .*found \[1.0, 1.0\]"),
        ({"selection": {}}, r"expected at least one feature and scale, found an empty selection"),
        ({"selection": {IDS[0]: []}}, r"expected at least one feature and scale, found an empty selection"),
        (
            {"compute_in_2d": {0.3: True}},
            r"expected compute_in_2d for each of the scales .*, found none for \[0.7, 1.0",
        ),
        ({"channels": 0}, r"expected at least one input channel, found 0"),
    ],
)
def test_bad_selections(options, message):
    with pytest.raises(ValueError, match=message):
        open_filter_bank(**options)


def test_spec_travels():
    bank = open_filter_bank(selection=dict.fromkeys(IDS, (0.7, 3.5)), channels=3, compute_in_2d={0.7: False, 3.5: True})
    spec = EncoderSpec.from_json(bank.spec.to_json())
    assert spec == bank.spec and spec.fingerprint() == bank.spec.fingerprint()
    assert filter_bank_from_spec(spec) == bank == encoder_from_spec(spec)
    assert (spec.name, spec.axes, spec.channels, spec.halo, spec.dtype) == ("filters", "zyx", 3, (4, 15, 15), "float32")
    assert spec.intensity == {"rule": "raw"} and spec.tile is None and spec.weights is None


def test_fingerprints_stay():
    """Stores, forests and packages carry them: another value orphans every file of a user."""
    assert open_encoder("filters").spec.fingerprint() == "60a3bcd308ec4a48"
    assert open_encoder("filters", compute_in_2d=False).spec.fingerprint() == "781af635f56b7e2b"


def test_another_version_or_an_edited_spec_is_refused():
    spec = open_filter_bank().spec
    with pytest.raises(
        ValueError, match=rf"expected filter bank version 1 \[{spec.fingerprint()}\], found version 2 \["
    ):
        filter_bank_from_spec(replace(spec, version=2))
    with pytest.raises(ValueError, match=r"expected filter bank version 1 .*; use the forestbridge that made it"):
        filter_bank_from_spec(replace(spec, halo=(10, 10)))
    lacking = {"selection": {}}
    uneven = {**spec.options, "compute_in_2d": [True]}
    for options in (lacking, uneven, {**spec.options, "selection": {IDS[0]: ["wide"]}}):
        with pytest.raises(
            ValueError, match=r"expected a filter bank's selection, scales and compute_in_2d in the spec"
        ):
            filter_bank_from_spec(replace(spec, options=options))


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match=r"expected one of the encoders .*filters.*, found 'filter'"):
        open_encoder("filter")
    with pytest.raises(ValueError, match=r"expected one of the encoders .*found 'filter'; update forestbridge"):
        encoder_from_spec(replace(open_filter_bank().spec, name="filter"))
