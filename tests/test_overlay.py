"""Overlays: labels over a plane, for people."""

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from command_line import call, done
from forestbridge.errors import OutputExistsError
from forestbridge.image import write_overlay
from forestbridge.image.overlay import draw_overlay, object_colours

RED_GREEN = {1: "#ff0000", 7: "#00ff00"}
RAMP = np.tile(np.linspace(100, 900, 50), (40, 1))[None].astype(np.uint16)  # (1, Y, X)


def test_unlabelled_pixels_show_the_stretched_plane():
    picture = draw_overlay(RAMP, np.zeros((40, 50), int), {})
    assert picture.shape == (40, 50, 3) and picture.dtype == np.uint8
    assert (picture[:, 0] == 0).all() and (picture[:, -1] == 255).all()
    assert (picture[..., 0] == picture[..., 1]).all() and (np.diff(picture[0, :, 0].astype(int)) >= 0).all()


def test_labels_are_blended_by_alpha():
    labels = np.zeros((40, 50), int)
    labels[:, :10], labels[:, 40:] = 1, 7
    grey = draw_overlay(RAMP, np.zeros((40, 50), int), {}).astype(float)
    half = draw_overlay(RAMP, labels, RED_GREEN, alpha=0.5)
    np.testing.assert_allclose(half[:, :10], (grey[:, :10] + [255, 0, 0]) / 2, atol=1)
    np.testing.assert_allclose(half[:, 40:], (grey[:, 40:] + [0, 255, 0]) / 2, atol=1)
    np.testing.assert_array_equal(half[:, 10:40], grey[:, 10:40])
    assert (draw_overlay(RAMP, labels, RED_GREEN, alpha=1)[:, :10] == [255, 0, 0]).all()


def test_contours_lie_inside_the_labels():
    labels = np.zeros((40, 50), int)
    labels[10:30, 10:30] = 1
    picture = draw_overlay(np.zeros((1, 40, 50)), labels, RED_GREEN, alpha=0, contour=2)
    red = (picture == [255, 0, 0]).all(axis=-1)
    assert red[10:30, 10:12].all() and red[10:12, 10:30].all()
    assert not red[12:28, 12:28].any() and red.sum() == 400 - 256


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_is_shown(channels):
    plane = np.stack([RAMP[0] * (c + 1) for c in range(channels)])
    picture = draw_overlay(plane, np.zeros((40, 50), int), {})
    assert picture.shape == (40, 50, 3)
    assert (picture[..., 2] == 0).all() == (channels == 2)


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_a_constant_plane_is_black(value):
    assert not draw_overlay(np.full((1, 8, 8), value), np.zeros((8, 8), int), {}).any()


def test_bright_outliers_do_not_darken_the_rest():
    plane = RAMP.astype(np.float64)
    plane[0, 3, 3] = np.inf
    plane[0, 5, 5] = 1e30
    picture = draw_overlay(plane, np.zeros((40, 50), int), {})
    assert (picture[3, 3] == 255).all() and picture[20, -1, 0] == 255 and 100 < picture[20, 25, 0] < 160


def test_an_overlay_is_written_as_png(tmp_path):
    labels = np.eye(40, 50, dtype=int)
    path = write_overlay(tmp_path / "o.png", RAMP, labels, RED_GREEN)
    with Pillow.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), draw_overlay(RAMP, labels, RED_GREEN))
    with pytest.raises(OutputExistsError, match=r"o\.png exists"):
        write_overlay(path, RAMP, labels, RED_GREEN)
    write_overlay(path, RAMP, labels, RED_GREEN, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["o.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": np.zeros((3, 3), int)},
            r"expected a plane \(C, Y, X\) and labels \(Y, X\), found \(1, 40, 50\) and \(3, 3\)",
        ),
        ({"labels": np.full((40, 50), 3)}, r"expected a colour for every label, found none for \[3\]"),
        ({"alpha": 1.5}, r"expected alpha from 0 to 1 and contour of 0 or more, found 1\.5 and 0"),
        ({"contour": -1}, r"expected alpha from 0 to 1 and contour of 0 or more, found 0\.4 and -1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    options = {"plane": RAMP, "labels": np.zeros((40, 50), int), "colours": RED_GREEN, **change}
    with pytest.raises(ValueError, match=message):
        draw_overlay(**options)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected an overlay named \.png, found o\.jpg"):
        write_overlay(tmp_path / "o.jpg", RAMP, np.zeros((40, 50), int), {})


def test_colours_of_objects_are_their_own():
    colours = object_colours(range(1, 60_001))
    assert object_colours([7]) == {7: colours[7]}
    assert len(set(colours.values())) > 5000
    rgb = {v: np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for v, c in colours.items() if v < 300}
    for value in range(1, 290):
        for beside in range(1, 6):
            assert np.abs(rgb[value] - rgb[value + beside]).sum() > 60, (value, beside)


@pytest.fixture
def stack(tmp_path):
    labels = np.zeros((2, 3, 20, 30), np.uint16)
    labels[:, 1, 4:12, 5:15] = 300
    labels[1, 2, 4:12, 5:15] = 2
    tifffile.imwrite(tmp_path / "l.tif", labels, imagej=True, metadata={"axes": "TZYX"})
    tifffile.imwrite(tmp_path / "i.tif", np.zeros_like(labels), imagej=True, metadata={"axes": "TZYX"})
    return tmp_path


def test_command_fills_or_outlines(stack):
    colour = [int(object_colours([300])[300][i : i + 2], 16) for i in (1, 3, 5)]
    ended = done("overlay", stack / "i.tif", stack / "l.tif", "-o", stack / "o.png", "--contour", "2")
    assert "drawing plane 1, the middle one of 3; choose another with --plane" in ended.err
    picture = np.asarray(Pillow.open(stack / "o.png"))
    line = (picture == colour).all(axis=-1)
    assert line.sum() == 8 * 10 - 4 * 6 and not picture[6:10, 7:13].any()
    done("overlay", stack / "i.tif", stack / "l.tif", "-o", stack / "o.png", "--overwrite")
    picture = np.asarray(Pillow.open(stack / "o.png"))
    np.testing.assert_allclose(picture[4:12, 5:15], np.broadcast_to(np.array(colour) * 0.4, (8, 10, 3)), atol=1)
    done(
        "overlay", stack / "i.tif", stack / "l.tif", "-o", stack / "f.png", "--plane", "2", "--frame", "1", "--classes"
    )
    assert np.asarray(Pillow.open(stack / "f.png")).any()


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["-o", "o.jpg"], 2, "expected an overlay named .png"),
        (["-o", "o.png", "--plane", "3"], 3, "expected a plane below 3 and a frame below 2, found plane 3 and frame 0"),
        (["-o", "o.png", "--axes", "TYX"], 3, "expected axes as 4 different letters"),
    ],
)
def test_command_refuses(stack, arguments, code, message, monkeypatch):
    monkeypatch.chdir(stack)
    ended = call("overlay", "i.tif", "l.tif", *arguments)
    assert ended.code == code and message in ended.err, ended.err
    assert done("overlay", "i.tif", "l.tif", "-o", "o.png", "--dry-run", "--json").json()["plane"] == 1
    assert not (stack / "o.png").exists()
