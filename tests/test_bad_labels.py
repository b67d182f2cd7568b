"""Label sets that cannot be used, and those that could be better: what is said about each of them."""

import numpy as np
import pytest

from forestbridge.errors import LabelError
from forestbridge.image import Image, as_image
from forestbridge.labels import (
    as_scribbles,
    check_scribbles,
    match_to_image,
    merge_scribbles,
    scribble_stats,
    share_names,
)

FLAT = np.zeros((20, 30), np.uint8)
FLAT[2, 3:9], FLAT[10:12, 20:25] = 1, 2


def with_value(value, dtype=None):
    labels = FLAT.astype(dtype or np.min_scalar_type(value))
    labels[15, 7] = value
    return labels


# label arrays


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            with_value(-3, np.int16),
            r"array: expected labels ≥ 0, found the negative values \[-3\] on 1 pixels; .*ignore=-3",
        ),
        (
            with_value(2.5, np.float32),
            r"expected whole numbers, found 1 pixels with fractions or NaN, the first 2.5 at t=0 z=0 y=15 x=7",
        ),
        (with_value(np.nan, np.float64), r"the first nan at t=0 z=0 y=15 x=7; convert the labels to integers"),
        (with_value(np.inf, np.float16), r"found 1 pixels with fractions or NaN, the first inf"),
        (
            with_value(2**40, np.uint64),
            r"expected label values up to 4294967295, found 1099511627776; number the classes",
        ),
        (with_value(2**63 + 1, np.uint64), r"expected label values up to 4294967295, found 9223372036854775809"),
        (with_value(1e12, np.float64), r"expected label values up to 4294967295, found 1000000000000.0"),
        (FLAT.astype(np.complex64), r"expected an image of integers, found complex64; save the labels as integers"),
        (FLAT.astype(str), r"expected an image of integers, found <U3"),
        (
            np.stack([FLAT] * 3, axis=-1),
            r"expected one integer per pixel, found \(20, 30, 3\), which looks like colours",
        ),
        (FLAT[0], r"expected labels with 2, 3 or 4 dimensions, found \(30,\); name the axes"),
        (np.zeros((2, 2, 2, 8, 8), int), r"expected labels with 2, 3 or 4 dimensions, found \(2, 2, 2, 8, 8\)"),
        (np.zeros((0, 8), int), r"expected at least one pixel along each axis, found \(0, 8\)"),
    ],
)
def test_arrays_that_are_no_labels(labels, message):
    with pytest.raises(LabelError, match=message):
        as_scribbles(labels)


def test_whole_floats_and_large_integers_that_fit_are_taken():
    np.testing.assert_array_equal(as_scribbles(FLAT.astype(np.float32)).at_plane(), FLAT)
    assert as_scribbles(with_value(2**32 - 1, np.uint64)).classes == (1, 2, 2**32 - 1)


@pytest.mark.parametrize("axes", ["ZYX", "YY", "YQ", "YW", "ZX", "Y"])
def test_wrong_axes(axes):
    message = rf"expected axes as different letters of TZYX with Y and X, one for each .* of \(20, 30\), found '{axes}'"
    with pytest.raises(LabelError, match=message):
        as_scribbles(FLAT, axes=axes)


def test_channels_and_samples_are_no_labels():
    with pytest.raises(
        LabelError, match=r"expected one integer per pixel, found 2 channels; paint class numbers into one plane"
    ):
        as_scribbles(np.stack([FLAT] * 2), axes="CYX")
    with pytest.raises(LabelError, match=r"found colours \(RGB\) of the shape \(20, 30, 3\)"):
        as_scribbles(np.stack([FLAT] * 3, axis=-1), axes="YXS")


def test_too_many_labelled_pixels(monkeypatch):
    monkeypatch.setattr("forestbridge.labels.scribbles.MAX_PIXELS", 10)
    with pytest.raises(LabelError, match=r"expected at most 10 labelled pixels, found more; label less of the image"):
        as_scribbles(FLAT)


# names and colours


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a"],
            r"expected one name for each painted value \[1, 2\], found 1: \['a'\]; give 2, or a mapping such as",
        ),
        (["a", "b", "c"], r"found 3: \['a', 'b', 'c'\]"),
        ([], r"found 0: \[\]; give 2"),
        (
            {1: "a"},
            r"expected a name for each painted value, found none for \[2\]; add it, or leave it out with ignore=2",
        ),
        (["a", "a"], r"expected different, non-empty class names, found \['a', 'a'\]; rename one of them"),
        (["a", " "], r"expected different, non-empty class names"),
    ],
)
def test_names_that_do_not_fit(names, message):
    with pytest.raises(LabelError, match=message):
        as_scribbles(FLAT, names=names)


def test_colours_that_do_not_fit():
    with pytest.raises(LabelError, match=r"expected colours such as '#ff8000', found 'red'; write red, green and blue"):
        as_scribbles(FLAT, colours=["red", "#000000"])
    with pytest.raises(LabelError, match=r"expected one colour for each painted value \[1, 2\], found 1"):
        as_scribbles(FLAT, colours=["#000000"])
    with pytest.raises(
        TypeError, match=r"expected a sequence of names or a mapping from label values, found the single text 'ab'"
    ):
        as_scribbles(FLAT, names="ab")


def test_names_of_several_label_sets_that_contradict():
    one, two = (
        as_scribbles(FLAT, names=["a", "b"], source="1.tif"),
        as_scribbles(FLAT, names=["b", "c"], source="2.tif"),
    )
    with pytest.raises(
        LabelError, match=r"expected one name for class 1, found 'a' in 1.tif and 'b' in 2.tif; give the names"
    ):
        share_names([one, two])
    three = as_scribbles(np.where(FLAT == 2, 3, 0), names=["b"], source="3.tif")
    with pytest.raises(
        LabelError, match=r"expected one value for class 'b', found 2 in 1.tif and 3 in 3.tif; give the names"
    ):
        share_names([one, three])
    with pytest.raises(
        LabelError, match=r"1.tif, 3.tif: expected one name for each painted value \[1, 2, 3\], found 2"
    ):
        share_names([one, three], names=["a", "b"])


# can a forest be trained on it


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (FLAT * 0, r"array: expected painted pixels, found nothing labelled: all pixels are 0; paint a few strokes"),
        (FLAT == 1, r"expected at least two classes, found only 'class 1' \(value 1\); add a second class"),
        ((FLAT == 1) * np.uint8(255), r"found only 'class 255' \(value 255\); add a second class"),
        (np.arange(400).reshape(20, 20), r"expected at most 255 classes, found 399; this looks like an instance mask"),
        (
            with_value(255),
            r"expected class numbers 1, 2, …, found also 255 on 1 pixels, .*ignore=255, or give each class a name",
        ),
    ],
)
def test_labels_that_cannot_train(labels, message):
    scribbles = as_scribbles(labels)
    with pytest.raises(LabelError, match=message):
        check_scribbles(scribbles)
    assert scribble_stats(scribbles)["refused"]


def test_255_is_trained_on_only_when_asked():
    assert as_scribbles(with_value(255), ignore=255).classes == (1, 2)
    named = as_scribbles(with_value(255), names=["a", "b", "c"])
    assert check_scribbles(named) == ["array: 'c' (value 255) has only 1 labelled pixels; paint more of it"]
    check_scribbles(as_scribbles(np.where(FLAT == 1, 254, FLAT.astype(int) * 127 + (FLAT == 2))))  # 254 and 255


def test_one_class_per_image_is_enough_over_several():
    one, two = as_scribbles(np.where(FLAT == 1, 1, 0)), as_scribbles(np.where(FLAT == 2, 2, 0))
    assert check_scribbles([one, two]) == []
    with pytest.raises(LabelError, match=r"add a second class"):
        check_scribbles([one, one])


def test_warnings():
    few = FLAT.copy()
    few[2, 6:9] = 0
    message = "a.tif: 'x' (value 1) has only 3 labelled pixels; paint more of it"
    assert check_scribbles(as_scribbles(few, names=["x", "y"], source="a.tif")) == [message]
    stack = np.zeros((5, 20, 30), np.uint8)
    stack[3] = FLAT
    assert check_scribbles(as_scribbles(stack, source="a.tif")) == [
        "a.tif: only one of 5 planes has labels (t=0 z=3); label a few others too, so that the forest sees how they "
        "differ"
    ]
    stack[4] = FLAT
    assert check_scribbles(as_scribbles(stack)) == []
    assert check_scribbles(as_scribbles(FLAT)) == []


# labels and their image


def test_size_differs_from_the_image():
    image = as_image(np.zeros((20, 31)))
    message = r"array: expected labels of the size of array, Y=20 X=31, found Y=20 X=30; paint on the image itself"
    with pytest.raises(LabelError, match=message):
        match_to_image(as_scribbles(FLAT), image)
    with pytest.raises(LabelError, match=r"of the size of a.tif, Y=20 X=31"):
        match_to_image(as_scribbles(FLAT), (20, 31), name="a.tif")


@pytest.mark.parametrize(
    ("shape", "axes", "size", "fitting"),
    [
        ((30, 20), None, (20, 30), "XY"),
        ((5, 20, 30), "ZYX", {"T": 5, "Y": 20, "X": 30}, "TYX"),
        ((20, 30, 5), None, (5, 20, 30), "YXZ"),
        ((5, 2, 20, 30), None, {"T": 2, "Z": 5, "Y": 20, "X": 30}, "ZTYX"),
    ],
)
def test_transposed_labels_are_told_which_axes_fit(shape, axes, size, fitting):
    labels = np.ones(shape, np.uint8)
    with pytest.raises(LabelError, match=rf"they fit with other axes: read them with axes='{fitting}'"):
        match_to_image(as_scribbles(labels, axes=axes), size)
    match_to_image(as_scribbles(labels, axes=fitting), size)


def test_flat_labels_for_a_stack_need_their_plane():
    stack, both = Image(np.zeros((5, 20, 30)), "ZYX", {}), Image(np.zeros((2, 5, 20, 30)), "TZYX", {})
    flat = as_scribbles(FLAT)
    with pytest.raises(
        LabelError,
        match=r"on which plane of array \(Z=5 Y=20 X=30\) .* found labels of Y=20 X=30; give the Z index with --slice",
    ):
        match_to_image(flat, stack)
    with pytest.raises(LabelError, match=r"give the T and Z index with --slice \(plane= in Python\), counted from 0"):
        match_to_image(flat, both)
    with pytest.raises(LabelError, match=r"expected a plane with Z from 0 to 4 of array, found Z=5; give another one"):
        match_to_image(flat, stack, plane=5)
    with pytest.raises(LabelError, match=r"found T=-1"):
        match_to_image(flat, both, plane=(-1, 0))
    with pytest.raises(
        LabelError, match=r"expected a plane as \(t, z\), since array has frames and z .*, found 1; give both"
    ):
        match_to_image(flat, both, plane=1)
    with pytest.raises(
        LabelError,
        match=r"expected labels without z or frames beside a plane, found Z=5 Y=20 X=30; leave the plane out",
    ):
        match_to_image(as_scribbles(np.stack([FLAT] * 5), axes="ZYX"), stack, plane=1)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((20,), r"expected the size of an image as \(Y, X\), \(Z, Y, X\) or \(T, Z, Y, X\), found \(20,\)"),
        ({"Y": 20}, r"expected the size of an image as T, Z, Y and X with Y and X, found \{'Y': 20\}"),
        ({"Y": 20, "X": 30, "Q": 2}, r"with Y and X, found"),
        ((0, 30), r"expected an image of at least one pixel along each axis, found"),
    ],
)
def test_sizes_that_are_none(size, message):
    with pytest.raises(ValueError, match=message):
        match_to_image(as_scribbles(FLAT), size)


# several files


def test_contradictions_are_counted():
    a, b = as_scribbles(FLAT, source="1.tif"), as_scribbles(np.where(FLAT == 1, 2, 0), source="2.tif")
    message = (
        r"1.tif, 2.tif: expected one class for each pixel, found 6 pixels with two, the first at t=0 z=0 y=2 x=3 "
        r"\(classes 1 and 2\); erase one of them, or say which counts with merge='last'"
    )
    with pytest.raises(LabelError, match=message):
        merge_scribbles([a, b])
    with pytest.raises(ValueError, match=r"expected merge as 'refuse', 'first' or 'last', found 'newest'"):
        merge_scribbles([a, b], merge="newest")
    message = r"expected label sets of one size, found Y=20 X=30 in 1.tif and Y=8 X=8 in array; give only label"
    with pytest.raises(LabelError, match=message):
        merge_scribbles([a, as_scribbles(FLAT[:8, :8])])
