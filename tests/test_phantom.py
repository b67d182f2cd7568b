"""The synthetic image: what it promises to the tests that are built on it."""

import time

import numpy as np
import pytest

from forestbridge.image import as_image
from forestbridge.labels import as_scribbles, check_scribbles, match_to_image
from forestbridge.phantom import CLASS_NAMES, phantom


@pytest.mark.parametrize("shape", [(256, 256), (48, 100), (12, 64, 64)])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scribbles_lie_inside_the_truth_and_show_every_class(shape, classes):
    p = phantom(shape, classes=classes)
    assert p.truth.shape == p.scribbles.shape == shape
    assert p.truth.dtype == p.scribbles.dtype == np.uint8
    assert set(np.unique(p.truth)) == set(range(1, classes + 1))
    assert set(np.unique(p.scribbles)) == set(range(classes + 1))
    assert ((p.scribbles == 0) | (p.scribbles == p.truth)).all()
    assert p.names == CLASS_NAMES[:classes]


def test_shapes_of_the_image():
    assert phantom((32, 40)).image.shape == (32, 40)
    assert phantom((32, 40), channels=3).image.shape == (3, 32, 40)
    assert phantom((4, 32, 40)).image.shape == (1, 4, 32, 40)
    assert phantom((4, 32, 40), channels=2).image.shape == (2, 4, 32, 40)


def test_same_seed_same_arrays():
    a, b, other = phantom((64, 64), seed=7), phantom((64, 64), seed=7), phantom((64, 64), seed=8)
    for name in ("image", "truth", "scribbles"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (getattr(a, name) != getattr(other, name)).any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_dtype_and_range(dtype):
    image = phantom((128, 128), dtype=dtype).image
    assert image.dtype == dtype
    assert 0 <= image.min() < image.max() < {"uint8": 256, "float32": 1.01}.get(dtype, 5000)
    assert len(np.unique(image)) > 50


def test_classes_differ_in_brightness_more_than_the_noise():
    p = phantom((256, 256), classes=3, dtype="float32")
    means = [p.image[p.truth == c].mean() for c in (1, 2, 3)]
    assert means[0] + 0.15 < means[1] < means[2] - 0.15
    assert p.image[p.truth == 1].std() > 0.005


def test_scribbles_train_without_a_warning():
    p = phantom((8, 64, 64))
    scribbles = match_to_image(as_scribbles(p.scribbles, names=p.names), as_image(p.image))
    assert check_scribbles(scribbles) == []
    assert scribbles.planes == [(0, 2), (0, 4), (0, 6)]
    flat = phantom()
    assert check_scribbles(as_scribbles(flat.scribbles)) == []
    assert 0.002 < (flat.scribbles > 0).mean() < 0.05


def test_fast():
    phantom((32, 32))
    start = time.perf_counter()
    phantom((256, 256))
    assert time.perf_counter() - start < 1  # 0.03 s on two shared cores


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 64)}, r"expected a shape \(Y, X\) or \(Z, Y, X\) with Y and X of at least 16, found \(8, 64\)"),
        ({"shape": (64,)}, r"found \(64,\)"),
        ({"classes": 1}, r"expected 2 to 5 classes and at least 1 channel, found 1 and 1"),
        ({"classes": 6}, r"found 6 and 1"),
        ({"channels": 0}, r"found 3 and 0"),
        ({"dtype": "int16"}, r"expected an unsigned integer or float dtype, found int16"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        phantom(**({"shape": (32, 32)} | arguments))
