"""Measurements of objects: the numbers are those of the label image, of brute force, and of skimage.measure.regionprops."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops_table

import forestbridge as fb
from command_line import call, done
from forestbridge.errors import ImageError, MissingExtraError
from forestbridge.image import as_image
from forestbridge.objects.tables import ObjectTable, write_table

OF_SKIMAGE = {
    "label": "id",
    "area": "area_px",
    "centroid-0": "centroid_y_px",
    "centroid-1": "centroid_x_px",
    "bbox-0": "bbox_min_y_px",
    "bbox-1": "bbox_min_x_px",
    "bbox-2": "bbox_max_y_px",
    "bbox-3": "bbox_max_x_px",
    "equivalent_diameter_area": "equivalent_diameter_px",
    "axis_major_length": "major_axis_px",
    "axis_minor_length": "minor_axis_px",
    "eccentricity": "eccentricity",
    "orientation": "orientation_rad",
    "perimeter": "perimeter_px",
    "feret_diameter_max": "feret_max_px",
    "solidity": "solidity",
    **{
        f"intensity_{what}-{c}": f"intensity_{what}_channel {c}"
        for what in ("mean", "min", "max", "std")
        for c in (0, 1)
    },
}
"""Our names of what skimage measures."""

OF_SKIMAGE_3D = {
    "label": "id",
    "area": "volume_px",
    **{f"centroid-{i}": f"centroid_{a}_px" for i, a in enumerate("zyx")},
    **{f"bbox-{i}": f"bbox_min_{a}_px" for i, a in enumerate("zyx")},
    **{f"bbox-{i + 3}": f"bbox_max_{a}_px" for i, a in enumerate("zyx")},
    "equivalent_diameter_area": "equivalent_diameter_px",
    "axis_major_length": "major_axis_px",
    "axis_minor_length": "minor_axis_px",
    **{f"intensity_{what}": f"intensity_{what}_channel 0" for what in ("mean", "min", "max", "std")},
}


def blobs(shape: tuple[int, ...], sigma: float, *, seed: int = 0, share: float = 0.3) -> NDArray[np.int32]:
    """Return numbered smooth blobs that cover a share of the image."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return ndimage.label(smooth > np.quantile(smooth, 1 - share))[0].astype(np.int32)


def scattered(shape: tuple[int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    """Return objects in many pieces, with holes, that touch each other."""
    return np.random.default_rng(seed).integers(0, 9, shape).astype(np.uint8)


def degenerate() -> NDArray[np.uint16]:
    """Return single pixels, lines, rectangles, a ring, at the edge and in the corner, with numbers that leave gaps."""
    labels = np.zeros((40, 50), np.uint16)
    labels[0, 0], labels[5, 5:12], labels[8:15, 5] = 7, 9, 300
    labels[20:26, 20:31], labels[30:40, 40:50] = 40000, 65535
    labels[10:19, 30:39] = 12
    labels[13:16, 33:36] = 0
    np.fill_diagonal(labels[28:38, 2:12], 11)
    return labels


@pytest.mark.parametrize(
    "labels",
    [blobs((150, 170), 3), blobs((120, 90), 0.8), scattered((17, 23)), degenerate()],
    ids=["large", "small", "scattered", "degenerate"],
)
def test_planes_are_as_skimage_measures_them(labels: NDArray) -> None:
    image = np.random.default_rng(1).integers(0, 60000, (2, *labels.shape)).astype(np.uint16)
    table = fb.measure(labels, image)
    properties = sorted({name.rpartition("-")[0] or name for name in OF_SKIMAGE})
    wanted = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=properties)
    for theirs, ours in OF_SKIMAGE.items():
        found = table[ours]
        if ours == "orientation_rad":  # of a square or disk every direction is as good
            clear = wanted["eccentricity"] > 1e-3
            assert found[clear] == pytest.approx(wanted[theirs][clear], abs=1e-9)
        else:
            assert found == pytest.approx(wanted[theirs], rel=1e-9, abs=1e-6), ours
    for c in (0, 1):
        sums = ndimage.sum_labels(image[c].astype(float), labels, table["id"])
        assert table[f"intensity_sum_channel {c}"] == pytest.approx(sums, rel=1e-12)
    assert table["area_px"].tolist() == np.unique(labels[labels > 0], return_counts=True)[1].tolist()


def test_volumes_are_as_skimage_measures_them() -> None:
    labels = blobs((9, 40, 50), 2)
    image = np.random.default_rng(1).normal(100, 20, labels.shape).astype(np.float32)
    table = fb.measure(labels, as_image(image, axes="ZYX"))
    properties = sorted({name.rpartition("-")[0] or name for name in OF_SKIMAGE_3D})
    wanted = regionprops_table(labels, image, properties=properties)
    for theirs, ours in OF_SKIMAGE_3D.items():
        assert table[ours] == pytest.approx(wanted[theirs], rel=1e-5, abs=1e-5), ours
    assert not {"perimeter_px", "solidity", "z"} & set(table.columns)


def test_far_from_the_origin_no_digit_is_lost() -> None:
    small = np.zeros((3, 8, 9), np.uint8)
    small[:, 2:6, 1:7] = 1
    small[1, 2, 1] = 0
    far = np.zeros((3, 8, 60_000), np.uint8)
    far[:, :, -9:] = small
    a, b = fb.measure(small), fb.measure(far)
    assert a["minor_axis_px"] == pytest.approx(b["minor_axis_px"], rel=1e-12)


def test_circularity_is_that_of_the_outline() -> None:
    y, x = np.mgrid[:200, :200]
    disk = ((y - 100) ** 2 + (x - 100) ** 2 <= 80**2).astype(np.uint8)
    disk[:, 195:] = 2
    disk[0, 0] = 3
    table = fb.measure(disk)
    assert table["circularity"][0] == pytest.approx(0.9, abs=0.03)
    assert table["circularity"][1] < 0.2
    assert np.isnan(table["circularity"][2])  # one pixel has no outline
    assert table["feret_max_px"][0] == pytest.approx(161, abs=1)
    assert table["at_edge"].tolist() == [0, 1, 1]


def test_micrometres_need_a_pixel_size(tmp_path: Path) -> None:
    labels = blobs((4, 30, 40), 2).astype(np.uint16)
    path = tmp_path / "labels.ome.tif"
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(path, labels, metadata={"axes": "ZYX", **size})
    table = fb.measure(path)
    assert table["volume_um3"] == pytest.approx(table["volume_px"] * 0.25)
    assert table["centroid_z_um"] == pytest.approx(table["centroid_z_px"] * 2)
    assert table["equivalent_diameter_um"] ** 3 * np.pi / 6 == pytest.approx(table["volume_um3"])
    wanted = regionprops_table(labels, properties=["axis_major_length"], spacing=(2.0, 0.25, 0.5))
    assert table["major_axis_um"] == pytest.approx(wanted["axis_major_length"])
    flat = fb.measure(path, plane_by_plane=True)
    assert flat["area_um2"] == pytest.approx(flat["area_px"] * 0.125)
    assert "perimeter_um" not in flat.columns  # pixels are no squares
    assert not [name for name in fb.measure(labels).columns if "um" in name.split("_")]


def test_planes_and_frames_are_rows() -> None:
    labels = np.zeros((2, 3, 8, 8), np.uint8)
    labels[:, :, 1:4, 1:4] = 1
    labels[1, 2, 5:8, 5:8] = 2
    volumes = fb.measure(labels)
    assert (volumes["id"].tolist(), volumes["t"].tolist()) == ([1, 1, 2], [0, 1, 1])
    assert volumes["volume_px"].tolist() == [27, 27, 9]
    planes = fb.measure(labels, plane_by_plane=True)
    assert list(zip(planes["t"], planes["z"], planes["id"], strict=True)) == [
        *((0, z, 1) for z in range(3)),
        *((1, z, 1) for z in range(3)),
        (1, 2, 2),
    ]
    assert set(planes["area_px"]) == {9}
    frames = fb.measure(labels[:, 0], axes="TYX")
    assert frames["t"].tolist() == [0, 1] and frames["z"].tolist() == [0, 0]


def test_classes_are_the_most_probable_ones() -> None:
    labels = np.zeros((10, 20), np.uint8)
    labels[2:6, 2:6], labels[3:8, 10:18] = 1, 2
    shares = np.stack([np.full((10, 20), 0.25), np.full((10, 20), 0.75)]).astype(np.float32)
    shares[:, :, 10:] = shares[::-1, :, 10:]
    table = fb.measure(labels, probabilities=shares)
    assert table["class"].tolist() == ["class 2", "class 1"]
    assert table["probability_class 1"].tolist() == [0.25, 0.75]
    assert fb.measure(labels, class_name="nucleus")["class"].tolist() == ["nucleus", "nucleus"]
    assert "class" not in fb.measure(labels).columns


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">u2", "uint32", "int64", "float32", "float64"])
def test_every_dtype_of_labels(dtype: str) -> None:
    labels = (blobs((30, 30), 2) > 0).astype(dtype)
    assert fb.measure(labels)["area_px"].tolist() == [int((labels > 0).sum())]


def test_large_numbers() -> None:
    labels = np.zeros((5, 6), np.uint32)
    labels[1, 1:3], labels[3, 2:5], labels[0, 5] = 2**32 - 1, 2**17 + 1, 1
    table = fb.measure(labels)
    assert (table["id"].tolist(), table["area_px"].tolist()) == ([1, 2**17 + 1, 2**32 - 1], [1, 3, 2])


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6)])
def test_no_object(shape: tuple[int, ...], tmp_path: Path) -> None:
    image = as_image(np.ones(shape), axes="ZYX"[-len(shape) :])
    table = fb.measure(np.zeros(shape, np.uint8), image)
    assert len(table) == 0 and "intensity_mean_channel 0" in table.columns
    assert write_table(tmp_path / "none.csv", table) == 0
    [header] = (tmp_path / "none.csv").read_text().splitlines()
    assert header.split(",") == list(table.columns)


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.full((4, 4), -1), r"expected labels from 0 to 4294967295, found -1 at t=0 z=0"),
        (np.full((4, 4), 0.5), r"expected whole numbers as labels, found 0.5 at t=0 z=0 y=0 x=0; intensities and"),
        (np.full((4, 4), np.nan), r"expected whole numbers as labels, found nan"),
        (np.full((4, 4), 2**33), r"expected labels from 0 to 4294967295, found 8589934592"),
        (as_image(np.zeros((2, 4, 4), np.uint8)), r"expected one number per pixel, found 2 channels of uint8"),
    ],
)
def test_what_is_no_label_image(labels: NDArray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        fb.measure(labels)


def test_sizes_must_be_the_same() -> None:
    with pytest.raises(
        ImageError, match=r"expected images of one size, found T=1 Z=1 Y=4 X=5 \(array\) and T=1 Z=1 Y=5 X=4"
    ):
        fb.measure(np.zeros((4, 5), np.uint8), np.zeros((5, 4)))


def test_csv_brings_every_number_back(tmp_path: Path) -> None:
    labels = blobs((60, 70), 1.5)
    names = np.array(["a", 'b,"c"', "é"])
    table = ObjectTable({**fb.measure(labels).columns, "name, odd": names[np.arange(labels.max()) % 3]})
    assert write_table(tmp_path / "t.csv", iter([table, table])) == 2 * len(table)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table.columns) and len(rows) == 2 * len(table)
    for name, column in table.columns.items():
        found = [row[name] for row in rows[: len(table)]]
        if column.dtype.kind == "U":
            assert found == column.tolist()
        else:
            assert [float(v) if v else np.nan for v in found] == pytest.approx(column.tolist(), rel=0, nan_ok=True)


def test_parquet_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    with pytest.raises(MissingExtraError, match=r"a Parquet table needs the extra 'formats', which is not installed"):
        write_table(tmp_path / "t.parquet", fb.measure(blobs((20, 30), 1.5)))
    assert not list(tmp_path.iterdir())


def test_parquet_brings_every_number_back(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'formats' is not installed")
    table = fb.measure(blobs((60, 70), 1.5), class_name="cell")
    write_table(tmp_path / "t.parquet", [table, table])
    found = parquet.read_table(tmp_path / "t.parquet")
    assert found.column_names == list(table.columns) and found.num_rows == 2 * len(table)
    for name, column in table.columns.items():
        np.testing.assert_array_equal(found[name].to_numpy()[: len(table)], column)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with labels.tif and image.tif, of two named channels."""
    labels = blobs((40, 50), 2).astype(np.uint16)
    image = np.stack([labels * 10, labels * 0 + 7]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "image.ome.tif", image, metadata=names, photometric="minisblack")
    return tmp_path


def test_command(files: Path) -> None:
    ended = done(
        "measure", files / "labels.tif", "--image", files / "image.ome.tif", "-o", files / "t.csv", "--class", "cell"
    )
    with (files / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row["intensity_mean_DAPI"]) == 10 * int(row["id"]) and row["intensity_std_GFP"] == "0"
        assert float(row["area_um2"]) == int(row["area_px"]) / 4
        assert row["class"] == "cell"
    assert ended.out.splitlines()[0] == f"{len(rows)} objects: {len(rows)} cell"
    assert ended.out.splitlines()[-1] == str(files / "t.csv")


def test_command_for_machines(files: Path) -> None:
    arguments = [
        "measure",
        files / "labels.tif",
        "--image",
        files / "image.ome.tif",
        "--channels",
        "1",
        "-o",
        files / "t.csv",
    ]
    assert done(*arguments, "--dry-run", "--json").json()["channels"] == ["GFP"]
    assert not (files / "t.csv").exists()
    ended = done(*arguments, "--json").json()
    written = {"table": str(files / "t.csv"), "rois": None, "geojson": None}
    assert ended == {"objects": len(fb.measure(files / "labels.tif")), "classes": {}, **written}
    assert "DAPI" not in (files / "t.csv").read_text()
    assert call(*arguments).code == 2
    assert done(*arguments, "--overwrite").out


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["labels.tif"], 2, "expected an output, found none; give a table with -o NAME.csv"),
        (["labels.tif", "--rois", "t.roi"], 2, "expected a name that ends in .zip, found t.roi"),
        (["labels.tif", "-o", "t.csv", "--geojson", "t.txt"], 2, "expected a name that ends in .geojson or .json"),
        (["labels.tif", "-o", "t.xlsx"], 2, "expected a table named *.csv or *.parquet"),
        (["labels.tif", "-o", "labels.csv/t.csv"], 6, "expected the folder"),
        (["image.ome.tif", "-o", "t.csv"], 3, "expected one number per pixel, found 2 channels"),
        (["missing.tif", "-o", "t.csv"], 3, "found nothing there"),
    ],
)
def test_command_refuses(
    files: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    ended = call("measure", *arguments)
    assert ended.code == code and message in ended.err, ended.err
    assert sorted(files.iterdir()) == before
