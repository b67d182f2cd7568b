"""Forests to ilastik projects: what was written is read back, by us and by vigra, and decides the same."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import call
from forestbridge.errors import ForestError, ImageError, LabelError, OutputExistsError
from forestbridge.forest import PixelForest
from forestbridge.ilastik.vigra_forest import above_float32, below_float32
from forestbridge.train import train
from small_encoders import pooling_encoder
from small_line import CELLS, STACK, STAINED, small_encoder, small_forest
from vigra_here import require_vigra, run_vigra


def picture_of(kind: str) -> tuple[fb.Image, fb.Scribbles]:
    phantom = {"cells": CELLS, "stained": STAINED, "stack": STACK}[kind]
    axes = {"cells": "YX", "stained": "CYX", "stack": "CZYX"}[kind]
    return fb.as_image(phantom.image, axes=axes), fb.as_scribbles(phantom.scribbles, names=phantom.names)


@pytest.mark.parametrize("kind", ["cells", "stained", "stack"])
def test_round_trip(tmp_path, kind):
    forest, (image, scribbles) = small_forest(kind), picture_of(kind)
    path = fb.write_project(tmp_path / "a.ilp", forest, [(image, scribbles)])
    project = fb.read_project(path)
    again = project.pixel_forest()
    assert again.spec == forest.spec and again.names == forest.names and again.colours == forest.colours
    [(read, labels)] = project.training_pairs()
    np.testing.assert_array_equal(labels.points, scribbles.points)
    np.testing.assert_array_equal(labels.values, scribbles.values)
    assert labels.names == scribbles.names
    for z in range(image.sizes["Z"]):
        np.testing.assert_array_equal(read.plane(z=z), image.plane(z=z))
    np.testing.assert_array_equal(fb.predict(read, again), fb.predict(image, forest))


def test_what_ilastik_reads_is_there(tmp_path):
    """Names, kinds and values that ilastik's deserializers ask for."""
    forest, pair = small_forest(), picture_of("cells")
    with h5py.File(fb.write_project(tmp_path / "a.ilp", forest, [pair]), "r") as f:
        assert f["ilastikVersion"][()] == b"1.4.0" and f["workflowName"][()] == b"Pixel Classification"
        info = f["Input Data/infos/lane0000/Raw Data"]
        assert info["__class__"][()] == b"ProjectInternalDatasetInfo" and info["location"][()] == b"ProjectInternal"
        image = f[info["inner_path"][()].decode()]
        assert image.shape == (96, 112) and [a["key"] for a in json.loads(image.attrs["axistags"])["axes"]] == [
            "y",
            "x",
        ]
        assert list(f["Input Data/Role Names"]) == [b"Raw Data", b"Prediction Mask"]
        assert len(f["Input Data/infos/lane0000/Prediction Mask"]) == 0
        selection = f["FeatureSelections"]
        assert selection["SelectionMatrix"].shape == (6, 3) and selection["SelectionMatrix"].dtype == bool
        assert selection["ComputeIn2d"][()].all() and selection["Scales"][()].tolist() == [0.7, 1.0, 1.6]
        group = f["PixelClassification"]
        assert [n.decode() for n in group["LabelNames"]] == list(forest.names) and not group["LabelNames"].attrs[
            "isEmpty"
        ]
        block = group["LabelSets/labels000/block0000"]
        assert block.dtype == np.uint8 and block.chunks is None and block.ndim == 3  # y, x, c
        assert block.attrs["blockSlice"].startswith(b"[") and "axistags" in block.attrs
        forests = group["ClassifierForests"]
        assert forests["known_labels"].dtype == np.uint32 and len(forests["feature_names"]) == 6
        assert forests["pickled_type"][()].startswith(b"clazyflow.classifiers.parallelVigraRfLazyflowClassifier\n")
        assert forests["Forest0000"].attrs["vigra_random_forest_version"] == 0.1
        assert b"V_num_trees\np7\nI10\n" in group["ClassifierFactory"][()]


@pytest.mark.parametrize("kind", ["cells", "stack"])
def test_vigra_reads_what_we_write(tmp_path, kind):
    require_vigra()
    forest = small_forest(kind)
    path = fb.write_project(tmp_path / "a.ilp", forest)
    rng = np.random.default_rng(0)
    splits = np.flatnonzero(forest.feature >= 0)
    rows = rng.normal(1000, 800, (3000, forest.n_features)).astype(np.float32)
    for row in rows[:2000]:
        split = rng.choice(splits)
        row[forest.feature[split]] = forest.threshold[split]
    np.save(tmp_path / "rows.npy", rows)
    run_vigra("vigra_forests.py", path, "1", tmp_path / "rows.npy", tmp_path / "out.npy")
    found = fb.engine.predict(forest, np.ascontiguousarray(rows.T)[:, None])[:, 0].T
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), found, rtol=0, atol=1e-6)


def test_trees_are_shared_between_worker_forests(tmp_path):
    encoder = small_encoder()
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=encoder, n_trees=23, engine="sklearn")
    path = fb.write_project(tmp_path / "a.ilp", forest)
    with h5py.File(path, "r") as f:
        forests = f["PixelClassification/ClassifierForests"]
        counts = [int(forests[name]["_options/tree_count_"][0]) for name in forests if name.startswith("Forest")]
    assert counts == [8, 8, 7]
    again = fb.read_project(path).pixel_forest()
    np.testing.assert_array_equal(fb.predict(CELLS.image, again), fb.predict(CELLS.image, forest))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 1e-45, -1e-45, 3.4e38, 0.1, -123.456])
def test_thresholds_go_there_and_back(value):
    threshold = np.array([value], np.float32)
    up = above_float32(threshold)
    assert below_float32(up)[0] == threshold[0]
    beside = np.array([np.nextafter(threshold[0], np.float32(s)) for s in (-np.inf, np.inf)])
    for x in (*beside, threshold[0]):
        assert (x <= threshold[0]) == (float(x) < up[0])


def test_label_values_become_1_to_k(tmp_path):
    labels = np.where(CELLS.scribbles == 1, 7, np.where(CELLS.scribbles == 2, 40, 0)).astype(np.uint8)
    forest = train([(CELLS.image, labels)], encoder=small_encoder(), n_trees=3, engine="sklearn", names=["a", "b"])
    pair = (fb.as_image(CELLS.image), fb.as_scribbles(labels, names=["a", "b"]))
    project = fb.read_project(fb.write_project(tmp_path / "a.ilp", forest, [pair]))
    assert project.names == ("a", "b") and project.training_pairs()[0][1].classes == (1, 2)
    np.testing.assert_array_equal(fb.predict(CELLS.image, project.pixel_forest()), fb.predict(CELLS.image, forest))


def test_sparse_labels_of_a_large_image_stay_small(tmp_path):
    labels = np.zeros((3000, 3000), np.uint8)
    labels[5, 5:17], labels[2900, 2950:2962] = 1, 2
    image = fb.as_image(np.random.default_rng(0).integers(0, 99, (3000, 3000)).astype(np.uint8))
    forest = train([(image, labels)], encoder=small_encoder(), n_trees=2, engine="sklearn")
    with h5py.File(fb.write_project(tmp_path / "a.ilp", forest, [(image, fb.as_scribbles(labels))]), "r") as f:
        blocks = f["PixelClassification/LabelSets/labels000"]
        assert [blocks[name].shape for name in blocks] == [(1, 12, 1), (1, 12, 1)]
        assert blocks["block0001"].attrs["blockSlice"] == b"[2900:2901,2950:2962,0:1]"


@pytest.mark.parametrize(
    ("name", "pixels", "axes"),
    [
        ("a.tif", (CELLS.image, {}), "yx"),
        ("a.png", (CELLS.image.astype(np.uint8), {}), "yxc"),
        ("stack.tif", (np.zeros((5, 20, 30), np.uint16), {"imagej": True, "metadata": {"axes": "ZYX"}}), "zyx"),
        ("time.tif", (np.zeros((5, 20, 30), np.uint16), {"imagej": True, "metadata": {"axes": "TYX"}}), "tyx"),
        ("c.tif", (np.zeros((3, 20, 30), np.uint16), {"imagej": True, "metadata": {"axes": "CYX"}}), "cyx"),
        ("rgb.tif", (np.zeros((20, 30, 3), np.uint8), {"photometric": "rgb"}), "yxc"),
    ],
)
@pytest.mark.parametrize("images", ["embed", "link"])
def test_images_stand_as_ilastik_reads_their_files(tmp_path, name, pixels, axes, images):
    """ilastik takes the axes of a project's image for those of the files that it predicts later."""
    array, options = pixels
    if name.endswith("png"):
        from PIL import Image

        Image.fromarray(array).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, array, **options)
    image = fb.read_image(tmp_path / name)
    labels = np.zeros([image.sizes[a] for a in image.axes if a != "C"], np.uint8)
    labels[..., 2, 5:], labels[..., 4, 5:] = 1, 2
    encoder = small_encoder(channels=image.n_channels, selection={"GaussianSmoothing": [0.7]})
    forest = train([(image, labels)], encoder=encoder, n_trees=2, engine="sklearn")
    path = fb.write_project(tmp_path / "a.ilp", forest, [(image, fb.as_scribbles(labels))], images=images)
    project = fb.read_project(path)
    [lane] = project.lanes
    assert lane is not None and (lane.axes, lane.kind) == (axes, "embedded" if images == "embed" else "file")
    [(read, found)] = project.training_pairs()
    np.testing.assert_array_equal(read.plane(), image.plane())
    np.testing.assert_array_equal(
        np.stack([found.at_plane(t, z) for t, z in image.planes()]).reshape(labels.shape), labels
    )
    if images == "link":
        assert lane.path == name  # relative to the project: both can move together


def test_what_ilastik_cannot_take_is_refused(tmp_path):
    forest, (image, scribbles) = small_forest(), picture_of("cells")
    bare = PixelForest(**{**forest.__dict__, "spec": None})
    with pytest.raises(ForestError, match=r"expected a forest over the filter bank, .* found one without a spec"):
        fb.write_project(tmp_path / "a.ilp", bare)
    with pytest.raises(
        ImageError, match=r"expected 1 channel\(s\), as the forest's filters have, found 3; choose them with --channels"
    ):
        fb.write_project(tmp_path / "a.ilp", forest, [(fb.as_image(STAINED.image), None)])
    with pytest.raises(
        ImageError, match=r"expected an image file that the project can refer to, found none; leave out --link"
    ):
        fb.write_project(tmp_path / "a.ilp", forest, [(image, None)], images="link")
    strange = fb.as_scribbles(np.where(CELLS.scribbles == 1, 9, 0))
    with pytest.raises(LabelError, match=r"expected labels of the forest's classes \[1, 2, 3\], found \[9\]"):
        fb.write_project(tmp_path / "a.ilp", forest, [(image, strange)])
    with pytest.raises(ValueError, match=r"expected a project named NAME.ilp, found .*a.h5"):
        fb.write_project(tmp_path / "a.h5", forest)
    assert not list(tmp_path.iterdir())
    fb.write_project(tmp_path / "a.ilp", forest, [(image, scribbles)])
    with pytest.raises(OutputExistsError, match=r"--overwrite"):
        fb.write_project(tmp_path / "a.ilp", forest)


def test_a_forest_over_other_features_names_the_way_out(tmp_path):
    foreign = PixelForest(**{**small_forest().__dict__, "spec": pooling_encoder().spec})
    message = r"found one over pool .*; write a package \(ff-package fused\), which ilastik runs in its Neural"
    with pytest.raises(ForestError, match=message):
        fb.write_project(tmp_path / "a.ilp", foreign)


def test_command_line(tmp_path):
    forest = small_forest()
    forest.save(tmp_path / "a.forest")
    tifffile.imwrite(tmp_path / "a.tif", CELLS.image)
    tifffile.imwrite(tmp_path / "a_labels.tif", CELLS.scribbles)
    words = ["ilastik", tmp_path / "a.forest", "--image", tmp_path / "a.tif", "-o", tmp_path / "a.ilp"]
    plan = call(*words, "--dry-run", program="ff-package")
    assert plan.code == 0 and "would write" in plan.out and "no --labels given: ilastik predicts" in plan.err
    assert not (tmp_path / "a.ilp").exists()
    wrong = call("ilastik", tmp_path / "a.forest", "-o", tmp_path / "a.zip", "--dry-run", program="ff-package")
    assert wrong.code == 2 and "expected a project named NAME.ilp" in wrong.err
    np.save(tmp_path / "rgb.npy", np.zeros((3, 20, 20), np.uint8))
    other = ["--image", tmp_path / "rgb.npy", "--axes", "CYX", "-o", tmp_path / "a.ilp", "--dry-run"]
    wrong = call("ilastik", tmp_path / "a.forest", *other, program="ff-package")
    assert wrong.code == 3 and "expected 1 channel(s), as the forest's filters have, found 3" in wrong.err
    ended = call(*words, "--labels", tmp_path / "a_labels.tif", "--json", program="ff-package")
    assert ended.code == 0, ended.err
    facts = ended.json()
    assert facts["labelled_images"] == [0] and facts["forest"]["trees"] == 10
    assert [c["name"] for c in facts["classes"]] == list(forest.names)
    assert call("info", tmp_path / "a.ilp").code == 0
    again = call("ilastik", tmp_path / "a.forest", "-o", tmp_path / "b.ilp", program="ff-package")
    assert again.code == 0 and "no --image given: the project has no image" in again.err
    assert fb.read_project(Path(tmp_path / "b.ilp")).pixel_forest().n_trees == 10
    wrong = call(
        "ilastik",
        tmp_path / "a.forest",
        "--labels",
        tmp_path / "a_labels.tif",
        "-o",
        tmp_path / "c.ilp",
        program="ff-package",
    )
    assert wrong.code == 2 and "expected the image of the labels, found none" in wrong.err
    wrong = call(*words[:-1], tmp_path / "c.ilp", "--link", "--channels", "0", program="ff-package")
    assert wrong.code == 2 and "expected --link without --channels" in wrong.err
