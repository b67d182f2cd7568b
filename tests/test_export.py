"""Features as an image: equal to those that a forest is trained on, whatever the store's stride."""

import json

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import call
from forestbridge.errors import ImageError, SpecMismatchError, StoreError
from forestbridge.export import important_features
from small_encoders import noise_image, pooling_encoder
from small_line import CELLS, small_encoder, small_forest


@pytest.fixture
def strided(tmp_path):
    """A store with maps of stride 4 and 16, and its image of two channels."""
    image = noise_image("TCYX", (2, 2, 150, 140))
    return fb.extract(image, pooling_encoder(channels=2), tmp_path / "s.features.ome.zarr"), image


def everywhere(store, t=0, z=0):
    """Return (F, Y, X) of all pixels as training sees them."""
    sizes = store.image.sizes
    y, x = np.mgrid[: sizes["Y"], : sizes["X"]]
    points = np.stack([np.full(y.size, t), np.full(y.size, z), y.ravel(), x.ravel()], axis=1)
    return store.at(points).T.reshape(-1, *y.shape)


@pytest.mark.parametrize(
    ("name", "format"), [("f.h5", None), ("f.ome.zarr", "ome-zarr-0.4"), ("f.ome.tif", None), ("f.npy", None)]
)
def test_maps_are_interpolated_as_for_training(tmp_path, strided, name, format):
    store, _ = strided
    fb.export_features(store, tmp_path / name, format=format)
    image = fb.read_image(tmp_path / name, axes="TCYX" if name.endswith("npy") else None)
    assert image.dtype == np.float32 and image.n_channels == 5
    for t in (0, 1):
        np.testing.assert_array_equal(image.plane(t=t), everywhere(store, t))


def test_chosen_features_and_the_image_beside_them(tmp_path, strided):
    store, image = strided
    names = store.spec.feature_names
    fb.export_features(store, tmp_path / "f.h5", features=[4, names[1]], beside=image)
    found = fb.read_image(tmp_path / "f.h5")
    np.testing.assert_array_equal(found.plane(t=1)[:2], image.plane(t=1))
    np.testing.assert_array_equal(found.plane(t=1)[2:], everywhere(store, 1)[[4, 1]])
    with tifffile.TiffFile(fb.export_features(store, tmp_path / "f.ome.tif", features=[4])) as tif:
        assert names[4] in (tif.ome_metadata or "") and 'Name="features"' in (tif.ome_metadata or "")


def test_filters_of_an_image_are_those_of_memory(tmp_path):
    encoder = small_encoder()
    fb.export_features(CELLS.image, tmp_path / "f.h5", encoder=encoder)
    np.testing.assert_array_equal(fb.read_image(tmp_path / "f.h5").plane(), fb.features(CELLS.image, encoder))


def test_important_features_are_those_at_the_top():
    forest = small_forest()
    found = important_features(forest, 3)
    weight = np.zeros(forest.n_features)

    def count(node, share):
        if forest.feature[node] >= 0:
            weight[forest.feature[node]] += share
            count(forest.left[node], share / 2)
            count(forest.left[node] + 1, share / 2)

    for root in forest.roots:
        count(root, 1.0)
    assert found == np.argsort(-weight, kind="stable")[:3].tolist()
    assert len(important_features(forest, 99)) == len(forest.used_features)


def test_refusals(tmp_path, strided):
    store, _ = strided
    with pytest.raises(
        ValueError, match=r"expected features by number from 0 to 4, or by name \(.*\), found \['Gabor', 5\]"
    ):
        fb.export_features(store, tmp_path / "f.h5", features=["Gabor", 5])
    with pytest.raises(ValueError, match=r"expected at least one feature, found none"):
        fb.export_features(store, tmp_path / "f.h5", features=[])
    with pytest.raises(ValueError, match=r"expected an encoder for an image, found none"):
        fb.export_features(CELLS.image, tmp_path / "f.h5")
    with pytest.raises(
        ValueError, match=r"expected an encoder with a value for each pixel, found .*; extract a store first"
    ):
        fb.export_features(CELLS.image, tmp_path / "f.h5", encoder=pooling_encoder())
    with pytest.raises(ImageError, match=r"expected the image of the features, of the size .*, found .*'Y': 96"):
        fb.export_features(store, tmp_path / "f.h5", beside=fb.as_image(CELLS.image))
    assert not (tmp_path / "f.h5").exists()


def test_a_store_that_is_not_done_is_refused(tmp_path, strided):
    store, _ = strided
    journal = store.path / "forestbridge" / "journal.0.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    document = json.loads((store.path / "zarr.json").read_text())
    document["attributes"]["forestbridge"]["done"] = False
    (store.path / "zarr.json").write_text(json.dumps(document))
    for file in (store.path / "features").rglob("c/1/**/*"):
        file.unlink() if file.is_file() else None
    partial = fb.open_store(store.path, allow_partial=True)
    with pytest.raises(StoreError, match=r"expected the features of the whole image .* shards missing"):
        fb.export_features(partial, tmp_path / "f.h5")


def test_command_line(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CELLS.image)
    forest = small_forest()
    forest.save(tmp_path / "a.forest")
    assert (
        call(
            "extract", tmp_path / "a.tif", "-o", tmp_path / "a.features.ome.zarr", "--like", tmp_path / "a.forest"
        ).code
        == 0
    )
    words = ["export", tmp_path / "a.features.ome.zarr", "-o", tmp_path / "f.h5"]
    plan = call(*words, "--dry-run")
    assert plan.code == 0 and "C=6 Y=96 X=112 float32, 0.2 MiB" in plan.out and not (tmp_path / "f.h5").exists()
    ended = call(*words, "--forest", tmp_path / "a.forest", "--top", "2", "--image", tmp_path / "a.tif", "--json")
    assert ended.code == 0, ended.err
    chosen = important_features(forest, 2)
    assert ended.json()["features"] == [forest.spec.feature_names[f] for f in chosen] and ended.json()["shape"] == [
        3,
        96,
        112,
    ]
    found = fb.read_image(tmp_path / "f.h5").plane()
    np.testing.assert_array_equal(found[0], CELLS.image)
    np.testing.assert_array_equal(found[1:], fb.features(CELLS.image, small_encoder())[chosen])
    again = call(*words)
    assert again.code == 2 and "--overwrite" in again.err
    both = call(*words, "--overwrite", "--features", "1", "--forest", tmp_path / "a.forest")
    assert both.code == 2 and "expected either --features or --forest, found both" in both.err
    ended = call(
        "export", tmp_path / "a.tif", "--like", tmp_path / "a.forest", "--features", "0", "5", "-o", tmp_path / "g.npy"
    )
    assert ended.code == 0, ended.err
    np.testing.assert_array_equal(np.load(tmp_path / "g.npy"), fb.features(CELLS.image, small_encoder())[[0, 5]])


def test_a_forest_over_other_features_is_refused(tmp_path):
    store = fb.extract(
        CELLS.image, small_encoder(selection={"GaussianSmoothing": [1.0]}), tmp_path / "b.features.ome.zarr"
    )
    small_forest().save(tmp_path / "a.forest")
    ended = call("export", store.path, "--forest", tmp_path / "a.forest", "-o", tmp_path / "f.h5")
    assert ended.code == SpecMismatchError.exit_code and "give a forest that was trained on this store" in ended.err
