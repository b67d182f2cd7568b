"""What test_fiji_gateway.py runs with pytest in processes of their own: one Java with ImageJ, and checks of images in it.

Run as a program, so that the process ends with the checks: a Java that has opened a window waits for more.

JAR: ij.jar. MODELS: a folder with cells.zip and cells.forest. SCREEN: "yes" where windows can be opened.
"""

import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jpype
import numpy as np
import pytest
import scyjava
import tifffile
from scyjava import jimport

import forestbridge as fb
import forestbridge.fiji
from forestbridge.assemble import Classes
from forestbridge.errors import ForestError, ImageError, PackageError
from forestbridge.fiji import from_imagej, segment, to_imagej
from forestbridge.image import AXES, as_image, read_image, write_labels, write_probabilities
from small_line import CELLS

MODELS = Path(os.environ["MODELS"])
SCREEN = os.environ["SCREEN"] == "yes"
ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
LENGTHS = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 7}
CLASSES = Classes((1, 2, 5), ("nucleus", "cytoplasm", "µ background"), ("#ff0000", "#00ff80", "#1020ff"))


@pytest.fixture(scope="session", autouse=True)
def java() -> None:
    scyjava.config.set_java_constraints(fetch="auto")
    scyjava.config.endpoints.clear()
    scyjava.config.add_classpath(os.environ["JAR"])
    if not SCREEN:
        scyjava.config.enable_headless_mode()
    started = time.perf_counter()
    scyjava.start_jvm()
    print(f"ImageJ {jimport('ij.IJ').getVersion()}, Java up in {time.perf_counter() - started:.1f} s")


def pixels_of(axes: str, dtype: str) -> np.ndarray:
    """Return pixels over the whole range of a dtype."""
    shape = tuple(LENGTHS[a] for a in axes)
    if np.dtype(dtype).kind == "f":
        return RNG.normal(0, 1e4, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, endpoint=True, dtype=np.int64).astype(dtype)


def values(imp: Any, axes: str) -> np.ndarray:
    """Return the pixels as ImageJ itself says them, asked one by one, in the axes."""
    _, _, n_c, n_z, n_t = imp.getDimensions()
    table = imp.getCalibration().getCTable()
    result = np.empty((n_t, n_c, n_z, imp.getHeight(), imp.getWidth()))
    for t, c, z in np.ndindex(n_t, n_c, n_z):
        ip = imp.getStack().getProcessor(imp.getStackIndex(c + 1, z + 1, t + 1))
        ip.setCalibrationTable(table)
        for y, x in np.ndindex(result.shape[-2:]):
            result[t, c, z, y, x] = ip.getPixelValue(x, y)
    return result.reshape([n for n, a in zip(result.shape, AXES) if a in axes])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f4", ">f4", "i2", "i1"])
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "TYX", "TCZYX"])
def test_pixels_go_in_and_out(axes: str, dtype: str) -> None:
    pixels = pixels_of(axes, dtype)
    imp = to_imagej(pixels, "a", axes=axes)
    assert list(imp.getDimensions()) == [7, 5, *(LENGTHS[a] if a in axes else 1 for a in "CZT")]
    assert imp.getOpenAsHyperStack() == (axes != "YX")
    np.testing.assert_array_equal(values(imp, axes), pixels)
    image = from_imagej(imp)
    assert (image.axes, image.source, image.pixel_size, image.channel_names) == (axes, "a", {}, ())
    assert image.dtype == {"u1": np.uint8, "u2": np.uint16, "f4": np.float32}.get(dtype.strip("<>"), np.int16)
    np.testing.assert_array_equal(image.data, pixels)


def test_axes_in_any_order_and_views() -> None:
    pixels = pixels_of("TCZYX", "u2")
    np.testing.assert_array_equal(from_imagej(to_imagej(pixels.T, "a", axes="XYZCT")).data, pixels)
    np.testing.assert_array_equal(
        from_imagej(to_imagej(pixels[0, 0, 0, ::-1, ::2], "a")).data, pixels[0, 0, 0, ::-1, ::2]
    )
    pixels.flags.writeable = False
    np.testing.assert_array_equal(from_imagej(to_imagej(pixels, "a", axes="TCZYX")).data, pixels)


@pytest.mark.parametrize(
    ("dtype", "highest", "bits"),
    [("i8", 255, 8), ("u4", 256, 16), ("i4", 65535, 16), ("i8", 65536, 32), ("u8", 2**24, 32)],
)
def test_wide_integers_take_the_smallest_pixels(dtype: str, highest: int, bits: int) -> None:
    imp = to_imagej(np.array([[0, 1], [highest - 1, highest]], dtype), "a")
    assert imp.getBitDepth() == bits
    np.testing.assert_array_equal(from_imagej(imp).data, [[0, 1], [highest - 1, highest]])


def test_negative_and_too_wide_integers() -> None:
    small, large = np.array([[-32768, 32767]]), np.array([[-32769, 2**24]])
    assert from_imagej(to_imagej(small, "a")).dtype == np.int16
    np.testing.assert_array_equal(from_imagej(to_imagej(small, "a")).data, small)
    np.testing.assert_array_equal(from_imagej(to_imagej(large, "a")).data, large)
    message = r"expected integers up to 2\^24 = 16777216, .* found 16777217; number the labels anew"
    with pytest.raises(ImageError, match=message):
        to_imagej(large + 1, "a")


def test_bool_and_wide_floats() -> None:
    assert from_imagej(to_imagej(np.eye(3, dtype=bool), "a")).data.max() == 255
    assert from_imagej(to_imagej(np.eye(3, dtype=bool), "a", classes=CLASSES)).data.max() == 1
    third = np.array([[1 / 3, np.nan]])
    np.testing.assert_array_equal(from_imagej(to_imagej(third, "a")).data, third.astype(np.float32))


def colour(imp: Any, index: int, y: int, x: int) -> str:
    imp.setSlice(index)
    return f"#{imp.getProcessor().convertToRGB().getPixel(x, y) & 0xFFFFFF:06x}"


@pytest.mark.parametrize("dtype", ["u1", "u2", "i8"])
def test_labels_have_the_colours_of_their_classes(dtype: str) -> None:
    labels = RNG.choice([0, *CLASSES.values], (2, 3, 5, 7)).astype(dtype)
    if dtype == "i8":
        labels[0, 0, 0, 0] = 300  # of no class
    imp = to_imagej(labels, "labels", axes="TZYX", classes=CLASSES)
    assert (imp.getDisplayRangeMin(), imp.getDisplayRangeMax()) == (0, 255)
    assert imp.getStackIndex(1, 2, 1) == 2
    shown = {0: "#000000", 300: "#000000", **dict(zip(CLASSES.values, CLASSES.colours, strict=True))}
    for t, z, y, x in np.ndindex(labels.shape):
        assert colour(imp, t * 3 + z + 1, y, x) == shown[int(labels[t, z, y, x])]
    np.testing.assert_array_equal(from_imagej(imp).data, labels)
    assert "class 5: µ background #1020ff" in str(imp.getProperty("Info"))


def test_classes_beyond_the_lookup_table() -> None:
    classes = CLASSES._replace(values=(1, 2, 70000))
    imp = to_imagej(np.array([[1, 70000]]), "a", classes=classes)
    assert (imp.getBitDepth(), imp.getDisplayRangeMax()) == (32, 70000)


def test_probabilities_are_named_by_their_classes() -> None:
    probabilities = RNG.random((2, 3, 4, 5, 7), dtype=np.float32)
    imp = to_imagej(probabilities, "p", axes="TCZYX", classes=CLASSES)
    assert imp.isComposite() and imp.isHyperStack()
    stack = imp.getStack()
    for t, c, z in np.ndindex(2, 3, 4):
        index = imp.getStackIndex(c + 1, z + 1, t + 1)
        assert stack.getSliceLabel(index) == CLASSES.names[c]
        assert stack.getProcessor(index).getf(6, 4) == probabilities[t, c, z, 4, 6]
        imp.setPosition(c + 1, z + 1, t + 1)
        assert (imp.getDisplayRangeMin(), imp.getDisplayRangeMax()) == (0, 1)
    image = from_imagej(imp)
    assert image.channel_names == CLASSES.names
    np.testing.assert_array_equal(image.data, probabilities)
    with pytest.raises(ValueError, match="expected a class axis of length 3, found 2"):
        to_imagej(probabilities[:, :2], "p", axes="TCZYX", classes=CLASSES)
    with pytest.raises(ValueError, match="expected labels without a class axis"):
        to_imagej(np.ones((3, 5, 7), np.uint8), "p", classes=CLASSES)


def test_calibration_and_names() -> None:
    data = pixels_of("TCZYX", "u2")
    image = fb.Image(data, "TCZYX", {"z": 2.0, "y": 0.5, "x": 0.25}, 1.5, ("a", "b", "c"), "s.tif")
    imp = to_imagej(image, "s")
    calibration = imp.getCalibration()
    assert (calibration.pixelDepth, calibration.pixelHeight, calibration.pixelWidth) == (2, 0.5, 0.25)
    assert (calibration.getUnit(), calibration.frameInterval) == ("micron", 1.5)
    back = from_imagej(imp)
    assert (back.pixel_size, back.frame_interval, back.channel_names) == (image.pixel_size, 1.5, ("a", "b", "c"))
    calibration.setUnit("nm")
    calibration.setTimeUnit("min")
    back = from_imagej(imp)
    assert (back.pixel_size, back.frame_interval) == ({"z": 0.002, "y": 0.0005, "x": 0.00025}, 90)
    imp.getStack().setSliceLabel("another", 5)
    assert from_imagej(imp).channel_names == ()
    assert to_imagej(data[0, 0, 0], "a", pixel_size={"y": 3.0, "x": 2.0}).getCalibration().pixelWidth == 2
    flat = to_imagej(data[0, 0, 0], "a")
    flat.getCalibration().setUnit("inch")
    flat.getCalibration().pixelWidth = flat.getCalibration().pixelHeight = 1 / 72  # what screens have
    assert from_imagej(flat).pixel_size == {}


def test_rgb_becomes_three_channels() -> None:
    pixels = RNG.integers(0, 256, (4, 3, 5, 7), dtype=np.uint8)  # (Z, C, Y, X)
    imp = jimport("ij.IJ").createImage("rgb", "RGB black", 7, 5, 4)
    for z, y, x in np.ndindex(4, 5, 7):
        red, green, blue = pixels[z, :, y, x].tolist()
        imp.getStack().getProcessor(z + 1).set(x, y, red << 16 | green << 8 | blue)
    image = from_imagej(imp)
    assert (image.axes, image.channel_names, image.dtype) == ("CZYX", (), np.uint8)
    np.testing.assert_array_equal(image.data, pixels.transpose(1, 0, 2, 3))
    imp.setDimensions(4, 1, 1)
    with pytest.raises(ImageError, match="rgb: expected RGB pixels or channels, found 4 channels of RGB pixels"):
        from_imagej(imp)


def test_what_is_no_image() -> None:
    with pytest.raises(TypeError, match=r"expected an ij\.ImagePlus, found ndarray; convert a Dataset"):
        from_imagej(np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"expected an ij\.ImagePlus, found NoneType"):
        from_imagej(None)
    with pytest.raises(ImageError, match="expected an image with pixels, found none; it was closed"):
        from_imagej(jimport("ij.ImagePlus")())


def test_selections_do_not_cut() -> None:
    imp = to_imagej(pixels_of("ZYX", "u1"), "a", axes="ZYX")
    imp.setRoi(1, 1, 2, 2)
    assert from_imagej(imp).shape == (4, 5, 7)


@pytest.mark.parametrize(
    ("axes", "dtype"), [("TZCYX", "u2"), ("ZCYX", "f4"), ("CYX", "u1"), ("TYX", "i2"), ("YX", "u2")]
)
def test_same_image_as_its_file(tmp_path: Path, axes: str, dtype: str) -> None:
    metadata: dict[str, Any] = {"axes": axes, "unit": "um", "spacing": 0.7, "finterval": 2.5}
    if "C" in axes:
        metadata["Labels"] = ["red", "green", "blue"] * (np.prod([LENGTHS[a] for a in axes if a in "TZ"], dtype=int))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels_of(axes, dtype), imagej=True, resolution=(4, 2), metadata=metadata)
    found, expected = from_imagej(jimport("ij.io.Opener")().openImage(str(path))), read_image(path)
    assert (found.axes, found.dtype, found.channel_names) == (expected.axes, expected.dtype, expected.channel_names)
    known = {axis: size for axis, size in expected.pixel_size.items() if axis.upper() in axes}  # files say z of a plane
    assert found.pixel_size == pytest.approx(known)
    assert found.frame_interval == expected.frame_interval
    np.testing.assert_array_equal(found.data, expected.data[(slice(None),) * len(expected.axes)])


def test_same_image_as_our_files(tmp_path: Path) -> None:
    labels, probabilities = (
        RNG.choice(CLASSES.values, (4, 5, 7)).astype(np.uint8),
        RNG.random((3, 5, 7), dtype=np.float32),
    )
    classes = CLASSES._asdict() | {"classes": CLASSES.values}
    del classes["values"]
    write_labels(tmp_path / "l.tif", labels, axes="ZYX", **classes)
    write_probabilities(tmp_path / "p.tif", probabilities, axes="CYX", **classes)
    for name, pixels, axes in (("l.tif", labels, "ZYX"), ("p.tif", probabilities, "CYX")):
        opened = jimport("ij.io.Opener")().openImage(str(tmp_path / name))
        made = to_imagej(pixels, name, axes=axes, classes=CLASSES)
        assert (opened.getBitDepth(), opened.isComposite()) == (made.getBitDepth(), made.isComposite())
        assert list(opened.getDimensions()) == list(made.getDimensions())
        assert from_imagej(opened).channel_names == from_imagej(made).channel_names
        np.testing.assert_array_equal(from_imagej(opened).data, from_imagej(made).data)


@pytest.fixture
def cells() -> Any:
    imp = to_imagej(CELLS.image, "cells.tif", pixel_size={"y": 0.5, "x": 0.25})
    imp.getCalibration().setUnit("mm")
    return imp


KINDS = {"Segmentation": "labels", "Probabilities": "probabilities", "Uncertainty": "uncertainty"}


@pytest.mark.parametrize("output", KINDS)
def test_segment_answers_as_predict(cells: Any, output: Any) -> None:
    forest, package = fb.load_forest(MODELS / "cells.forest"), fb.open_package(MODELS / "cells.zip")
    expected = [
        (MODELS / "cells.forest", fb.predict(CELLS.image, forest, kind=KINDS[output])),
        (str(MODELS / "cells.zip"), package.predict(CELLS.image, kind=KINDS[output])),
        (forest, fb.predict(CELLS.image, forest, kind=KINDS[output])),
        (package, package.predict(CELLS.image, kind=KINDS[output])),
    ]
    for model, pixels in expected:
        result = segment(cells, model, output=output)
        assert result.getTitle() == f"{output.lower()} of cells.tif"
        np.testing.assert_array_equal(from_imagej(result).data, pixels)
        assert result.getBitDepth() == (8 if output == "Segmentation" else 32)
        calibration = result.getCalibration()
        assert (calibration.pixelWidth, calibration.pixelHeight, calibration.getUnit()) == (0.25, 0.5, "mm")
        assert result.getDisplayRangeMax() == (255 if output == "Segmentation" else 1)
        if output == "Probabilities":
            assert from_imagej(result).channel_names == forest.names


def test_segment_signed_series_of_stacks() -> None:
    pixels = np.stack([[CELLS.image, CELLS.image[::-1]]] * 3).astype(np.int16) - 900  # (T, Z, Y, X)
    imp = to_imagej(pixels, "s", axes="TZYX")
    forest = fb.load_forest(MODELS / "cells.forest")
    result = segment(imp, forest, output="Probabilities")
    expected = fb.predict(as_image(pixels, axes="TZYX"), forest)  # (T, K, Z, Y, X)
    np.testing.assert_array_equal(from_imagej(result).data, expected)
    assert not result.getCalibration().calibrated()
    assert imp.getCalibration().isSigned16Bit()


def test_segment_refuses(cells: Any, tmp_path: Path) -> None:
    package = fb.open_package(MODELS / "cells.zip")
    with pytest.raises(
        ValueError, match="expected one of the outputs Segmentation, Probabilities, Uncertainty, found 'labels'"
    ):
        segment(cells, package, output="labels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected no device with an open package, found 'cuda'"):
        segment(cells, package, device="cuda")
    with pytest.raises(ValueError, match=r"expected tile with a package \(\.zip\) only, found 64 with a forest"):
        segment(cells, MODELS / "cells.forest", tile=64)
    with pytest.raises(ImageError, match=r"three: expected 1 channel\(s\), found 3|three: expected 1 channel"):
        segment(to_imagej(np.zeros((3, 80, 80), np.uint8), "three"), package)
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(PackageError):
        segment(cells, tmp_path / "a.zip")
    (tmp_path / "a.forest").write_bytes(b"no forest")
    with pytest.raises(ForestError):
        segment(cells, tmp_path / "a.forest")
    np.testing.assert_array_equal(
        from_imagej(segment(cells, package, tile=64, output="Probabilities")).data,
        package.predict(CELLS.image, tile=64),
    )


def run_script(imp: Any, model: str, output: str) -> Any:
    """Run the script as scyjava does: parameters as names, in one namespace."""
    path = ROOT / "src/forestbridge/fiji/scripts/Plugins/ForestBridge/FB_Segment_With_Package_Py.py"
    names = {"imp": imp, "model": jpype.JString(model), "output": jpype.JString(output)}
    exec(compile(path.read_text(encoding="ascii"), "<string>", "exec"), names, names)
    return names["result"]


def test_script_for_python_mode(cells: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_script(cells, str(MODELS / "cells.zip"), "Uncertainty")
    expected = fb.open_package(MODELS / "cells.zip").predict(CELLS.image, kind="uncertainty")
    assert result.getTitle() == "uncertainty of cells.tif"
    np.testing.assert_array_equal(from_imagej(result).data, expected)
    IJ = jimport("ij.IJ")
    IJ.redirectErrorMessages(True)
    assert run_script(cells, "/not/there.zip", "Segmentation") is None
    assert "/not/there.zip" in str(IJ.getErrorMessage())
    IJ.redirectErrorMessages(True)
    assert run_script(cells, str(MODELS / "cells.zip"), "Nothing") is None
    assert "expected one of the outputs" in str(IJ.getErrorMessage())
    assert capsys.readouterr().out == ""


def test_code_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/fiji_python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    tifffile.imwrite(tmp_path / "b.tif", CELLS.image.astype(np.float32), imagej=True)
    (tmp_path / "nuclei.zip").write_bytes((MODELS / "cells.zip").read_bytes())
    monkeypatch.chdir(tmp_path)
    code = code.replace('"b.tif"', repr(str(tmp_path / "b.tif"))).replace(
        '"b_seg', f'"{tmp_path}/b_seg'
    )  # Java does not follow
    monkeypatch.setattr(forestbridge.fiji, "start", lambda folder: SimpleNamespace(IJ=jimport("ij.IJ")))
    exec(code, {})
    expected = fb.open_package("nuclei.zip").predict(read_image(tmp_path / "b.tif"), kind="labels")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b_segmentation.tif"), expected)


@pytest.mark.skipif(not SCREEN, reason="a Java without windows: its commands need Fiji's legacy layer")
def test_images_are_shown_and_commands_work_on_them(cells: Any) -> None:
    result = segment(cells, MODELS / "cells.zip", output="Probabilities")
    result.show()
    IJ = jimport("ij.IJ")
    copy = jimport("ij.plugin.Duplicator")().run(result)
    np.testing.assert_array_equal(from_imagej(copy).data, from_imagej(result).data)
    assert from_imagej(copy).channel_names == from_imagej(result).channel_names
    IJ.run(result, "Multiply...", "value=2 stack")
    np.testing.assert_array_equal(from_imagej(result).data, 2 * from_imagej(copy).data)
    result.changes = False
    result.close()


def test_large_images_are_copied_whole() -> None:
    pixels = RNG.integers(0, 65536, (16, 2048, 2048), dtype=np.uint16)  # 128 MiB
    started = time.perf_counter()
    imp = to_imagej(pixels, "large", axes="ZYX")
    between = time.perf_counter()
    image = from_imagej(imp)
    print(f"128 MiB: in {between - started:.2f} s, out {time.perf_counter() - between:.2f} s")
    assert np.array_equal(image.data, pixels)


if __name__ == "__main__":
    arguments = ["-q", "-s", "-n", "0", "-p", "no:cacheprovider", *sys.argv[1:], __file__]
    code = pytest.main(arguments)
    sys.stdout.flush()
    os._exit(code)
