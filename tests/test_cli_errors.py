"""Everything a command refuses: its exit code, one message that says what was expected, what was found and what to do, nothing on
stdout, no traceback, and nothing left on the disk.
"""

import re
import shlex
from pathlib import Path

import pytest

from bad_files import write_bad_files
from command_line import call, tree

TRAIN = "train a.features.ome.zarr -o out.forest --labels"
PREDICT = "predict a.tif -o out.tif --forest"
STORE = "predict {}.features.ome.zarr -o out.tif --forest a.forest"
RUN = "predict a.tif -o out.tif --package"

ROWS: list[tuple[str, int, str]] = [
    # images
    ("info nothing.tif", 3, r"expected an image at nothing.tif, found nothing there; check the path"),
    ("extract nan.npy -o out.features.ome.zarr", 3, r"expected finite pixels, found 1 NaN or infinite .* --nan VALUE"),
    ("predict inf.npy --forest a.forest -o out.tif", 3, r"expected finite pixels, found 1 NaN or infinite"),
    ("info no_pixels.npy", 3, r"expected at least one pixel along each axis, found Y=0 X=5; check"),
    ("info empty.tif", 3, r"empty.tif: expected an image, found an empty file"),
    ("info imagej.tif", 3, r"imagej.tif: expected .*found .*cut off"),
    ("extract zlib.tif -o out.features.ome.zarr", 3, r"zlib.tif: expected .*found .*copy or export it again"),
    ("extract plain.tif -o out.features.ome.zarr", 3, r"plain.tif: expected .*found .*cut off"),
    ("extract picture.png -o out.features.ome.zarr", 3, r"expected a whole picture, found one that ends early"),
    ("extract large.npy -o out.features.ome.zarr", 3, r"large.npy: expected .*2\^24|16777216"),
    ("info complex.npy", 3, r"expected real pixels, found complex ones \(complex64\); save the magnitude"),
    ("info text.npy", 3, r"text.npy: expected .*found"),
    ("extract no_axes.tif -o out.features.ome.zarr", 3, r"expected axes with a name, found shape .* --axes ZYX or"),
    ("info a.tif --axes ZYX", 3, r"expected axes as 2 different letters .* found 'ZYX'; write for example --axes YX"),
    ("info a.tif --axes YY", 3, r"expected axes as 2 different letters .* found 'YY'"),
    ("info a.tif --axes YQ", 3, r"expected axes as 2 different letters .* found 'YQ'"),
    ("info palette.png", 3, r"palette.png: expected .*found .*palette.*; convert"),
    ("info words.tif", 3, r"words.tif: expected TIFF, .* found a file of another kind; convert it to OME-TIFF"),
    ("info folder", 3, r"expected an image file or an OME-Zarr folder, found a folder without .* for example a.tif"),
    ("info file.zarr", 3, r"file.zarr: expected .*found .*an OME-Zarr image is a folder"),
    (
        "info data.h5",
        3,
        r"data.h5: expected an HDF5 image .*, found a file that cannot be opened as such .*; copy it again",
    ),
    ("info other.zarr", 3, r"other.zarr: expected .*found"),
    ("info list.zarr", 3, r"expected an OME-Zarr image, found Zarr metadata that cannot be read .*; copy the folder"),
    ("info plate.zarr", 3, r"expected one image, found a plate of wells; give the path of one .* plate.zarr/A/1/0"),
    ("info words.zarr", 3, r"expected an OME-Zarr image, found a Zarr folder without `multiscales`; give"),
    ("info a.tif --scene 3", 3, r"expected .*scene.*found|expected the number of one image"),
    ("extract rgb.tif -o out.features.ome.zarr --channels 3", 3, r"rgb.tif: expected .*channel.*found .*3"),
    (
        "extract a.tif -o out.features.ome.zarr --3d",
        3,
        r"expected at least 3 planes for 3D filters, found 1; .*without --3d",
    ),
    (
        "predict rgb.tif --forest a.forest -o out.tif",
        3,
        r"expected 1 channel\(s\) .* found 3; choose them with --channels",
    ),
    ("predict rgb.tif --package good.zip -o out.tif", 3, r"expected 1 channel\(s\) for the package .* found 3; choose"),
    (
        "extract a.tif rgb.tif b.tif -o out",
        3,
        r"expected images with the same channels and dtype .* found rgb.tif \(3 of",
    ),
    (
        "extract a.tif x.tif b.tif y.tif -o out",
        3,
        r"expected 4 inputs, found nothing at 2 of them: x.tif, y.tif; check",
    ),
    (
        "extract a.tif folder/a.tif -o out",
        3,
        r"expected files with different names, .* found a.tif, folder/a.tif; rename",
    ),
    ("predict a.tif folder/a.tif -o out --forest a.forest", 3, r"expected files with different names"),
    ("labels new empty.tif -o out.tif", 3, r"expected an image, found an empty file"),
    (
        "labels new a.tif -o out.jpg",
        3,
        r"expected a label file of the type .tif, .tiff, .npy, .png, found .jpg; choose",
    ),
    ("labels new stack.tif -o out.png", 3, r"expected 2D labels .* for a PNG, found ZYX .*; write a .tif"),
    # labels
    (f"{TRAIN} nothing.tif", 3, r"nothing.tif: expected a label file, found nothing there; check the path"),
    (f"{TRAIN} negative_labels.npy", 3, r"expected labels ≥ 0, found the negative values \[-3, .*; set them to 0, or"),
    (f"{TRAIN} half_labels.npy", 3, r"expected whole numbers, found \d+ pixels with fractions .*; convert"),
    (f"{TRAIN} one_class_labels.npy", 3, r"expected at least two classes, found only 'class 1' .*; add a second class"),
    (f"{TRAIN} nothing_labels.npy", 3, r"expected painted pixels, found nothing labelled: .*; paint a few strokes"),
    (f"{TRAIN} transposed_labels.npy", 3, r"size of .* found .*; they fit with other axes: .*\(--label-axes XY\)"),
    (f"{TRAIN} small_labels.npy", 3, r"expected labels of the size .* Y=96 X=112, found Y=50 X=50; paint on"),
    (f"{TRAIN} instance_labels.npy", 3, r"expected at most 255 classes, found 399; this looks like an instance mask"),
    (
        f"{TRAIN} ignore_labels.npy",
        3,
        r"expected class numbers 1, 2, …, found also 255 .*; leave it out with --ignore 255",
    ),
    (f"{TRAIN} huge_labels.npy", 3, r"huge_labels.npy: expected .*found"),
    (f"{TRAIN} stack_labels.npy", 3, r"stack_labels.npy: expected labels of the size .* found"),
    (f"{TRAIN} colour_labels.png", 3, r"colour_labels.png: expected .*found"),
    (f"{TRAIN} labels.txt", 3, r"expected labels as .tif, .* found .txt; save them as TIFF or PNG"),
    (f"{TRAIN} broken.geojson", 3, r"broken.geojson: expected .*found"),
    (f"{TRAIN} folder", 3, r"folder: expected a label file or an OME-Zarr folder, found another folder; give the file"),
    (
        f"{TRAIN} a_labels.tif --slice 3",
        3,
        r"expected labels without z or frames beside a plane, found .*; leave the plane",
    ),
    (f"{TRAIN} a_labels.tif --names one", 3, r"expected .*found .*one"),
    (
        f"{TRAIN} a_labels.tif --names one one",
        3,
        r"expected different, non-empty class names, found \['one', 'one'\]; rename",
    ),
    (f"{TRAIN} a_labels.tif transposed_labels.npy", 3, r"transposed_labels.npy: expected labels of the size"),
    ("train stack.tif --labels a_labels.tif -o out.forest", 3, r"a_labels.tif: expected .*found .*"),
    (
        "train a.tif b.tif --labels a_labels.tif -o out.forest",
        2,
        r"expected one label file for each of the 2 sources, found 1",
    ),
    (
        "train undone.features.ome.zarr --labels a_labels.tif -o out.forest",
        4,
        r"expected a store that is done, found 0 of 1",
    ),
    (
        "train undone.features.ome.zarr --labels a_labels.tif -o out.forest --allow-partial",
        4,
        r"expected features at all points, found that 1 shard\(s\) .* are not extracted yet: y0.x0; go on with: forestbridge extract",
    ),
    ("labels stats broken.geojson --image a.tif", 3, r"broken.geojson: expected .*found"),
    (
        "labels stats broken.geojson",
        3,
        r"expected the image that the annotations belong to, found none given; .*--image",
    ),
    ("labels stats x.tif y.tif", 3, r"expected 2 inputs, found nothing at 2 of them: x.tif, y.tif; check the paths"),
    # stores
    (STORE.format("b"), 4, r"forest expects the features of filters \[.*found|has those of filters .* --like a.forest"),
    (STORE.format("nothing"), 4, r"expected a feature store at nothing.* found nothing; make one with"),
    (STORE.format("no_metadata"), 4, r"expected .*zarr.json.*found|the root group of a feature store"),
    (STORE.format("garbled"), 4, r"expected .*found.*"),
    (STORE.format("newer"), 4, r"expected store format 1, found 99 .*; update forestbridge"),
    (STORE.format("no_chunk"), 4, r"expected all features .* found 1 shard\(s\) .* without a file.*y0.x0; .*--repair"),
    (STORE.format("corrupt"), 4, r"expected intact features .* found shard y0.x0 .* damaged .*--repair"),
    (STORE.format("truncated"), 4, r"expected intact features .* found shard y0.x0 .* damaged .*--repair"),
    (STORE.format("undone"), 4, r"expected a store that is done, found 0 of 1 shards"),
    ("verify nothing", 4, r"expected the folder of a feature store .* found none at nothing; check the path"),
    ("verify other.zarr", 4, r"expected a feature store, found that other.zarr is another zarr; make a store with"),
    ("verify newer.features.ome.zarr", 4, r"expected store format 1, found 99"),
    ("info garbled.features.ome.zarr", 4, r"expected .*found"),
    ("extract a.tif -o a.features.ome.zarr", 4, r"store a.features.* has those of filters .*; give another path"),
    (
        "extract b.tif -o a.features.ome.zarr --scales 1",
        4,
        r"expected the image whose features .* found other pixels in shard",
    ),
    (
        "extract stack.tif -o a.features.ome.zarr --scales 1",
        4,
        r"expected the image of store .* \(a.tif\), found another one",
    ),
    (
        "extract a.tif -o locked.features.ome.zarr --scales 1",
        4,
        r"expected to be the only writer .* found process \d+ on",
    ),
    ("extract a.tif -o other.zarr", 2, r"expected .*found that other.zarr"),
    ("extract a.tif -o a.forest", 2, r"expected .*found that a.forest"),
    (
        "extract a.tif -o no/such/out.features.ome.zarr",
        6,
        r"expected the folder .*no/such for .* found none; make it first",
    ),
    (
        "extract a.tif -o out.features.ome.zarr --like b.tif",
        4,
        r"expected a store .* for --like, found b.tif; give one of",
    ),
    ("extract rgb.tif -o out.features.ome.zarr --like a.forest", 3, r"expected 1 channel\(s\) .* found 3; choose them"),
    (
        "train a.features.ome.zarr b.features.ome.zarr --labels a_labels.tif a_labels.tif -o out.forest",
        4,
        r"the first image expects the features .* --like a.features.ome.zarr",
    ),
    # forests and packages
    (f"{PREDICT} nothing.forest", 3, r"expected a forest file, found nothing at nothing.forest; check the path"),
    (f"{PREDICT} folder", 3, r"expected a forest file, found a folder at folder; check the path"),
    (
        f"{PREDICT} cut.forest",
        3,
        r"expected a safetensors file, found cut.forest, which cannot be read .*; copy it again",
    ),
    (f"{PREDICT} empty.forest", 3, r"expected a safetensors file, found empty.forest"),
    (f"{PREDICT} newer.forest", 3, r"expected forest format 1 .* found 9 .*; update forestbridge to read it"),
    (
        f"{PREDICT} pickle.forest",
        3,
        r"expected a forest saved by forestbridge, found .* looks like a pickle .* Convert it",
    ),
    (
        "info strange.forest",
        3,
        r"expected a forest with a forestbridge header, found the safetensors file .* without one",
    ),
    (f"{PREDICT} volume.forest", 3, r"expected at least 3 planes for 3D filters, found 1"),
    (f"{RUN} nothing.zip", 5, r"expected a package at nothing.zip, found no such file; .*download the package"),
    (f"{RUN} folder", 5, r"expected a zip, found the folder folder; zip its content"),
    (
        f"{RUN} https://example.org/a.zip",
        5,
        r"expected a package on this machine, found the address https:/.*download it",
    ),
    (f"{RUN} words.zip", 5, r"expected a zip, found a file that does not begin like one"),
    (f"{RUN} no_rdf.zip", 5, r"expected exactly one description, rdf.yaml, .* found none \(the zip holds: README.md"),
    (f"{RUN} no_weights.zip", 5, r"no_weights.zip: .*weights.onnx.*expected|expected .*weights.onnx.* found"),
    (f"{RUN} wrong_hash.zip", 5, r"expected .*0{64}.*found"),
    (f"{RUN} tabs.zip", 5, r"rdf.yaml line 2: expected spaces, found a tab"),
    (f"{RUN} opset.zip", 5, r"expected an ONNX graph of at most ai.onnx opset \d+, .* found opset 99; update"),
    (f"{RUN} channels.zip", 5, r"channels.zip: .*expected .*found"),
    (f"{RUN} no_onnx.zip", 5, r"expected ONNX weights, found .*torchscript"),
    (f"{RUN} good.zip --device cuda", 6, r"expected a GPU for device='cuda', found the providers .*; use device='cpu'"),
    (f"{RUN} good.zip --device tpu", 2, r"expected .*found .*tpu"),
    (
        "predict a.features.ome.zarr --package good.zip -o out.tif",
        3,
        r"expected an image for a package, found the feature",
    ),
    ("package inspect words.zip", 5, r"expected a zip, found a file that does not begin like one"),
    ("package check words.zip", 5, r"expected a zip, found a file that does not begin like one"),
    ("package fused a.forest --image rgb.tif -o out.zip", 3, r"rgb.tif: expected 1 channel\(s\) .* found 3"),
    ("package fused a.forest --image nothing.tif -o out.zip", 3, r"expected an image at nothing.tif, found nothing"),
    ("package fused deep.forest -o out.zip", 3, r"expected .*depth.*10.*found|expected a forest .*10.*found"),
    ("package fused cut.forest -o out.zip", 3, r"expected a safetensors file, found cut.forest"),
    ("package fused a.forest -o out.pkg", 2, r"expected a package named NAME.zip, found out.pkg; give -o out.zip"),
    (
        "package forest a.forest -o out.zip --formats onnx keras",
        2,
        r"expected weight formats of onnx, torchscript, found keras",
    ),
    ("package fused a.forest -o good.zip", 2, r"expected a new output, found that good.zip exists; .*--overwrite"),
    ("package build no_recipe -o out.zip", 5, r"expected .*recipe.toml.*found"),
    ("package build no_toml -o out.zip", 5, r"recipe.toml.*expected|expected .*recipe.toml.*found"),
    ("package build recipe -o out.zip", 5, r"expected the tables .* found .*image"),
    ("package build recipe -o out.pkg", 2, r"expected a package named NAME.zip, found out.pkg"),
    # outputs that are there, or cannot be
    (
        "train a.features.ome.zarr --labels a_labels.tif -o a.forest",
        2,
        r"expected a new output, found that a.forest exists",
    ),
    (
        "train a.features.ome.zarr --labels a_labels.tif -o a_labels.tif --overwrite",
        2,
        r"expected a forest named NAME.forest",
    ),
    ("train a.tif --labels a_labels.tif -o no/out.forest", 6, r"expected the folder .*no for out.forest, found none"),
    ("predict a.tif --forest a.forest -o b.tif", 2, r"expected a new output, found that b.tif exists; .*--overwrite"),
    (
        "predict a.tif --forest a.forest -o a.tif --overwrite",
        2,
        r"expected outputs apart from the inputs, found that a.tif",
    ),
    ("labels new a.tif -o a.tif --overwrite", 2, r"expected outputs apart from the inputs, found that a.tif is both"),
    ("labels new a.tif -o a_labels.tif", 2, r"expected a new output, found that a_labels.tif exists"),
    (
        "predict a.tif --forest a.forest -o no/out.tif",
        6,
        r"expected the folder .*no for out.tif, found none; make it first",
    ),
    (
        "predict a.tif --forest a.forest -o out.bmp",
        2,
        r"expected a result named with one of .ome.tif, .* found out.bmp; add",
    ),
    (
        "predict a.tif --forest a.forest -o out.png --kind uncertainty",
        2,
        r"expected one plane of labels .* found axes YX of",
    ),
    ("predict stack.tif --forest a.forest -o out.png", 2, r"expected one plane of labels .* found axes ZYX"),
    (
        "predict a.tif b.tif --forest a.forest -o out.tif",
        2,
        r"expected a folder for the outputs of 2 inputs, found the file",
    ),
    (
        "extract a.tif b.tif -o a.forest",
        2,
        r"expected a folder for the outputs of 2 inputs, found the file name a.forest",
    ),
    (
        "predict a.tif b.tif --forest a.forest -o folder --suffix .tif",
        2,
        r"found 1 that exist: folder/a.tif; give another",
    ),
    ("predict a.tif b.tif --forest a.forest -o out --suffix .bmp", 2, r"expected a result named with one of"),
    # options that do not go together
    ("predict a.tif -o out.tif", 2, r"expected either --forest or --package, found none; give one of them"),
    (
        f"{PREDICT} a.forest --package good.zip",
        2,
        r"expected either --forest or --package, found both; give one of them",
    ),
    (f"{PREDICT} good.zip", 2, r"expected a forest \(.forest\) for --forest, found good.zip; give it with --package"),
    (f"{RUN} a.forest", 2, r"expected a package \(.zip\) for --package, found a.forest; give it with --forest"),
    (f"{RUN} good.zip --jobs 2", 2, r"expected --jobs with --forest only, found --package; leave it out: onnxruntime"),
    (f"{PREDICT} a.forest --tile 64", 2, r"expected --tile with --package only, found --forest; leave it out"),
    (
        f"{STORE.format('a')} --axes YX",
        2,
        r"expected --axes with images only, found the feature store a.features.*; leave",
    ),
    (f"{TRAIN} a_labels.tif --3d", 2, r"expected --3d with images only, found the feature store"),
    (
        f"{TRAIN} a_labels.tif --preset nice",
        2,
        r"expected one of the presets default, featureforest, ilastik, found 'nice'",
    ),
    (
        "extract a.tif -o out.features.ome.zarr --encoder sam",
        2,
        r"expected one of the encoders filters, mobile_sam, .*, found 'sam'; choose",
    ),
    ("extract a.tif -o out.features.ome.zarr --scales -1", 2, r"expected different scales > 0 .* found \[-1.0\]"),
    (
        "extract a.tif -o out.features.ome.zarr --like a.forest --3d",
        2,
        r"expected --like alone, .* found also --3d; leave",
    ),
]

USAGE: list[tuple[str, str]] = [
    (
        "extrct a.tif",
        r"forestbridge: No such command 'extrct'. Did you mean 'extract', 'export'\?; see: forestbridge --help",
    ),
    (
        "extract a.tif --ouput x",
        r"forestbridge extract: No such option: --ouput \(Possible options: --output\); see: forestbridge extract --help",
    ),
    ("extract a.tif", r"forestbridge extract: Missing option '--output' / '-o'; see: forestbridge extract --help"),
    ("extract -o out", r"forestbridge extract: Missing argument 'images' \(arguments come first: an option shown with"),
    (
        "train --labels a_labels.tif a.tif -o out.forest",
        r"forestbridge train: Missing argument 'sources' \(arguments come first",
    ),
    ("extract a.tif -o out --jobs 0", r"Invalid value for '--jobs' / '-j': Input should be greater than or equal to 1"),
    ("extract a.tif -o out --scales wide", r"Invalid value for '--scales': Input should be a valid number"),
    ("extract a.tif -o", r"Option '-o' requires an argument"),
    ("train a.tif --labels a_labels.tif -o out.forest --max-depth deep", r"Invalid value for '--max-depth'"),
    ("train a.tif --labels a_labels.tif -o out.forest --seed -1", r"Invalid value for '--seed'"),
    ("predict a.tif -o out.tif --forest a.forest --kind masks", r"Invalid value for '--kind': .*masks"),
    ("info", r"forestbridge info: Missing argument 'path'"),
    ("info a.tif b.tif", r"forestbridge info: Got unexpected extra argument.*b.tif"),
    ("package fuse a.forest", r"forestbridge package: No such command 'fuse'. Did you mean 'fused'"),
    ("labels sats", r"forestbridge labels: No such command 'sats'. Did you mean 'stats'"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad files."""
    path = tmp_path_factory.mktemp("files")
    write_bad_files(path)
    return path


@pytest.mark.parametrize("line, code, message", ROWS, ids=[row[0] for row in ROWS])
def test_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int, message: str) -> None:
    monkeypatch.chdir(folder)
    before = tree(folder)
    ended = call(*shlex.split(line))
    assert tree(folder) == before
    assert ended.out == ""
    assert "Traceback" not in ended.err
    last = ended.err.rstrip("\n").split("\n")[-1]
    assert last.startswith("forestbridge: ")
    assert re.search(message, last), last
    assert re.search(r"expect(ed|s) .*(found|has those)", last), last
    assert ended.code == code


@pytest.mark.parametrize("line, message", USAGE, ids=[row[0] for row in USAGE])
def test_wrong_use(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str) -> None:
    monkeypatch.chdir(folder)
    before = tree(folder)
    ended = call(*shlex.split(line))
    assert (ended.code, ended.out, tree(folder)) == (2, "", before)
    assert re.search(message, ended.err), ended.err
    assert ended.err.count("\n") == 1, "the message is on one line, whatever the width of the terminal"
