"""`Image`: axes, lazy regions as float32, channel selection, and pixels that are refused."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestbridge.errors import ImageError
from forestbridge.image import AXES, Image, as_image

RNG = np.random.default_rng(0)
SERIES = RNG.integers(0, 60000, (2, 3, 4, 20, 30)).astype(np.uint16)  # (T, C, Z, Y, X)


def series() -> Image:
    return Image(SERIES, "TCZYX", {"z": 2.0, "y": 0.5, "x": 0.5}, channel_names=("a", "b", "c"), source="s.tif")


def test_shape_and_sizes_are_named_by_axes():
    image = series()
    assert image.shape == (2, 3, 4, 20, 30)
    assert image.sizes == {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 30}
    assert (image.n_channels, image.dtype) == (3, np.uint16)
    assert repr(image) == "<Image s.tif: T=2 C=3 Z=4 Y=20 X=30 uint16>"
    assert as_image(SERIES[0, 0, 0]).sizes == {"T": 1, "C": 1, "Z": 1, "Y": 20, "X": 30}


def test_planes_come_in_the_own_dtype():
    image = series()
    assert list(image.planes()) == [(t, z) for t in range(2) for z in range(4)]
    plane = image.plane(t=1, z=2)
    assert plane.dtype == np.uint16
    np.testing.assert_array_equal(plane, SERIES[1, :, 2])


def test_a_plane_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"s\.tif: expected a frame below 2 and a plane below 4, found t=2 z=0"):
        series().plane(t=2)


@given(st.data())
def test_regions_are_float32_of_the_same_pixels(data):
    sides = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in (4, 20, 30)]
    z, y, x = (slice(*side) for side in sides)
    t = data.draw(st.integers(0, 1))
    volume = series().region((z, y, x), t=t)
    np.testing.assert_array_equal(volume, SERIES[t, :, z, y, x].astype(np.float32))
    plane = series().region((y, x), t=t, z=z.start)
    np.testing.assert_array_equal(plane, volume[:, 0])
    assert plane.dtype == np.float32 and plane.flags.c_contiguous and plane.dtype.isnative


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">u2", "<i2", "u4", "i4", "u8", "i8", "<f2", ">f4", "f8"])
def test_every_dtype_becomes_native_float32(dtype):
    pixels = (RNG.random((5, 6)) * 100).astype(dtype)
    region = as_image(pixels).region((slice(0, 5), slice(0, 6)))
    assert region.dtype == np.dtype(np.float32).newbyteorder("=")
    np.testing.assert_array_equal(region[0], pixels.astype(np.float64).astype(np.float32))


def test_negative_strides_and_negative_values_are_kept():
    pixels = (np.arange(12).reshape(3, 4) - 6).astype(np.int16)[::-1, ::-1]
    region = as_image(pixels).region((slice(0, 3), slice(0, 4)))
    assert region.flags.c_contiguous
    np.testing.assert_array_equal(region[0], pixels)


@pytest.mark.parametrize("value", [2**24 + 1, 2**63])
def test_integers_beyond_float32_are_refused(value):
    pixels = np.zeros((4, 4), np.uint64)
    pixels[1, 1] = value
    with pytest.raises(ImageError, match=rf"integers up to 2\^24 = 16777216.*found {value}; rescale"):
        as_image(pixels).region((slice(0, 4), slice(0, 4)))


def test_integers_below_minus_2_to_24_are_named():
    pixels = np.full((2, 2), -(2**24) - 1, np.int64)
    with pytest.raises(ImageError, match=r"found -16777217; rescale"):
        as_image(pixels).region((slice(0, 2), slice(0, 2)))


def test_2_to_24_itself_is_exact():
    assert as_image(np.full((1, 1), 2**24, np.int64)).region((slice(0, 1), slice(0, 1))).item() == 2**24


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_are_not_finite_are_counted_and_placed(value):
    pixels = np.zeros((2, 2, 3, 8, 8))  # (T, C, Z, Y, X)
    pixels[1, 1, 2, 5, 6] = pixels[1, 1, 2, 5, 7] = value
    image = as_image(pixels, axes="TCZYX")
    message = r"found 2 NaN or infinite ones in a region of .*, the first at t=1 c=1 z=2 y=5 x=6; .*--nan VALUE"
    with pytest.raises(ImageError, match=message):
        image.region((slice(4, 8), slice(4, 8)), t=1, z=2)
    with pytest.raises(ImageError, match=message):
        image.region((slice(1, 3), slice(4, 8), slice(4, 8)), t=1)


def test_nan_is_replaced_when_asked():
    pixels = np.array([[1.0, np.nan], [np.inf, 2.0]])
    image = Image(pixels, "YX", {}, nan=-1.0)
    np.testing.assert_array_equal(image.region((slice(0, 2), slice(0, 2)))[0], [[1, -1], [-1, 2]])


def test_channels_are_selected_in_the_given_order():
    chosen = series().select_channels([2, 0])
    assert chosen.channel_names == ("c", "a")
    assert chosen.shape == (2, 2, 4, 20, 30)
    np.testing.assert_array_equal(chosen.plane(1, 3), SERIES[1, [2, 0], 3])
    np.testing.assert_array_equal(chosen.select_channels([1]).plane(0, 0), SERIES[0, [0], 0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(chosen)).plane(0, 1), SERIES[0, [2, 0], 1])


def test_an_image_without_a_channel_axis_has_channel_0():
    image = as_image(SERIES[0, 0, 0])
    assert image.select_channels([0]) is image


@pytest.mark.parametrize("channels", [[], [3], [-1], [0, 0]])
def test_channels_that_are_not_there_are_refused(channels):
    with pytest.raises(ImageError, match=r"s\.tif: expected different channels from 0 to 2, found \["):
        series().select_channels(channels)


@pytest.mark.parametrize(("shape", "axes"), [((4, 5), "YX"), ((2, 4, 5), "CYX"), ((2, 3, 4, 5), "CZYX")])
def test_plain_arrays_have_the_documented_axes(shape, axes):
    image = as_image(np.zeros(shape))
    assert (image.axes, image.shape) == (axes, shape)
    assert as_image(image) is image


def test_named_axes_are_sorted():
    pixels = RNG.random((20, 30, 3, 4))
    image = as_image(pixels, axes="yxcz")
    assert image.axes == "CZYX"
    np.testing.assert_array_equal(image.plane(z=1), pixels[:, :, :, 1].transpose(2, 0, 1))


@pytest.mark.parametrize("axes", ["YX", "TYYX", "QCYX", "CYXS"])
def test_axes_that_do_not_fit_are_refused(axes):
    with pytest.raises(
        ImageError, match=rf"different letters of {AXES}, one for each dimension of \(2, 3, 4, 5\), found"
    ):
        as_image(np.zeros((2, 3, 4, 5)), axes=axes)


def test_five_dimensions_need_axes():
    with pytest.raises(ImageError, match=r"found \(2, 2, 2, 4, 5\); name its axes with axes='TCZYX'"):
        as_image(np.zeros((2, 2, 2, 4, 5)))


def test_complex_pixels_are_refused():
    with pytest.raises(ImageError, match=r"found complex64; take the real part or the magnitude"):
        as_image(np.zeros((4, 4), np.complex64))


def test_an_axis_without_pixels_is_refused():
    with pytest.raises(ImageError, match=r"at least one pixel along each axis, found Y=0 X=4; check how"):
        as_image(np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("axes", "message"), [("XY", "subset of TCZYX in this order"), ("CYX", "one axis letter per dimension")]
)
def test_axes_of_an_image_are_checked(axes, message):
    with pytest.raises(ImageError, match=message):
        Image(np.zeros((4, 5)), axes, {})


def test_one_pixel_and_constant_images_are_fine():
    assert as_image(np.full((1, 1), 7)).region((slice(0, 1), slice(0, 1))).item() == 7
    assert (as_image(np.full((8, 8), 3.0)).plane() == 3).all()
