"""Stores that FeatureForest wrote: its patch rule, its own code as the judge, and what is refused."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import forestbridge as fb
from featureforest_files import featureforest, has_featureforest, noise_store, write_featureforest
from forestbridge.encoders import encoder_from_spec
from forestbridge.encoders.networks import ALIASES
from forestbridge.errors import SpecMismatchError, StoreError
from forestbridge.image.hdf5_nodes import open_hdf5
from forestbridge.stores import open_store, store_facts, verify_store
from forestbridge.stores.featureforest import OUR_NAMES
from forestbridge.stores.patches import PatchGrid

needs_featureforest = pytest.mark.skipif(
    not has_featureforest(),
    reason="featureforest==0.1.2 (without dependencies) or pims is not installed: see scripts/test",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store of 3 slices, each of 4 × 5 patches."""
    noise_store(tmp_path / "a.hdf5", slices=3)
    return tmp_path / "a.hdf5"


# --- FeatureForest's own code as the judge ---


@needs_featureforest
@pytest.mark.parametrize("patch_size, overlap", [(16, 4), (512, 128), (70, 28), (64, 0), (32, 9)])
def test_patches_are_counted_as_featureforest_counts_them(patch_size, overlap):
    data = featureforest("utils.data")
    rng = np.random.default_rng(0)
    sizes = [(patch_size, patch_size), *rng.integers(overlap + 1, 5 * patch_size, (300, 2)).tolist()]
    for height, width in sizes:
        grid = PatchGrid(height, width, patch_size, overlap)
        expected = data.get_num_patches(height, width, patch_size, overlap)
        assert (grid.rows, grid.columns) == expected, (height, width)
        points = rng.integers(0, (height, width), (20, 2))
        found = points[:, 0] // grid.side * grid.columns + points[:, 1] // grid.side
        np.testing.assert_array_equal(
            found, data.get_patch_indices(points, height, width, patch_size, overlap), (height, width)
        )


@pytest.fixture
def cellpose():
    """FeatureForest's adapter of Cellpose with random weights."""
    import torch

    torch.manual_seed(0)
    adapter, network = featureforest("models.Cellpose.adapter"), featureforest("models.Cellpose.cellpose_downsample")
    return lambda height, width: adapter.CellposeAdapter(
        network.downsample([2, 32, 64, 128, 256], 3).eval(), height, width, torch.device("cpu")
    )


@needs_featureforest
@pytest.mark.parametrize("shape, no_patching", [((40, 70), False), ((32, 32), True)])
def test_a_file_that_featureforest_wrote(tmp_path, cellpose, shape, no_patching):
    """Its extraction writes the file, and its rule for training data and its predictions give what ours give."""
    from sklearn.ensemble import RandomForestClassifier

    image = np.random.default_rng(1).integers(0, 255, (2, *shape)).astype(np.uint8)
    adapter = cellpose(*shape)
    adapter.no_patching = no_patching
    path = tmp_path / "a.hdf5"
    list(featureforest("utils.extract").extract_embeddings_to_file(image, str(path), adapter))

    store = open_store(path)
    assert (store.spec.n_features, store.image.axes, store.image.shape) == (480, "ZYX", image.shape)
    assert store.spec.options == {
        "model": "Cellpose_cyto3",
        "patch_size": adapter.patch_size,
        "overlap": adapter.overlap,
        "no_patching": no_patching,
    }
    points = np.random.default_rng(2).integers(0, (1, 2, *shape), (200, 4))
    side = adapter.patch_size - adapter.overlap
    with h5py.File(path) as content:
        expected = []
        for _, z, y, x in points.tolist():
            patch = featureforest("utils.data").get_patch_index(y, x, *shape, adapter.patch_size, adapter.overlap)
            expected.append(content[str(z)]["features"][patch, y % side, x % side])
    np.testing.assert_array_equal(store.at(points), np.array(expected, np.float32))

    rows, values = store.at(points), np.arange(len(points)) % 3
    forest = RandomForestClassifier(5, max_depth=4, random_state=0).fit(rows, values)
    labels = fb.predict(store, fb.forest_from_sklearn(forest, store.spec), kind="labels")
    np.testing.assert_array_equal(labels[1], predict_as_featureforest(path, forest, 1, shape, adapter))


def predict_as_featureforest(path, forest, z, shape, adapter):
    """Return a slice's classes by the steps of FeatureForest's `predict_slice`, which itself needs napari."""
    with h5py.File(path) as content:
        patches = content[str(z)]["features"][:]
    side = adapter.patch_size - adapter.overlap
    rows, columns = featureforest("utils.data").get_num_patches(*shape, adapter.patch_size, adapter.overlap)
    classes = np.vstack([forest.predict(patch.reshape(-1, patch.shape[-1])).astype(np.uint8) for patch in patches])
    classes = np.moveaxis(classes.reshape(rows, columns, side, side), 1, 2).reshape(rows * side, columns * side)
    return classes[: shape[0], : shape[1]]


# --- Reading ---


def test_points_and_regions(tmp_path):
    features = noise_store(tmp_path / "a.hdf5", slices=3)
    store = open_store(tmp_path / "a.hdf5")
    assert store.done and store.missing() == []
    assert (store.spec.name, store.spec.dtype, store.spec.maps[0].name) == ("featureforest", "float16", "sam2_large")
    assert store.spec.feature_names[:2] == ("sam2_large.000", "sam2_large.001")
    assert store.spec.maps[0].is_plain
    assert store.image.source == "a.hdf5"
    points = np.random.default_rng(1).integers(0, (1, 3, 40, 50), (300, 4))
    _, z, y, x = points.T
    np.testing.assert_array_equal(store.at(points), features[z, y, x].astype(np.float32))
    plane = store.read_map("sam2_large", z=2, spatial=(slice(5, 40), slice(11, 25)))
    assert plane.dtype == np.float16
    np.testing.assert_array_equal(plane, np.moveaxis(features[2, 5:40, 11:25], -1, 0))
    stack = store.read_map("sam2_large", spatial=(slice(1, 3), slice(0, 2), slice(0, 50)))
    np.testing.assert_array_equal(stack, np.moveaxis(features[1:, :2], -1, 0))
    between = store.at([[0, 1, 11.5, 23.25]])
    corners = features[1, 11:13, 23:25].astype(np.float64)
    np.testing.assert_allclose(between[0], np.einsum("y,x,yxf->f", [0.5, 0.5], [0.75, 0.25], corners), rtol=1e-5)
    assert store.at(np.empty((0, 4))).shape == (0, 5)


def test_one_slice_has_points_of_two_numbers(tmp_path):
    features = noise_store(tmp_path / "a.hdf5", shape=(16, 90))
    store = open_store(tmp_path / "a.hdf5")
    assert (store.image.axes, store.image.shape) == ("YX", (16, 90))
    np.testing.assert_array_equal(store.at([[15, 89], [0, 12]]), features[0, [15, 0], [89, 12]].astype(np.float32))
    with pytest.raises(ValueError, match="found 1 outside"):
        store.at([[16, 0]])
    with pytest.raises(ValueError, match="expected one of the maps sam2_large, found 'other'"):
        store.read_map("other", spatial=(slice(0, 1), slice(0, 1)))
    with pytest.raises(ValueError, match="expected a frame, a plane and slices inside the map"):
        store.read_map("sam2_large", z=1, spatial=(slice(0, 1), slice(0, 1)))


@pytest.mark.parametrize(
    "model, name",
    [
        ("μSAM_LM", "micro_sam_lm"),  # GREEK SMALL LETTER MU
        ("\u00b5SAM_EM_Organelles", "micro_sam_em"),  # MICRO SIGN
        ("SAM", "sam_vit_h"),
        ("My Net 2", "my_net_2"),
        ("模型", "encoder"),
    ],
)
def test_names_of_encoders(tmp_path, model, name):
    noise_store(tmp_path / "a.hdf5", model=model)
    spec = open_store(tmp_path / "a.hdf5").spec
    assert spec.maps[0].name == name
    assert spec.feature_names[-1] == f"{name}.004"


def test_each_patch_is_decoded_once_and_few_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("forestbridge.stores.patches.CACHE_BYTES", 1)
    monkeypatch.setattr(sys.modules["forestbridge.predict"], "STRIP", 50)
    features = noise_store(tmp_path / "a.hdf5", slices=2)
    store = open_store(tmp_path / "a.hdf5")
    forest = small_forest(store, features)
    kept = []

    def counting(path, kind):
        kept.append(len(store._decoded._kept))
        return open_hdf5(path, kind)

    monkeypatch.setattr("forestbridge.stores.patches.open_hdf5", counting)
    fb.predict(store, forest, jobs=2)
    assert len(kept) == 2 * 20  # as many as there are patches
    assert max(kept) == 1  # besides the one that is read
    fb.export_features(store, tmp_path / "out.npy", jobs=2)
    assert len(kept) == 2 * 2 * 20
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.moveaxis(features, -1, 0))


def small_forest(store, features):
    labels = np.zeros(features.shape[:3], np.uint8)
    labels[0, ::5, ::7] = 1 + (features[0, ::5, ::7, 2] > 0)
    return fb.train([(store, labels)], n_trees=4, engine="sklearn")


def test_train_and_predict(tmp_path):
    features = noise_store(tmp_path / "a.hdf5", slices=2)
    store = fb.open_store(tmp_path / "a.hdf5")
    forest = small_forest(store, features)
    assert forest.spec == store.spec
    forest.save(tmp_path / "x.forest")
    labels = fb.predict(store, fb.load_forest(tmp_path / "x.forest"), kind="labels")
    assert labels.shape == (2, 40, 50)
    assert (labels == 1 + (features[..., 2] > 0)).mean() > 0.95


# --- Who may use it ---


def test_features_come_from_featureforest_only(file):
    store = open_store(file)
    with pytest.raises(
        ValueError, match=r"features of FeatureForest's SAM2_Large .* come from its feature stores only"
    ):
        encoder_from_spec(store.spec)


def test_a_forest_is_refused_for_other_patches(tmp_path):
    features = noise_store(tmp_path / "a.hdf5", slices=2)
    forest = small_forest(open_store(tmp_path / "a.hdf5"), features)
    side = 24
    other = np.zeros((1, 2 * side, 2 * side, 5))
    write_featureforest(tmp_path / "b.hdf5", other, shape=(40, 40), patch_size=32, overlap=8)
    with pytest.raises(
        SpecMismatchError,
        match=r"options overlap: 4 against 8; options patch_size: 16 against 32.*"
        r"extract the features again with FeatureForest, its encoder SAM2_Large and patches of 16 pixels, overlap 4",
    ):
        fb.predict(open_store(tmp_path / "b.hdf5"), forest)
    noise_store(tmp_path / "c.hdf5", model="SAM2_Base")
    with pytest.raises(SpecMismatchError, match='options model: "SAM2_Large" against "SAM2_Base"'):
        fb.predict(open_store(tmp_path / "c.hdf5"), forest)


# --- Files that are not whole ---


def edit(path: Path, change) -> None:
    with h5py.File(path, "r+") as content:
        change(content)


def test_missing_slices_and_patches(file):
    def cut(content):
        del content["1"]
        content["2/features"].resize(18, axis=0)

    edit(file, cut)
    with pytest.raises(
        StoreError,
        match=r"expected a store that is done, found 38 of 60 patches in .*a.hdf5: slice 1 patch 0, .* and 17 more are not there, as "
        r"where FeatureForest was stopped; extract it again with FeatureForest, or train on what is there with --allow-partial",
    ):
        open_store(file)
    store = open_store(file, allow_partial=True)
    assert not store.done
    assert store.missing()[-2:] == ["slice 2 patch 18", "slice 2 patch 19"]
    assert store.at([[0, 0, 3, 3], [0, 2, 0, 0]]).shape == (2, 5)
    with pytest.raises(
        StoreError, match=r"found that slice 1 patch 0, slice 2 patch 18 are not in .*leave out the labels"
    ):
        store.at([[0, 1, 3, 3], [0, 2, 39, 40], [0, 0, 0, 0]])
    plane = store.read_map("sam2_large", z=2, spatial=(slice(30, 40), slice(0, 50)))
    assert np.isnan(plane[:, 6:, 36:]).all() and np.isfinite(plane[:, :6]).all() and np.isfinite(plane[..., :36]).all()
    assert not verify_store(file).ok
    assert store_facts(file)["shards"] == {"done": 38, "total": 60}
    with pytest.raises(StoreError, match=r"found 22 shards missing, the first slice 1 patch 0"):
        fb.export_features(store, file.with_name("x.npy"))


def test_patches_that_were_never_written(file):
    """FeatureForest extends the dataset, then writes: between the two, HDF5 reads zeros."""
    edit(file, lambda content: content["2/features"].resize(18, axis=0))
    edit(file, lambda content: content["2/features"].resize(20, axis=0))
    with pytest.raises(StoreError, match=r"found 58 of 60 patches .*slice 2 patch 18, slice 2 patch 19 are not there"):
        open_store(file)


def test_no_patching_of_what_is_not_square(tmp_path):
    write_featureforest(
        tmp_path / "a.hdf5", np.ones((1, 32, 32, 3)), shape=(32, 40), patch_size=32, overlap=0, no_patching=True
    )
    with pytest.raises(
        StoreError, match=r"with No Patching it does so for images that are not square, and with DinoV2"
    ):
        open_store(tmp_path / "a.hdf5")


def test_nan_features_are_refused(file):
    def spoil(content):
        content["1/features"][3] = np.nan
        content["2/features"][19, 11, 11] = np.nan  # beyond the image

    edit(file, spoil)
    store = open_store(file)
    message = r"found NaN or infinite ones in slice 1: FeatureForest stores NaN for a slice whose pixels are all equal"
    with pytest.raises(StoreError, match=message):
        store.at([[0, 1, 0, 40]])
    with pytest.raises(StoreError, match=message):
        store.read_map("sam2_large", z=1, spatial=(slice(0, 40), slice(0, 50)))
    assert np.isfinite(store.read_map("sam2_large", z=2, spatial=(slice(0, 40), slice(0, 50)))).all()
    report = verify_store(file)
    assert [problem.shard for problem in report.problems] == ["slice 1 patch 3"]
    assert (report.shards, report.shards_done, report.n_bytes) == (60, 60, 60 * 12 * 12 * 5 * 2)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_cut_off_files(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StoreError, match=r"(found a file that cannot be opened|found a damaged file|copy it again)"):
        open_store(file)


def test_damaged_chunks(file):
    with h5py.File(file) as content:
        place = content["0/features"].id.get_chunk_info(7)
    raw = bytearray(file.read_bytes())
    raw[place.byte_offset : place.byte_offset + 200] = b"\xff" * 200
    file.write_bytes(raw)
    store = open_store(file)
    found = verify_store(store)
    assert found.problems or not np.isfinite(store.at([[0, 0, 12, 24]])).all()


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("patch_size", 0, "patch_size=0"),
        ("patch_size", "big", "patch_size='big'"),
        ("overlap", 16, "overlap=16"),
        ("overlap", -4, "overlap=-4"),
        ("img_height", 40.5, "img_height=40.5"),
        ("img_height", 10**9, "img_height=1000000000"),
        ("model", 7, "model=7"),
        ("model", " ", "model=' '"),
        ("no_patching", "no", "no_patching='no'"),
        ("num_slices", None, "num_slices=None"),
        ("num_slices", [1, 2], "num_slices=None"),
    ],
)
def test_wrong_attributes(file, name, value, message):
    def change(content):
        del content.attrs[name]
        if value is not None:
            content.attrs[name] = value

    edit(file, change)
    with pytest.raises(
        StoreError, match=rf"expected the attributes of a feature store of FeatureForest, found {message}"
    ):
        open_store(file)


def test_contents_that_contradict_the_attributes(file):
    edit(file, lambda content: content.attrs.modify("img_height", 10))
    with pytest.raises(
        StoreError, match=r"expected up to 5 patches of 12 × 12 .* in slice 0, .*found float16 \(20, 12, 12, 5\)"
    ):
        open_store(file)
    edit(file, lambda content: content.attrs.modify("img_height", 40))
    edit(file, lambda content: content.attrs.modify("num_slices", 2))
    with pytest.raises(StoreError, match="expected the slices 0 to 1, found also 2"):
        open_store(file)
    edit(file, lambda content: content.attrs.modify("num_slices", 3))

    def other(dataset):
        def change(content):
            del content["2/features"]
            content["2"].create_dataset("features", data=dataset)

        return change

    edit(file, other(np.zeros((20, 12, 12, 4), np.float16)))
    with pytest.raises(StoreError, match=r"expected one number of features in all slices, found \[4, 5\]"):
        open_store(file)
    edit(file, other(np.zeros((20, 12, 12, 5), np.float32)))
    with pytest.raises(StoreError, match="found float32"):
        open_store(file)
    edit(file, lambda content: content.__delitem__("2/features"))
    edit(file, lambda content: content["2"].__setitem__("features", h5py.ExternalLink("other.h5", "/x")))
    with pytest.raises(StoreError, match="found a link to another place or file"):
        open_store(file)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(
        StoreError, match=r"expected a feature store of FeatureForest \(an HDF5 file\), found a file that"
    ):
        open_store(tmp_path / "text.hdf5")
    with h5py.File(tmp_path / "image.h5", "w") as content:
        content["data"] = np.zeros((5, 5))
    with pytest.raises(
        StoreError, match="expected the attributes of a feature store of FeatureForest, found num_slices=None"
    ):
        open_store(tmp_path / "image.h5")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(StoreError, match=r"or a store of FeatureForest \(NAME.hdf5\), found that .* is another file"):
        open_store(tmp_path / "a.txt")


def test_the_command_line_of_featureforest_names_its_files_zarr(tmp_path):
    noise_store(tmp_path / "a.zarr")
    assert open_store(tmp_path / "a.zarr").done


def test_names_are_those_that_open_encoder_takes():
    assert OUR_NAMES == ALIASES
