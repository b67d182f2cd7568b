"""`forestbridge predict --project`: ilastik's words, and the arrays, axes, dtypes and names that ilastik gives for them.

What ilastik itself writes for the same words was measured with ilastik 1.4.2; the expectations here are those files.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

import forestbridge as fb
from command_line import call
from forestbridge.headless.run import converted
from ilp_files import FEATURES, random_tree, write_ilp
from small_line import CELLS

IMAGE = (CELLS.image // 20).astype(np.uint8)  # (96, 112)
HEIGHT, WIDTH = IMAGE.shape
STACK = np.random.default_rng(0).integers(0, 200, (7, 30, 40)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a 2D project, one for stacks, and images."""
    rng = np.random.default_rng(1)
    trees = [random_tree(rng, 5, 4, 2) for _ in range(9)]
    write_ilp(tmp_path / "p.ilp", IMAGE[..., None], forests=[trees])
    write_ilp(tmp_path / "z.ilp", STACK[..., None], axes="zyxc", forests=[trees])
    Pillow.fromarray(IMAGE).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", IMAGE)
    tifffile.imwrite(tmp_path / "stack.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
    return tmp_path


def predict(folder: Path, *words: str, project: str = "p.ilp", image: str = "a.png"):
    """Run with a project and an image."""
    return call("predict", f"--project={folder / project}", *words, "--raw_data", folder / image)


def expected(folder: Path, project: str = "p.ilp", image: str = "a.png"):
    """Return (K, ...) probabilities of the project's forest."""
    return fb.predict(fb.read_image(folder / image), fb.read_project(folder / project).pixel_forest())


def read(path: Path):
    """Return the dataset of an HDF5 file and its axes."""
    with h5py.File(path, "r") as file:
        dataset = file["exported_data"]
        axes = "".join(a["key"] for a in json.loads(dataset.attrs["axistags"])["axes"])
        assert list(dataset.attrs["DIMENSION_LABELS"]) == list(axes)
        return dataset[()], axes, dict(dataset.attrs), dataset.compression


def test_default_is_compressed_hdf5_beside_the_image(folder):
    ended = predict(folder, "--headless", "--readonly=1")
    assert ended.code == 0, ended.err
    path = folder / "a_Probabilities.h5"
    assert ended.out.strip() == str(path)
    array, axes, attributes, compression = read(path)
    assert (axes, array.dtype, compression) == ("yxc", np.float32, "gzip")
    assert attributes["drange"].tolist() == [0, 1] and attributes["display_mode"] == "grayscale"
    np.testing.assert_array_equal(array, np.moveaxis(expected(folder), 0, -1))


@pytest.mark.parametrize(
    ("source", "name", "dtype", "channels", "limits"),
    [
        ("probabilities", "Probabilities", "f4", 2, [0, 1]),
        ("Simple Segmentation", "Simple Segmentation", "u1", 1, [0, 1]),
        ("UNCERTAINTY", "Uncertainty", "f4", 1, [0, 1]),
        ("Features", "Features", "f4", 4, [0, 255]),
    ],
)
def test_sources(folder, source, name, dtype, channels, limits):
    assert predict(folder, "--export_source", source).code == 0
    array, axes, attributes, _ = read(folder / f"a_{name}.h5")
    assert (array.dtype, array.shape, axes) == (np.dtype(dtype), (HEIGHT, WIDTH, channels), "yxc")
    assert attributes["drange"].tolist() == limits and attributes["drange"].dtype == array.dtype
    p = expected(folder)
    wanted = {
        "Probabilities": np.moveaxis(p, 0, -1),
        "Simple Segmentation": p.argmax(axis=0)[..., None] + 1,
        "Uncertainty": (1 - np.abs(p[0] - p[1]))[..., None],
        "Features": np.moveaxis(fb.features(IMAGE, fb.read_project(folder / "p.ilp").encoder), 0, -1),
    }
    np.testing.assert_allclose(array, wanted[name], rtol=0, atol=1e-7)


def test_features_have_the_order_of_the_project(folder):
    options = {"scales": (1.6, 1.0, 0.7), "features": (FEATURES[5], *FEATURES[:5])}
    write_ilp(folder / "q.ilp", IMAGE[..., None], forests=[[(np.array([0.5, 0.5]),)]], **options)
    assert predict(folder, "--export_source=Features", project="q.ilp").code == 0
    ours = fb.features(IMAGE, fb.read_project(folder / "q.ilp").encoder)
    np.testing.assert_array_equal(read(folder / "a_Features.h5")[0], np.moveaxis(ours[[2, 3, 1, 0]], 0, -1))


@pytest.mark.parametrize(
    ("words", "axes", "shape"),
    [
        ([], "zyxc", (7, 30, 40, 2)),
        (["--output_axis_order=tczyx"], "tczyx", (1, 2, 7, 30, 40)),
        (["--output-axis-order", "xyzc"], "xyzc", (40, 30, 7, 2)),
        (["--cutout_subregion=[(2,5,6,0),(6,25,36,1)]"], "zyxc", (4, 20, 30, 1)),
        (["--cutout_subregion=[(0,1,2,5,6),(1,2,6,25,36)]"], "zyxc", (4, 20, 30, 1)),
        (["--cutout_subregion=[(2,None,0,0),(99,None,36,2)]"], "zyxc", (5, 30, 36, 2)),
    ],
)
def test_axes_and_regions(folder, words, axes, shape):
    ended = predict(folder, *words, project="z.ilp", image="stack.tif")
    assert ended.code == 0, ended.err
    array, found, *_ = read(folder / "stack_Probabilities.h5")
    assert (found, array.shape) == (axes, shape)
    whole = expected(folder, "z.ilp", "stack.tif")[None]  # (t, c, z, y, x)
    regions = {3: np.s_[:, 0:1, 2:6, 5:25, 6:36], 4: np.s_[:, 1:2, 2:6, 5:25, 6:36], 5: np.s_[:, :, 2:, :, :36]}
    number = [w for w in words if "cutout" in w]
    key = 0 if not number else 3 if "(2,5" in number[0] else 4 if "(0,1" in number[0] else 5
    part = whole[regions[key]] if key else whole
    order = ["tczyx".index(a) for a in axes]
    rest = [i for i in range(5) if i not in order]
    np.testing.assert_array_equal(array, part.transpose(*order, *rest).reshape(shape))


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{dataset_dir}/x_{nickname}_{result_type}", "x_a_Probabilities.h5"),
        ("{dataset_dir}/deep/er/{nickname}.tif", "deep/er/a.h5"),
        ("{dataset_dir}/{x_start}-{x_stop}_{y_stop:04}_{c_stop}", "0-112_0096_2.h5"),
        ("{dataset_dir}/{roi}", f"[(0, 0, 0), ({HEIGHT}, {WIDTH}, 2)].h5"),
        ("{dataset_dir}/v1.5", "v1.h5"),  # what follows the last dot is a suffix, as in ilastik
    ],
)
def test_names(folder, template, name):
    ended = predict(folder, f"--output_filename_format={template}")
    assert ended.code == 0 and Path(ended.out.strip()) == folder / name
    assert (folder / name).is_file()


def test_inner_paths_of_images_and_results(folder):
    with h5py.File(folder / "in.h5", "w") as file:
        file["volume/data"], file["other"] = IMAGE, IMAGE
    name = "in.h5/volume/data"
    assert predict(folder, "--output_internal_path=/results/p", "--input_axes=yx", image=name).code == 0
    path = folder / "in-volume-data_Probabilities.h5"
    assert predict(folder, "--output_internal_path=second", "--input_axes=yx", image=name).code == 0  # beside the first
    again = predict(folder, "--output_internal_path=second", "--input_axes=yx", image=name)
    assert again.code == 2 and "expected a new output" in again.err
    with h5py.File(path, "r") as file:
        assert file["results/p"].shape == (HEIGHT, WIDTH, 2) and list(file) == ["results", "second"]


@pytest.mark.parametrize(
    ("format", "suffix", "source"),
    [
        ("hdf5", "h5", "Probabilities"),
        ("numpy", "npy", "Probabilities"),
        ("tiff", "tiff", "Probabilities"),
        ("tif", "tif", "Simple Segmentation"),
        ("multipage tiff", "tiff", "Probabilities"),
        ("png", "png", "Simple Segmentation"),
    ],
)
def test_formats_of_planes(folder, format, suffix, source):
    assert predict(folder, f"--output_format={format}", f"--export_source={source}").code == 0
    path = folder / f"a_{source}.{suffix}"
    p = expected(folder)
    if format == "hdf5":
        array, _, _, compression = read(path)
        assert compression is None
    elif format == "numpy":
        array = np.load(path)
    elif format == "png":
        array = np.asarray(Pillow.open(path))
    else:
        with tifffile.TiffFile(path) as tif:
            array, axes = tif.asarray(), tif.series[0].axes
            assert tif.is_ome == (format == "multipage tiff")
        assert axes == {"tiff": "YXS", "tif": "YX", "multipage tiff": "CYX"}[format]
    wanted = np.moveaxis(p, 0, -1) if source == "Probabilities" else (p.argmax(axis=0) + 1).astype(np.uint8)
    wanted = p if format == "multipage tiff" else wanted
    np.testing.assert_array_equal(array, wanted)
    assert array.dtype == wanted.dtype


@pytest.mark.parametrize("source", ["Probabilities", "Simple Segmentation"])
def test_formats_of_stacks(folder, source):
    options = {"project": "z.ilp", "image": "stack.tif"}
    for format in ("multipage tiff", "single-scale OME-Zarr"):
        assert predict(folder, f"--output_format={format}", f"--export_source={source}", **options).code == 0
    p = expected(folder, "z.ilp", "stack.tif")
    wanted = p.transpose(1, 0, 2, 3) if source == "Probabilities" else (p.argmax(axis=0) + 1).astype(np.uint8)
    with tifffile.TiffFile(folder / f"stack_{source}.tiff") as tif:
        assert tif.series[0].axes == ("ZCYX" if source == "Probabilities" else "ZYX")
        np.testing.assert_array_equal(tif.asarray(), wanted)
    group = zarr.open_group(folder / f"stack_{source}.zarr", mode="r", zarr_format=2)
    [scale] = group.attrs["multiscales"]
    assert scale["version"] == "0.4" and [a["name"] for a in scale["axes"]] == list("tczyx")
    array = np.asarray(group["s0"])
    assert array.shape == (1, 2 if source == "Probabilities" else 1, 7, 30, 40)
    np.testing.assert_array_equal(array[0].transpose(1, 0, 2, 3).reshape(wanted.shape), wanted)


def test_a_part_lies_where_it_was_cut_out(folder):
    words = ["--output_format=single-scale OME-Zarr", "--cutout_subregion=[(2,5,6,0),(6,25,36,2)]"]
    assert predict(folder, *words, project="z.ilp", image="stack.tif").code == 0
    [scale] = zarr.open_group(folder / "stack_Probabilities.zarr", mode="r", zarr_format=2).attrs["multiscales"]
    assert scale["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0] * 5},
        {"type": "translation", "translation": [0.0, 0.0, 2.0, 5.0, 6.0]},
    ]


@pytest.mark.parametrize(
    ("dtype", "result", "export", "wanted"),
    [
        ("uint8", (0.0, 1.0), (0, 255), [0, 64, 128, 255]),  # rounded to even
        ("uint8", None, None, [0, 0, 0, 1]),  # cut off
        ("uint16", (0.0, 1.0), (100, 1100), [100, 350, 600, 1100]),
        ("float64", (0.0, 0.5), (0, 1), [0, 0.5, 1, 2]),
        ("int16", (0.5, 0.5), (7, 9), [7, 7, 7, 7]),
    ],
)
def test_conversion(dtype, result, export, wanted):
    values = np.array([0, 0.25, 0.5, 1], np.float32)
    got = converted(values, np.dtype(dtype), result, export)
    assert got.dtype == dtype and got.tolist() == wanted


def test_dtype_and_ranges(folder):
    words = ["--export_dtype=uint8", "--pipeline_result_drange=(0.0,1.0)", "--export_drange=(0,255)"]
    assert predict(folder, *words).code == 0
    array, _, attributes, _ = read(folder / "a_Probabilities.h5")
    np.testing.assert_array_equal(
        array, np.rint(np.moveaxis(expected(folder), 0, -1) * np.float32(255)).astype(np.uint8)
    )
    assert attributes["drange"].tolist() == [0, 255] and attributes["drange"].dtype == np.uint8


def test_files_without_axes_have_those_of_the_project(folder):
    np.save(folder / "stack.npy", STACK[..., None])
    ended = predict(folder, project="z.ilp", image="stack.npy")
    assert ended.code == 0 and "no axes in the file, taken as zyxc, as in the project" in ended.err
    array, axes, *_ = read(folder / "stack_Probabilities.h5")
    assert axes == "zyxc"
    np.testing.assert_array_equal(array, np.moveaxis(expected(folder, "z.ilp", "stack.tif"), 0, -1))
    for words in (["--ignore_training_axistags"], ["--input_axes=zyx"]):
        ended = predict(folder, *words, project="z.ilp", image="stack.npy")
        assert ended.code == 3 and "expected axes" in ended.err


def test_what_is_not_typed_is_as_the_project_was_set(folder):
    settings = {
        "OutputFormat": b"hdf5",
        "OutputFilenameFormat": b"out/{nickname}",
        "OutputInternalPath": b"volume/p",
        "OutputAxisOrder": b"cyx",
        "ExportDtype": b"uint8",
        "InputMin": 0.0,
        "InputMax": 1.0,
        "ExportMin": 0,
        "ExportMax": 100,
        "RegionStart": [10, -1, -1],
        "RegionStop": [40, 50, -1],
    }
    with h5py.File(folder / "p.ilp", "r+") as file:
        for name, value in settings.items():
            file[f"Prediction Export/{name}"] = value
    ended = predict(folder)
    assert ended.code == 0, ended.err
    whole = np.rint(expected(folder) * np.float32(100)).astype(np.uint8)
    with h5py.File(folder / "out" / "a.h5", "r") as file:  # beside the project
        assert file["volume/p"].compression is None
        np.testing.assert_array_equal(file["volume/p"], whole[:, 10:40, :50])
    words = [
        "--output_format=numpy",
        "--cutout_subregion=[(0,0,0),(5,6,2)]",
        "--output_axis_order=yxc",
        "--export_drange=(0,10)",
    ]
    assert predict(folder, *words, "--pipeline_result_drange=(0,1)").code == 0
    part = np.rint(np.moveaxis(expected(folder), 0, -1)[:5, :6] * np.float32(10)).astype(np.uint8)
    np.testing.assert_array_equal(np.load(folder / "out" / "a.npy"), part)


def test_many_images_and_a_bad_one(folder):
    Pillow.fromarray(IMAGE[:50]).save(folder / "b.png")
    Pillow.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "rgb.png")
    ended = call(
        "predict", f"--project={folder / 'p.ilp'}", folder / "a.png", folder / "rgb.png", folder / "b.png", "--json"
    )
    assert ended.code == 3 and "expected 1 channel(s)" in ended.err
    document = ended.json()
    assert [Path(p).name for p in document["outputs"]] == ["a_Probabilities.h5", "b_Probabilities.h5"]
    assert [Path(f["input"]).name for f in document["failed"]] == ["rgb.png"]


def test_dry_run_writes_nothing(folder):
    before = sorted(folder.iterdir())
    ended = predict(folder, "--dry-run", "--export-source", "Simple Segmentation")
    assert ended.code == 0
    assert f"a_Simple Segmentation.h5: y={HEIGHT} x={WIDTH} c=1 uint8" in ended.out
    assert sorted(folder.iterdir()) == before


def test_existing_results_stay_without_overwrite(folder):
    assert predict(folder).code == 0
    before = (folder / "a_Probabilities.h5").read_bytes()
    again = predict(folder)
    assert again.code == 2 and "expected a new output" in again.err
    assert (folder / "a_Probabilities.h5").read_bytes() == before
    assert predict(folder, "--overwrite").code == 0


def test_a_file_of_another_kind_is_replaced_only_with_overwrite(folder):
    (folder / "a_Probabilities.h5").write_bytes(b"no HDF5")
    ended = predict(folder)
    assert ended.code == 2 and "expected a new output" in ended.err
    assert (folder / "a_Probabilities.h5").read_bytes() == b"no HDF5"
    assert predict(folder, "--overwrite").code == 0
    assert read(folder / "a_Probabilities.h5")[0].shape == (HEIGHT, WIDTH, 2)


def test_a_missing_image_is_told_as_such(folder):
    ended = predict(folder, image="gone.png")
    assert ended.code == 3 and "expected an image at" in ended.err and "no axes in the file" not in ended.err


REFUSED = [
    (
        ["--export_source=Labels"],
        r"expected the export source Probabilities, Simple Segmentation, Uncertainty, Features, found",
    ),
    (["--output_format=n5"], "found 'n5', one that ilastik alone writes; choose"),
    (["--output_format=png sequence"], "one that ilastik alone writes"),
    (["--output_format=jp2"], "found 'jp2', another; choose"),
    (["--output_format=png"], r"expected up to 4 channels of uint8, or one of uint16, for PNG, found 2 of float32"),
    (["--export_dtype=float16"], "expected the export dtype uint8,"),
    (["--export_drange=(0,255)"], "expected both ranges"),
    (["--pipeline_result_drange=0..1", "--export_drange=(0,255)"], "expected --pipeline-result-drange as"),
    (["--export_drange=(0,1,2)", "--pipeline_result_drange=(0,1)"], 'expected --export-drange as "(0.0, 1.0)", found'),
    (["--cutout_subregion=nonsense("], "expected --cutout-subregion as"),
    (["--cutout_subregion=[(0,0),(1,1)]"], "expected a subregion with start and stop along y, x, c"),
    (["--cutout_subregion=[(0,0,0),(96,112)]"], "found 3 and 2 numbers"),
    (["--cutout_subregion=[(96,0,0),(200,9,1)]"], "expected a subregion inside the image, found nothing along y"),
    (["--cutout_subregion=__import__('os').getcwd()"], "expected --cutout-subregion as"),
    (["--output_axis_order=yx"], "expected an order of axes with c, which has more than one value, found 'yx'"),
    (["--output_axis_order=yxq"], "expected axes as different letters of tczyx, found 'yxq'"),
    (["--output_filename_format={dataset_dir}/{slice_index}"], "expected the placeholders {dataset_dir}, "),
    (["-o", "x.tif"], "expected ilastik's options with --project, found also -o; leave it out"),
    (["--kind", "labels"], "found also --kind"),
    (["--prediction_mask", "m.png"], "--prediction_mask"),
    (["--retrain"], "--retrain"),
    (["--export_sorce=Probabilities"], "--export_sorce"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda v: v[0] if isinstance(v, list) else None)
def test_what_is_not_understood_is_refused(folder, words, message):
    """Where ilastik goes on with defaults: a misspelt option, a range alone."""
    before = sorted(folder.iterdir())
    ended = predict(folder, *words)
    assert ended.code == 2 and message in ended.err, ended.err
    assert sorted(folder.iterdir()) == before


def test_planes_only_for_flat_formats(folder):
    ended = predict(folder, "--output_format=tiff", project="z.ilp", image="stack.tif")
    assert ended.code == 2 and "expected one plane for the format tiff" in ended.err


def test_two_images_never_share_a_file(folder):
    Pillow.fromarray(IMAGE).save(folder / "a.b.png")
    Pillow.fromarray(IMAGE).save(folder / "a.c.png")
    ended = call("predict", f"--project={folder / 'p.ilp'}", folder / "a.b.png", folder / "a.c.png")
    assert ended.code == 2 and "expected a file for each image, found the same one for" in ended.err
    ended = call(
        "predict",
        f"--project={folder / 'p.ilp'}",
        folder / "a.npy",
        "--input_axes=yx",
        "--output_format=numpy",
        "--output_filename_format={dataset_dir}/{nickname}",
    )
    assert ended.code == 2 and "expected outputs apart from the images" in ended.err


def test_words_without_a_project_or_images(folder):
    ended = call("predict", folder / "a.png", "--export_source=Probabilities", "--headless")
    assert (
        ended.code == 2 and "expected --project PROJECT.ilp with --export-source, --headless, found none" in ended.err
    )
    ended = call("predict", f"--project={folder / 'p.ilp'}")
    assert ended.code == 2 and "expected images, found none" in ended.err
    ended = call("predict", folder / "a.png")
    assert ended.code == 2 and "expected an output, found none" in ended.err
