"""ilastik projects in: images, labels of every layout, selections, forests."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import forestbridge as fb
from forestbridge import engine
from forestbridge.errors import ImageError, ProjectError
from ilp_files import FEATURES, SELECTION, encode_tree, random_tree, walk, write_forest_group, write_ilp
from small_line import CELLS
from vigra_here import require_vigra, run_vigra

PICTURE = CELLS.image[0] if CELLS.image.ndim == 3 else CELLS.image
PICTURE = PICTURE.astype(np.uint16)  # (96, 112)
HEIGHT, WIDTH = PICTURE.shape
BLOCK = np.array([[1, 0, 2], [0, 2, 2]], np.uint8)


def trees(n: int, *, seed: int, columns: int = 4, classes: int = 2, depth: int = 5):
    rng = np.random.default_rng(seed)
    return [random_tree(rng, depth, columns, classes) for _ in range(n)]


def project_with_forest(path: Path, **options):
    forests = [trees(7, seed=0), trees(6, seed=1)]
    blocks = [((10, 20, 0), BLOCK[..., None]), ((50, 60, 0), BLOCK[..., None])]
    write_ilp(path, PICTURE[..., None], blocks=blocks, forests=forests, **options)
    return fb.read_project(path), [t for forest in forests for t in forest]


def test_info_tells_everything(tmp_path):
    project, _ = project_with_forest(tmp_path / "a.ilp")
    facts = project.describe()
    assert (facts["kind"], facts["workflow"], facts["ilastik"], facts["saved"]) == (
        *("ilastik project", "Pixel Classification", "1.4.0", "Mon Jan 25 2021"),
    )
    assert facts["images"] == [
        {
            "name": "cells",
            "pixels": "embedded",
            "path": "/Input Data/local_data/an-id",
            "axes": "yxc",
            "shape": [HEIGHT, WIDTH, 1],
        }
    ]
    assert facts["classes"] == [
        {"value": 1, "name": "background", "colour": "#ff0000", "pixels": 2},
        {"value": 2, "name": "cell", "colour": "#00ff00", "pixels": 6},
    ]
    assert facts["selection"]["features"] == SELECTION
    assert facts["selection"]["computed_in_2d"] == [0.7, 1.0, 1.6]
    assert facts["forest"]["trees"] == 13 and facts["forest"]["classes"] == [1, 2]


def test_forest_decides_as_its_trees_do(tmp_path):
    project, all_trees = project_with_forest(tmp_path / "a.ilp")
    forest = project.pixel_forest()
    rng = np.random.default_rng(2)
    rows = rng.normal(100, 60, (3000, 4)).astype(np.float32)
    # rows on a threshold, and the two float32 beside one
    splits = [node for tree in all_trees for node in nodes(tree) if len(node) > 1]
    for row in rows[:2000]:
        column, threshold, *_ = splits[rng.integers(len(splits))]
        beside = [-np.inf, threshold, np.inf][rng.integers(3)]
        row[column] = np.nextafter(np.float32(threshold), np.float32(beside))
    expected = np.mean([[walk(tree, row) for row in rows] for tree in all_trees], axis=0)
    found = engine.predict(forest, np.ascontiguousarray(rows.T)[:, None])[:, 0].T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert forest.n_trees == 13 and forest.names == ("background", "cell") and forest.classes == (1, 2)


def nodes(tree):
    yield tree
    if len(tree) > 1:
        yield from nodes(tree[2])
        yield from nodes(tree[3])


def test_forest_can_be_saved_and_predicts_an_image(tmp_path):
    project, _ = project_with_forest(tmp_path / "a.ilp")
    forest = project.pixel_forest()
    forest.save(tmp_path / "a.forest")
    image = project.first_image()
    assert image is not None
    np.testing.assert_array_equal(fb.predict(image, fb.load_forest(tmp_path / "a.forest")), fb.predict(PICTURE, forest))


def test_columns_follow_the_order_of_the_project(tmp_path):
    """Scales descending, features in another order: the columns are another permutation of ours."""
    features = (FEATURES[5], *FEATURES[:5])
    options = {"scales": (1.6, 1.0, 0.7), "features": features}
    project, all_trees = project_with_forest(tmp_path / "a.ilp", **options)
    forest = project.pixel_forest()
    bank = project.encoder
    assert bank.spec.options["selection"]["GaussianSmoothing"] == [0.7, 1.6]
    # ours: G 0.7, G 1.6, H 1.0 [0], H 1.0 [1]; theirs: H 1.0 [0], H 1.0 [1], G 1.6, G 0.7
    assert project.columns.tolist() == [2, 3, 1, 0]
    ours = fb.features(PICTURE, bank).reshape(4, -1)[:, ::37]
    theirs = ours[[2, 3, 1, 0]].T
    expected = np.mean([[walk(tree, row) for row in theirs] for tree in all_trees], axis=0)
    found = engine.predict(forest, np.ascontiguousarray(ours)[:, None])[:, 0].T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_classes_without_labels_have_probability_zero(tmp_path):
    path = tmp_path / "a.ilp"
    options = {"names": ("a", "b", "c", "d"), "colours": ((1, 2, 3),) * 4, "known": (2, 4)}
    write_ilp(path, PICTURE[..., None], forests=[trees(5, seed=3)], **options)
    forest = fb.read_project(path).pixel_forest()
    probabilities = fb.predict(PICTURE, forest)
    assert forest.classes == (1, 2, 3, 4) and probabilities.shape == (4, HEIGHT, WIDTH)
    assert not probabilities[[0, 2]].any()
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("version", "workflow", "axes", "label_axes", "with_tags"),
    [
        ("1.4.0", "Pixel Classification", "yxc", "yxc", True),
        ("1.1.9", "Pixel Classification", "yxc", "yxc", False),
        ("1.3.2", "Pixel Classification", "xyc", "xyc", False),
        ("1.4.0b8", "Pixel Classification", "cyx", "yxc", True),
        ("1.4.0b7", "Pixel Classification", "cyx", "cyx", False),
        ("1.3.3post2", "Pixel Classification", "xyc", "xyc", False),
        ("1.3.3", "Object Classification (from pixel classification)", "yxc", "txyzc", False),
        ("1.3.3post1", "Object Classification (from pixel classification)", "yxc", "txyzc", False),
        ("1.3.3post3", "Object Classification (from pixel classification)", "yxc", "yxc", False),
        ("1.4.1b16.dev34+g60b582f5c", "Pixel Classification", "yxc", "yxc", True),
    ],
)
def test_labels_of_every_version(tmp_path, version, workflow, axes, label_axes, with_tags):
    place, length = {"y": 10, "x": 20}, {"y": 2, "x": 3}
    start = [place.get(a, 0) for a in label_axes]
    order = [a for a in label_axes if a in "yx"]
    block = BLOCK.transpose(["yx".index(a) for a in order]).reshape([length.get(a, 1) for a in label_axes])
    image = np.expand_dims(PICTURE.transpose(["yx".index(a) for a in axes if a in "yx"]), axes.index("c"))
    path = write_ilp(
        tmp_path / "a.ilp",
        image,
        axes=axes,
        blocks=[(start, block)],
        label_axes=label_axes,
        version=version,
        workflow=workflow,
        label_tags=with_tags,
    )
    [(read, scribbles)] = fb.read_project(path).training_pairs()
    np.testing.assert_array_equal(read.plane()[0], PICTURE)
    expected = [(y + 10, x + 20, BLOCK[y, x]) for y in range(2) for x in range(3) if BLOCK[y, x]]
    found = zip(
        scribbles.points[:, 2].tolist(), scribbles.points[:, 3].tolist(), scribbles.values.tolist(), strict=True
    )
    assert sorted(found) == sorted((y, x, int(v)) for y, x, v in expected)
    assert scribbles.names == {1: "background", 2: "cell"} and scribbles.colours[2] == "#00ff00"


def test_labels_of_a_time_series_of_stacks(tmp_path):
    image = np.zeros((3, 4, 20, 30, 1), np.uint8)
    block = np.full((1, 1, 2, 2, 1), 2, np.uint8)
    blocks = [((2, 1, 5, 6, 0), block), ((0, 3, 1, 1, 0), block - 1)]
    path = write_ilp(tmp_path / "a.ilp", image, axes="tzyxc", blocks=blocks)
    [(read, scribbles)] = fb.read_project(path).training_pairs()
    assert read.axes == "TCZYX"
    assert scribbles.points[:4, :2].tolist() == [[0, 3]] * 4 and scribbles.points[4:, :2].tolist() == [[2, 1]] * 4
    assert scribbles.values.tolist() == [1] * 4 + [2] * 4


def test_masked_labels_are_left_out(tmp_path):
    path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=[((10, 20, 0), BLOCK[..., None])])
    with h5py.File(path, "r+") as f:
        labels = f["PixelClassification/LabelSets/labels000"]
        attributes = dict(labels["block0000"].attrs)
        del labels["block0000"]
        group = labels.create_group("block0000")
        group["data"], group["mask"], group["fill_value"] = BLOCK[..., None], (BLOCK == 1)[..., None], 0
        group.attrs.update(attributes)
    [(_, scribbles)] = fb.read_project(path).training_pairs()
    assert scribbles.classes == (2,)


def test_old_projects_without_names_roles_or_compute_in_2d(tmp_path):
    blocks = [((10, 20, 0), BLOCK[..., None])]
    options = {"names": None, "in_2d": None, "old_lanes": True, "version": "1.0.0"}
    path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=blocks, forests=[trees(3, seed=1)], **options)
    project = fb.read_project(path)
    assert project.names == ("Label 1", "Label 2")
    assert project.encoder.spec.axes == "yx"
    assert project.pixel_forest().n_features == 4


def test_missing_compute_in_2d_means_3d_for_stacks(tmp_path):
    stack = np.zeros((8, 30, 40, 1), np.uint8)
    path = write_ilp(
        tmp_path / "a.ilp", stack, axes="zyxc", in_2d=None, forests=[trees(3, seed=1, columns=5)], columns=5
    )
    project = fb.read_project(path)
    assert project.encoder.spec.axes == "zyx" and project.pixel_forest().n_features == 5


@pytest.mark.parametrize(
    ("axes", "columns", "spatial", "channels"),
    [("yx", 4, "yx", 1), ("txyc", 8, "yx", 2), ("txyzc", 4, "yx", 1), ("zyxc", 5, "zyx", 1), ("tzyxc", 10, "zyx", 2)],
)
def test_projects_that_keep_no_size_of_their_images(tmp_path, axes, columns, spatial, channels):
    """Before 1.3.3: the axes tell of planes, and the forest of channels."""
    path = write_ilp(
        tmp_path / "a.ilp",
        *(np.zeros((3,) * len(axes), np.uint8),),
        axes=axes,
        file="gone.h5/data",
        in_2d=None,
        columns=columns,
        forests=[trees(3, seed=1, columns=columns)],
    )
    with h5py.File(path, "r+") as f:
        del f["Input Data/infos/lane0000/Raw Data/shape"]
    project = fb.read_project(path)
    forest = project.pixel_forest()
    assert forest.spec is not None and (forest.spec.axes, forest.spec.channels) == (spatial, channels)


def test_images_inside_hdf5_files(tmp_path):
    with h5py.File(tmp_path / "cells.h5", "w") as f:
        f["volume/data"] = PICTURE
    blocks = [((10, 20, 0), BLOCK[..., None])]
    for place in ("cells.h5/volume/data", "../elsewhere/cells.h5/volume/data", "D:\\x\\cells.h5/volume/data"):
        path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=blocks, file=place)
        [(image, scribbles)] = fb.read_project(path).training_pairs()
        np.testing.assert_array_equal(image.plane()[0], PICTURE)
        assert scribbles.classes == (1, 2)


def test_mixed_projects_have_filters_of_both_kinds(tmp_path):
    stack = np.random.default_rng(0).integers(0, 200, (8, 30, 40, 1)).astype(np.uint8)
    selection = {"GaussianSmoothing": [0.7], "HessianOfGaussianEigenvalues": [0.7, 1.0]}
    options = {"selection": selection, "in_2d": (True, False, False), "columns": 6}
    path = write_ilp(tmp_path / "a.ilp", stack, axes="zyxc", forests=[trees(5, seed=1, columns=6)], **options)
    project = fb.read_project(path)
    names = project.encoder.spec.feature_names
    assert [name.endswith("in 2D") or "in 2D [" in name for name in names] == [True, True, True, False, False, False]
    assert fb.predict(fb.as_image(stack, axes="ZYXC"), project.pixel_forest()).shape == (2, 8, 30, 40)


def test_several_channels(tmp_path):
    colour = np.random.default_rng(0).integers(0, 200, (40, 50, 3)).astype(np.uint8)
    path = write_ilp(tmp_path / "a.ilp", colour, forests=[trees(5, seed=1, columns=12)], columns=12)
    forest = fb.read_project(path).pixel_forest()
    assert forest.spec is not None and forest.spec.channels == 3
    assert fb.predict(fb.as_image(colour, axes="YXC"), forest).shape == (2, 40, 50)


def test_images_in_files_are_found_beside_the_project(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "cells.npy", PICTURE)
    blocks = [((10, 20, 0), BLOCK[..., None])]
    for place in ("elsewhere/cells.npy", "C:\\data\\cells.npy"):
        if "\\" in place:  # the project came from Windows, with its image in the same folder
            (tmp_path / "elsewhere" / "cells.npy").rename(tmp_path / "cells.npy")
        path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=blocks, file=place)
        [(image, _)] = fb.read_project(path).training_pairs()
        np.testing.assert_array_equal(image.plane()[0], PICTURE)


def test_images_that_are_not_there_or_not_the_same_are_refused(tmp_path):
    blocks = [((10, 20, 0), BLOCK[..., None])]
    path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=blocks, file="gone.npy")
    project = fb.read_project(path)
    assert project.first_image() is None
    with pytest.raises(
        ProjectError, match=r"expected the image cells at gone.npy, found nothing there nor beside .*; put it"
    ):
        project.training_pairs()
    np.save(tmp_path / "gone.npy", PICTURE[:50])
    with pytest.raises(
        ImageError, match=r"expected an image of C=1 Y=96 X=112, as when the project .* was saved, found"
    ):
        project.training_pairs()
    for file, message in (
        ("https://example.org/a.ome.zarr", r"found the address https"),
        ("a*.png", r"found a stack of several"),
    ):
        path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=blocks, file=file)
        with pytest.raises(ProjectError, match=message):
            fb.read_project(path).training_pairs()


def test_retraining_takes_the_labels_of_the_project(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.where(CELLS.truth > 1, 2, 1).astype(np.uint8)
    labels[rng.random(labels.shape) > 0.05] = 0
    path = write_ilp(tmp_path / "a.ilp", PICTURE[..., None], blocks=[((0, 0, 0), labels[..., None])])
    project = fb.read_project(path)
    forest = fb.train(project.training_pairs(), encoder=project.encoder, n_trees=10, engine="sklearn")
    assert forest.names == ("background", "cell") and forest.training["oob_accuracy"] > 0.8
    direct = fb.train([(PICTURE, labels)], encoder=project.encoder, n_trees=10, engine="sklearn")
    np.testing.assert_array_equal(forest.threshold, direct.threshold)


def test_feature_names_that_tell_of_other_features_are_refused(tmp_path):
    hessian = "Hessian of Gaussian Eigenvalues (σ=1.0) in 2D"
    names = [*(f"Gaussian Smoothing (σ={s}) in 2D" for s in (0.7, 3.5)), f"{hessian} [0]", f"{hessian} [1]"]
    project, _ = project_with_forest(tmp_path / "a.ilp", feature_names=names)
    with pytest.raises(
        ProjectError, match=r"\(Gaussian Smoothing, σ=1.6\), found one trained on 'Gaussian Smoothing \(σ=3.5"
    ):
        project.pixel_forest()
    names[1] = "Gaussian Smoothing (σ=1.6) in 2D"
    project, _ = project_with_forest(tmp_path / "a.ilp", feature_names=names)
    assert project.pixel_forest().n_trees == 13


def test_vigra_agrees(tmp_path):
    """vigra itself, from the system's Python, reads the same trees and gives the same probabilities."""
    require_vigra()
    rng = np.random.default_rng(5)
    forests = [trees(9, seed=6, classes=3, depth=8), trees(4, seed=7, classes=3, depth=8)]
    path = write_ilp(
        tmp_path / "a.ilp",
        PICTURE[..., None],
        forests=forests,
        known=(1, 2, 3),
        names=("a", "b", "c"),
        colours=((0, 0, 0),) * 3,
    )
    rows = rng.normal(100, 60, (4000, 4)).astype(np.float32)
    splits = [node for forest in forests for tree in forest for node in nodes(tree) if len(node) > 1]
    for row in rows[:3000]:
        column, threshold, *_ = splits[rng.integers(len(splits))]
        row[column] = np.float32(threshold)
    np.save(tmp_path / "rows.npy", rows)
    run_vigra("vigra_forests.py", path, "2", tmp_path / "rows.npy", tmp_path / "out.npy")
    forest = fb.read_project(path).pixel_forest()
    found = engine.predict(forest, np.ascontiguousarray(rows.T)[:, None])[:, 0].T
    np.testing.assert_allclose(found, np.load(tmp_path / "out.npy"), rtol=0, atol=1e-6)


def test_encoded_trees_are_what_the_reader_expects(tmp_path):
    """The helper of these tests and the reader agree on the smallest tree, written out by hand."""
    topology, parameters = encode_tree((3, 0.5, (np.array([1.0, 0.0]),), (np.array([0.25, 0.75]),)), 4, 2)
    assert topology.tolist() == [4, 2, 0, 0, 9, 7, 3, 0x40000000, 2, 0x40000000, 5]
    assert parameters.tolist() == [1.0, 0.5, 1.0, 0.25, 0.75, 1.0, 1.0, 0.0]
    with h5py.File(tmp_path / "f.h5", "w") as f:
        write_forest_group(f.create_group("Forest0000"), [(np.array([0.5, 0.5]),)], 4, (1, 2))
        assert list(f["Forest0000"]) == ["Tree_0", "_ext_param", "_options"]
