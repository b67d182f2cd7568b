"""Quality control: what is drawn into synthetic images is what `quality` finds and `forestbridge qc` says."""

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy import ndimage

import forestbridge as fb
from command_line import CELLS, call, done, write_images
from forestbridge.cli.qc import sparkline
from forestbridge.cli.qc_page import BRIGHT
from forestbridge.cli.qc_plot import View, counted
from forestbridge.cli.sources import Reading
from forestbridge.errors import ImageError
from forestbridge.image import as_image
from forestbridge.phantom import phantom
from forestbridge.qc import Histogram, QualityReport, Statistics
from forestbridge.qc.measure import ROWS, measure, merged
from image_files import cut


def smooth(seed: int = 0) -> NDArray[np.float64]:
    """Return (256, 256) cells without noise, in about 100..2800."""
    return ndimage.gaussian_filter(phantom((256, 256), seed=seed).image.astype(np.float64), 3)


def noisy(sigma: float, *, seed: int = 0) -> NDArray[np.float64]:
    return smooth(seed) + np.random.default_rng(seed).normal(0, sigma, (256, 256))


def only(report: QualityReport) -> Statistics:
    """Return the statistics of the one channel."""
    [channel] = report.channels
    return channel.statistics


@pytest.mark.parametrize("sigma", [10, 40, 160])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_noise_is_found_again(sigma: int, dtype: str) -> None:
    statistics = only(fb.quality((noisy(sigma) + 1000).astype(dtype)))
    assert statistics.noise == pytest.approx(sigma, rel=0.15)
    assert statistics.snr == pytest.approx((statistics.p99 - statistics.p1) / statistics.noise)


def test_noise_of_noise_alone() -> None:
    noise = np.random.default_rng(1).normal(500, 20, (300, 300))
    assert only(fb.quality(noise)).noise == pytest.approx(20, rel=0.02)
    report = fb.quality(np.rint(noise).astype("uint16"))
    assert report.verdict == "look"
    assert report.reasons == (
        "the values of channel 0 spread over 4.7 times their noise, which is what noise alone does: hardly anything is to "
        "be seen; expose longer or average several images",
    )
    stack = np.rint(np.stack([noise, noise[::-1], np.zeros_like(noise)])).astype("uint16")
    assert any("noise alone" in reason for reason in fb.quality(as_image(stack, axes="ZYX")).reasons)
    noise[100:104, 100:104] += 4000  # a spot that no percentile shows
    assert fb.quality(np.rint(noise).astype("uint16")).verdict == "ok"


def test_ordinary_statistics() -> None:
    statistics = only(fb.quality(CELLS.image))
    image = CELLS.image.astype(np.float64)
    assert statistics.not_finite_percent == 0
    assert (statistics.min, statistics.max) == (image.min(), image.max())
    assert statistics.mean == pytest.approx(image.mean())
    assert statistics.std == pytest.approx(image.std())
    wanted = np.percentile(image, [1, 50, 99], method="inverted_cdf")
    assert [statistics.p1, statistics.p50, statistics.p99] == wanted.tolist()
    assert statistics.range_used_percent == pytest.approx(100 * np.ptp(image) / 65535)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", ">u2", "int16", "uint32", "int64", "float16", "float32", "float64"]
)
def test_every_dtype_gives_the_same_numbers(dtype: str) -> None:
    image = (CELLS.image // 14).astype("uint8")
    found, wanted = only(fb.quality(image.astype(dtype))), only(fb.quality(image))
    for name in ("min", "max", "mean", "std", "p1", "p50", "p99", "noise", "snr", "focus"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name


def test_strips_are_the_whole() -> None:
    image = np.random.default_rng(0).normal(size=(2 * ROWS + 7, 12)).astype("float32")
    kernel = np.outer([1, -2, 1], [1, -2, 1])
    response = np.abs(ndimage.correlate(image.astype(np.float64), kernel))[1:-1, 1:-1]
    gradient = np.hypot(*(ndimage.sobel(image.astype(np.float64), axis) / 8 for axis in (0, 1)))[1:-1, 1:-1]
    statistics = only(fb.quality(image))
    assert statistics.noise == pytest.approx(np.sqrt(np.pi / 2) / 6 * response.mean())
    assert statistics.focus == pytest.approx(gradient.var())


def test_focus_falls_with_blur() -> None:
    sharp = phantom((128, 128)).image.astype("float32")
    stack = np.stack([ndimage.gaussian_filter(sharp, sigma) for sigma in (0, 1, 2, 4)])
    planes = fb.quality(as_image(stack, axes="ZYX")).channels[0].planes
    focus = [plane.statistics.focus for plane in planes]
    assert focus == sorted(focus, reverse=True) and focus[0] > 10 * focus[-1]


@pytest.mark.parametrize("n", [1, 2])
def test_images_without_an_inner_pixel(n: int) -> None:
    image = np.arange(n * 5, dtype="uint8").reshape(n, 5) * 20
    for statistics in (only(fb.quality(image)), only(fb.quality(image.T))):
        assert np.isnan([statistics.noise, statistics.snr, statistics.focus]).all()


def test_clipped_share_is_exact() -> None:
    image = np.clip(noisy(5) / 12 + 10, 1, 254).astype("uint8")
    image.flat[:2097] = 255  # 3.2 % of 65536 pixels
    report = fb.quality(image)
    assert only(report).clipped_high_percent == 100 * 2097 / 65536
    assert only(report).clipped_low_percent == 0
    assert report.verdict == "look"
    assert report.reasons == (
        "3.2 % of the pixels of channel 0 are at the highest possible value 255: what was brighter is lost; lower exposure "
        "or gain",
    )
    image.flat[:2097] = 0
    assert fb.quality(image).reasons == (
        "3.2 % of the pixels of channel 0 are at the lowest possible value 0: what was darker is lost; raise the detector's "
        "offset",
    )


def test_a_few_clipped_pixels_pass() -> None:
    image = np.clip(noisy(5) / 12 + 10, 1, 254).astype("uint8")
    image.flat[:65] = 255
    image.flat[65:720] = 0
    report = fb.quality(image)
    assert (report.verdict, report.reasons) == ("ok", ())
    assert only(report).clipped_high_percent == 100 * 65 / 65536


def test_more_than_half_clipped_is_unusable() -> None:
    image = np.clip(noisy(5) / 12 + 10, 1, 254).astype("uint8")
    image[:129] = 255
    assert fb.quality(image).verdict == "unusable"
    image[:128] = np.tile(np.arange(1, 255, dtype="uint8")[:128, None], 256)
    assert fb.quality(image).verdict == "look"
    image[:60], image[60:130] = 0, 255
    report = fb.quality(image)
    assert report.verdict == "look" and len(report.reasons) == 2
    image[60:130], image[130:140] = 0, 7
    assert fb.quality(image).verdict == "look", "half of the pixels black, as where a background was subtracted"


def test_twelve_bits_in_sixteen() -> None:
    image = np.clip(noisy(20) + 100, 1, 4094).astype("uint16")
    report = fb.quality(image)
    assert (report.verdict, report.bits, report.possible, report.reasons) == ("ok", 12, (0, 65535), ())
    assert only(report).range_used_percent < 5
    [hint] = report.hints
    assert f"no value is above {image.max()}, as a detector of 12 bits writes into uint16: 4095 is taken for" in hint
    assert "If yours has more bits, the image is under-exposed: it uses 4." in hint
    image.flat[:655] = 4095
    report = fb.quality(image)
    assert only(report).clipped_high_percent == 100 * 655 / 65536
    assert "1 % of the pixels of channel 0 are at the highest possible value 4095 of 12 bits: what" in report.reasons[0]


@pytest.mark.parametrize(
    "dtype, high, bits",
    [
        ("uint8", 9, 8),
        ("uint16", 255, 8),
        ("uint16", 256, 10),
        ("uint16", 1024, 12),
        ("uint16", 4096, 14),
        ("uint16", 16384, 16),
        ("int16", 4095, 12),
        ("int16", 20000, 16),
        ("int8", 100, 8),
        ("int32", 70000, 32),
        ("bool", 1, 1),
        ("float32", 1, None),
    ],
)
def test_bits(dtype: str, high: int, bits: int | None) -> None:
    image = np.zeros((8, 8), dtype)
    image[4:, 1:] = high
    assert fb.quality(image).bits == bits


def test_bits_of_negative_values() -> None:
    image = np.rint(noisy(5) - 500).astype("int16")
    report = fb.quality(image)
    assert (report.bits, report.possible, report.hints, report.verdict) == (16, (-32768, 32767), (), "look")
    image.flat[:5000] = -32768
    assert only(fb.quality(image)).clipped_low_percent == 100 * 5000 / 65536


def test_few_grey_values() -> None:
    report = fb.quality(np.clip(noisy(50) / 400 + 30, 30, 39).astype("uint8"))
    assert report.verdict == "look"
    assert report.reasons[0].startswith("channel 0 uses ")
    assert report.reasons[0].endswith(
        "of the 256 grey values, 30 to 36: it is under-exposed or has little contrast; raise exposure or gain"
    )


def test_constant() -> None:
    report = fb.quality(np.full((20, 30), 7, "uint8"))
    assert report.verdict == "unusable"
    assert report.reasons == (
        "channel 0 has the value 7 everywhere: nothing is in it; check shutter, light source and filter, or choose other "
        "--channels",
    )
    assert only(report).noise == 0 and np.isnan(only(report).snr)
    assert report.channels[0].planes[0].constant
    assert fb.quality(np.full((20, 30), 0.1)).verdict == "unusable"


def test_a_constant_channel_beside_a_good_one() -> None:
    image = np.stack([CELLS.image, np.zeros_like(CELLS.image)])
    report = fb.quality(image)
    assert report.verdict == "look" and "channel 1 has the value 0 everywhere" in report.reasons[0]
    assert fb.quality(image, channels=[0]).verdict == "ok"
    report = fb.quality(image, channels=[1])
    assert report.verdict == "unusable" and report.channels[0].channel == 1
    assert "channel 1 has" in report.reasons[0]
    with pytest.raises(ImageError, match=r"expected different channels from 0 to 1, found \[2\]"):
        fb.quality(image, channels=[2])


def test_nan() -> None:
    image = noisy(5).astype("float32")
    image[:64, :64] = np.nan
    image[100, 100] = np.inf
    image[200, 100] = -np.inf
    report = fb.quality(image)
    statistics = only(report)
    assert statistics.not_finite_percent == pytest.approx(100 * (64 * 64 + 2) / 65536)
    assert statistics.max == image[np.isfinite(image)].max()
    assert statistics.noise == pytest.approx(5, rel=0.15)
    assert report.reasons == (
        "6.3 % of the pixels of channel 0 are NaN or infinite: features need numbers; replace them with --nan VALUE when "
        "features are extracted",
    )


def test_all_nan() -> None:
    report = fb.quality(np.full((20, 30), np.nan, "float32"))
    assert report.verdict == "unusable"
    assert report.reasons == (
        "all pixels of channel 0 are NaN or infinite: nothing is in it; check how the file was written",
    )
    assert only(report).not_finite_percent == 100 and np.isnan(only(report).mean)
    assert report.channels[0].histogram is None and not report.channels[0].planes[0].constant
    assert fb.quality(np.full((20, 30), 1e300)).verdict == "unusable"  # infinite as float32, as encoders see it


def test_floats_are_clipped_where_they_pile_up() -> None:
    image = (smooth() / 3000 + np.random.default_rng(0).normal(0, 0.01, (256, 256))).astype("float32")
    assert fb.quality(image).verdict == "ok"
    top, bottom = np.sort(image, axis=None)[[-2000, 1500]]
    report = fb.quality(np.clip(image, bottom, top))
    assert only(report).clipped_high_percent == 100 * 2000 / 65536
    assert only(report).clipped_low_percent == 100 * 1501 / 65536
    assert report.verdict == "look" and np.isnan(only(report).range_used_percent)
    assert (
        f"3.1 % of the pixels of channel 0 are at the highest value {top:.4g}, many more than beside it: what was brighter is "
        "lost; go back to the data before it was cut off" in report.reasons
    )
    assert any(
        r.startswith(f"2.3 % of the pixels of channel 0 are at the lowest value {bottom:.4g}") for r in report.reasons
    )


def stack() -> NDArray[np.uint16]:
    """Return (T=2, Z=4, Y, X) of eight different planes."""
    return np.stack([phantom((40, 50), seed=n).image for n in range(8)]).reshape(2, 4, 40, 50)


def test_stack() -> None:
    image = stack()
    report = fb.quality(as_image(image, axes="TZYX"))
    [channel] = report.channels
    assert [(p.t, p.z) for p in channel.planes] == [(t, z) for t in range(2) for z in range(4)]
    for plane in channel.planes:
        assert plane.statistics == only(fb.quality(image[plane.t, plane.z]))
    assert report.verdict == "ok"
    assert (channel.statistics.min, channel.statistics.max) == (image.min(), image.max())
    assert channel.statistics.mean == np.median(image.mean(axis=(2, 3)))
    assert channel.histogram is not None
    assert sum(channel.histogram.counts) == pytest.approx(image.size)


def test_constant_and_repeated_planes() -> None:
    image = stack()
    image[0, 1] = 0
    image[0, 3] = image[0, 2]
    image[1, 2] = image[0, 0]
    report = fb.quality(as_image(image, axes="TZYX"))
    planes = report.channels[0].planes
    assert [p.same_as for p in planes] == [None, None, None, (0, 2, 0), None, None, (0, 0, 0), None]
    assert [p.constant for p in planes] == [False, True] + 6 * [False]
    assert report.verdict == "look"
    assert (
        "1 of 8 planes of channel 0 hold nothing, one value or NaN everywhere: t=0 z=1; leave them out"
        in report.reasons
    )
    assert (
        "2 of 8 planes of channel 0 repeat an earlier one, pixel by pixel: t=0 z=3 as t=0 z=2, t=1 z=2 as t=0 z=0; check stage "
        "and export, or leave them out" in report.reasons
    )


def test_many_planes_are_counted() -> None:
    image = as_image(np.stack([CELLS.image] * 9), axes="ZYX")
    [reason] = fb.quality(image).reasons
    assert "8 of 9 planes" in reason and "z=5 as z=0 and 3 more;" in reason and "t=" not in reason


def test_nan_planes_in_a_stack() -> None:
    image = stack()[0].astype("float32")
    image[3] = np.nan
    report = fb.quality(as_image(image, axes="ZYX"))
    assert report.verdict == "look" and only(report).not_finite_percent == 25
    assert "1 of 4 planes of channel 0 hold nothing, one value or NaN everywhere: z=3; leave them out" in report.reasons


def test_grey_saved_as_colour() -> None:
    report = fb.quality(np.stack([CELLS.image] * 3))
    assert report.verdict == "look"
    assert report.reasons == (
        "channels 1 and 2 are the same as channel 0, pixel by pixel: grey saved as colour? Use --channels without 1 and 2",
    )


def test_grey_saved_as_colour_with_an_empty_plane() -> None:
    grey = stack()[0]
    grey[1] = 0
    report = fb.quality(np.stack([grey, grey]))  # (C, Z, Y, X)
    assert (
        "channel 1 is the same as channel 0, pixel by pixel: grey saved as colour? Use --channels without 1"
        in report.reasons
    )


def test_colour_photograph(tmp_path: Path) -> None:
    import skimage.data

    pixels = skimage.data.immunohistochemistry()  # (Y, X, 3) uint8
    Picture.fromarray(pixels).save(tmp_path / "ihc.png")
    report = fb.quality(fb.read_image(tmp_path / "ihc.png"))
    assert report.verdict == "ok" and report.bits == 8 and report.possible == (0, 255)
    for k, channel in enumerate(report.channels):
        assert channel.statistics.mean == pytest.approx(pixels[..., k].mean())
        assert channel.statistics.clipped_high_percent == 100 * (pixels[..., k] == 255).mean()


def test_one_plane_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = fb.Image.plane
    monkeypatch.setattr(fb.Image, "plane", lambda self, t, z: read.append((t, z)) or original(self, t, z))
    steps = []
    fb.quality(as_image(stack(), axes="TZYX"), progress=lambda done, total: steps.append((done, total)))
    assert read == [(t, z) for t in range(2) for z in range(4)]
    assert steps == [(n, 8) for n in range(1, 9)]


def test_histograms() -> None:
    found = measure(np.array([[0, 1, 1, 9]], "uint8"))[1]
    assert found == Histogram(-0.5, 9.5, (1, 2, 0, 0, 0, 0, 0, 0, 0, 1))
    wide = measure(np.arange(1000, dtype="uint16")[None])[1]
    assert wide is not None and set(wide.counts) == {4} and len(wide.counts) == 250
    both = merged(wide, found)
    assert both is not None and (both.low, both.high) == (-0.5, 999.5)
    assert sum(both.counts) == pytest.approx(1004)
    further = merged(both, Histogram(2000, 2001, (5,)))
    assert further is not None and sum(further.counts) == pytest.approx(1009) and further.high == 2001
    assert merged(None, found) == merged(found, None) == found


def test_sparkline() -> None:
    assert sparkline(Histogram(0, 4, (0, 1, 10, 1000))) == " ▁▃█"
    assert sparkline(None) == ""
    assert len(sparkline(Histogram(0, 256, (1,) * 256))) <= 24


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with images: good ones, one that is clipped, a constant one, and one that is cut off."""
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(
        "clipped.tif", np.clip(CELLS.image, 0, 300).astype("uint8") | (CELLS.image > 255).astype("uint8") * 255
    )
    tifffile.imwrite("constant.tif", np.full((20, 30), 7, "uint8"))
    tifffile.imwrite("bad.tif", CELLS.image)
    cut(tmp_path / "bad.tif", 0.5)
    return tmp_path


def test_text(folder: Path) -> None:
    out = done("qc", "a.tif").out
    assert out.startswith("a.tif: ok (uint16, 12 bits used)\n  channel  min")
    assert "▂" in out and "█" in out and "\n  note: no value is above " in out
    assert (
        "stack.tif: ok (uint16, 12 bits used, 6 planes: medians, but min and max of all)" in done("qc", "stack.tif").out
    )
    assert "\n  nothing found\n" in done("qc", "rgb.tif").out


def test_an_unusable_image_ends_with_1(folder: Path) -> None:
    ended = call("qc", "clipped.tif", "a.tif", "constant.tif")
    assert ended.code == 1
    assert "clipped.tif: unusable (uint8, 8 bits used)" in ended.out
    assert "  - channel 0 has the value 7 everywhere: nothing is in it" in ended.out
    assert "of the pixels of channel 0 are at the highest possible value 255: what was brighter is lost" in ended.out
    assert "a.tif: ok" in ended.out


def test_a_bad_file_does_not_stop_the_rest(folder: Path) -> None:
    ended = call("qc", "bad.tif", "a.tif", "constant.tif", "--csv", "q.csv")
    assert ended.code == 3
    assert "failed: bad.tif: expected" in ended.err
    assert ended.err.endswith("2 of 3 done, not done: bad.tif\n")
    assert "a.tif: ok" in ended.out and "constant.tif: unusable" in ended.out
    assert len(Path("q.csv").read_text(encoding="utf-8").splitlines()) == 3
    ended = call("qc", "bad.tif", "--csv", "none.csv")
    assert ended.code == 3 and "forestbridge: bad.tif: expected" in ended.err
    assert not Path("none.csv").exists()


def test_csv(folder: Path) -> None:
    done("qc", "a.tif", "rgb.tif", "stack.tif", "--csv", "q.csv")
    with Path("q.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.tif", *3 * ["rgb.tif"], *6 * ["stack.tif"]]
    assert [row["z"] for row in rows[4:]] == list("012345")
    assert [row["channel"] for row in rows[1:4]] == list("012")
    statistics = only(fb.quality(CELLS.image))
    assert float(rows[0]["mean"]) == statistics.mean and float(rows[0]["noise"]) == statistics.noise
    assert rows[0]["verdict"] == "ok" and rows[0]["constant"] == "0" and rows[0]["same_as"] == ""


def test_csv_of_what_cannot_be_said(folder: Path) -> None:
    image = np.stack([CELLS.image, CELLS.image, CELLS.image * np.nan]).astype("float32")
    tifffile.imwrite("stack.tif", image, imagej=True, metadata={"axes": "ZYX"})
    done("qc", "stack.tif", "--csv", "q.csv")
    with Path("q.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["same_as"] == "t=0 z=0 c=0" and rows[0]["bits"] == rows[0]["range_used_percent"] == ""
    assert rows[2]["mean"] == rows[2]["noise"] == "" and rows[2]["not_finite_percent"] == "100.0"


def test_json(folder: Path) -> None:
    ended = call("qc", "a.tif", "bad.tif", "constant.tif", "--json")
    assert ended.code == 3
    document = ended.json()
    assert [image["verdict"] for image in document["images"]] == ["ok", "unusable"]
    assert document["failed"][0]["input"] == "bad.tif" and document["failed"][0]["exit_code"] == 3
    first = document["images"][0]
    assert (first["input"], first["bits"], first["possible"]) == ("a.tif", 12, [0, 65535])
    [channel] = first["channels"]
    [plane] = channel["planes"]
    assert plane["mean"] == channel["mean"] == only(fb.quality(CELLS.image)).mean
    assert sum(channel["histogram"]["counts"]) == CELLS.image.size
    tifffile.imwrite("nan.tif", np.full((20, 30), np.nan, "float32"))
    ended = call("qc", "nan.tif", "--json")
    assert ended.code == 1 and ended.json()["images"][0]["channels"][0]["mean"] is None


def test_plot(folder: Path) -> None:
    tifffile.imwrite("$nan_.tif", np.full((20, 30), np.nan, "float32"))
    call("qc", "a.tif", "rgb.tif", "stack.tif", "$nan_.tif", "constant.tif", "--plot", "q.png")
    with Picture.open("q.png") as picture:
        assert picture.format == "PNG" and picture.size == (4 * 4 * 80, 2 * 224)
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == (0x3B, 0x7D, 0xD8)).all(axis=2).any() and (pixels == 0x22).all(axis=2).any()
    assert [p.name for p in folder.glob(".*")] == []


def test_plot_of_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forestbridge.cli.qc_plot.PANELS", 2)
    ended = done("qc", "a.tif", "rgb.tif", "--plot", "q.png")
    assert "q.png holds the first 2 of 4 histograms; draw the others with fewer images at a time" in ended.err
    with Picture.open("q.png") as picture:
        assert picture.size == (2 * 4 * 80, 224)


def test_plot_of_a_plane_and_a_range(folder: Path) -> None:
    np.save("z.npy", stack()[0])
    done("qc", "z.npy", "--axes", "ZYX", "--plot", "q.svg", "--slice", "2", "--range", "200,1200")
    text = Path("q.svg").read_text(encoding="utf-8")
    assert "z.npy, channel 0, z=2" in text
    done("qc", "z.npy", "--axes", "ZYX", "--plot", "r.svg", "--slice", "2", "--range", "200,1200")
    assert Path("r.svg").read_text(encoding="utf-8") == text
    ended = call("qc", "z.npy", "--axes", "ZYX", "--plot", "s.svg", "--slice", "4")
    assert ended.code == 3 and "expected --slice below 4, found 4; planes count from 0" in ended.err
    assert not Path("s.svg").exists()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("limits", [None, (10.0, 100.0)])
def test_histogram_of_a_plane(dtype: str, limits: tuple[float, float] | None) -> None:
    image = as_image(np.random.default_rng(0).integers(0, 250, (3, 40, 50)).astype(dtype), axes="ZYX")
    [channel] = fb.quality(image).channels
    found = counted(image, channel, View(Reading(), 1, limits))
    plane = image.plane(0, 1)[0]
    assert found is not None
    low, high = limits or (plane.min(), plane.max())
    assert sum(found.counts) == pytest.approx(((plane >= low) & (plane <= high)).sum(), abs=10 if limits else 0)
    wanted = np.histogram(plane, found.edges())[0]
    assert list(found.counts) == wanted.tolist()
    assert (
        counted(
            as_image(np.full((2, 2), np.nan)),
            fb.quality(np.full((2, 2), np.nan)).channels[0],
            View(Reading(), None, (0, 1)),
        )
        is None
    )


def test_page(folder: Path) -> None:
    clipped = np.clip(noisy(5) / 12 + 10, 1, 254).astype("uint8")
    clipped[:20, :30] = 255
    tifffile.imwrite("<b>clipped.tif", clipped)
    ended = call("qc", "a.tif", "stack.tif", "<b>clipped.tif", "constant.tif", "--html", "q.html")
    assert ended.code == 1
    text = Path("q.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n") and "<b>" not in text
    assert '&lt;b&gt;clipped.tif: <span class="look">look</span>' in text
    assert "of the pixels of channel 0 are at the highest possible value 255" in text
    assert "record it again: what is missing cannot be computed back" in text
    assert "possible values 0 to 65535, 12 bits used" in text and "the sharpest plane" in text
    pictures = [base64.b64decode(p) for p in re.findall(r'src="data:image/png;base64,([^"]*)"', text)]
    assert len(pictures) == 8 and "http" not in text.replace("http-equiv", "")
    with Picture.open(io.BytesIO(pictures[4])) as opened:
        shown = np.asarray(opened)
    assert shown.shape == (256, 256, 3)
    assert (shown[:20, :30] == BRIGHT).all() and not (shown[20:] == BRIGHT).all(axis=-1).any()


def test_channels_axes_and_scene(folder: Path) -> None:
    report = done("qc", "rgb.tif", "--channels", "2", "--json").json()["images"][0]
    assert [channel["channel"] for channel in report["channels"]] == [2]
    ended = call("qc", "rgb.tif", "--channels", "5")
    assert ended.code == 3 and "rgb.tif: expected different channels from 0 to 2, found [5]" in ended.err
    np.save("four.npy", stack()[0])
    report = done("qc", "four.npy", "--axes", "ZYX", "--json").json()["images"][0]
    assert [plane["z"] for plane in report["channels"][0]["planes"]] == [0, 1, 2, 3]
    assert call("qc", "a.tif", "--scene", "3").code == 3


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--csv", "q.txt"], 2, "expected a name that ends in .csv for --csv, found q.txt; give another name"),
        (
            ["--plot", "q.jpg"],
            2,
            "expected a name that ends in .png or .svg for --plot, found q.jpg; give another name",
        ),
        (["--html", "q.txt"], 2, "expected a name that ends in .html for --html, found q.txt"),
        (
            ["--range", "5,2", "--plot", "q.png"],
            2,
            "expected --range LOW,HIGH, two numbers with the lower one first, found '5,2'",
        ),
        (["--range", "1", "--plot", "q.png"], 2, "expected --range LOW,HIGH"),
        (["--slice", "0"], 2, "expected --slice and --range with --plot or --html, found neither"),
        (["--csv", "there.csv"], 2, "expected a new output, found that there.csv exists"),
        (["--plot", "nowhere/q.png"], 6, "for q.png, found none; make it first"),
        (["b.tif", "missing.tif"], 3, "expected 3 inputs, found nothing at 1 of them: missing.tif; check the paths"),
    ],
)
def test_refused_before_anything_is_read(folder: Path, words: list[str], code: int, message: str) -> None:
    Path("there.csv").touch()
    ended = call("qc", "a.tif", *words)
    assert ended.code == code and message in ended.err and ended.out == ""


def test_overwrite(folder: Path) -> None:
    Path("there.csv").touch()
    done("qc", "a.tif", "--csv", "there.csv", "--overwrite")
    assert Path("there.csv").read_text(encoding="utf-8").startswith("file,t,z,channel,name,dtype,bits,")
    Picture.fromarray(np.tile(np.arange(64, dtype="uint8") * 4, (64, 1))).save("own.png")
    ended = call("qc", "own.png", "--plot", "own.png", "--overwrite")
    assert ended.code == 2 and "expected outputs apart from the inputs, found that own.png is both" in ended.err
