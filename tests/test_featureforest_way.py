"""Deep encoders in FeatureForest's way along the line: image, store, single pixels and forest agree; and what is refused."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from skimage import data

import forestbridge as fb
from command_line import call
from deep_weights import cyto3_file, patchwise_encoder_of
from featureforest_adapters import cellpose, deviation, theirs
from featureforest_files import featureforest, has_featureforest
from forestbridge.encoders import encoder_from_spec
from forestbridge.encoders.conformance import EncoderConformance
from forestbridge.encoders.features import features_at
from forestbridge.encoders.networks import network_of
from forestbridge.encoders.patchwise import seen_tile
from forestbridge.encoders.planning import plan_deep
from forestbridge.errors import ImageError
from forestbridge.graphs.encoder import export_encoder_onnx
from forestbridge.image import as_image
from forestbridge.spec import EncoderSpec

pytestmark = pytest.mark.skipif(
    not has_featureforest(), reason="featureforest or pims is not installed: see scripts/test"
)

STACK = np.stack([data.coins()[100:164, 50:120], data.coins()[200:264, 50:120] // 3 + 20])
"""(Z, Y, X) bytes; the planes have other minima and maxima."""

TOLERANCE = 2e-3


def open_cyto3(images, **options):
    return fb.open_encoder(
        "cellpose_cyto3", interpolation="featureforest", images=images, weights=cyto3_file(), **options
    )


def test_geometry() -> None:
    """A store holds a value for each pixel; a tile reads up to a patch further than its core, since patches are reflected there."""
    spec = plan("sam2_base", tile=256)
    assert (spec.tile, spec.halo, spec.input_size, seen_tile(spec)) == ((192, 192), (224, 224), (1024, 1024), (256, 32))
    assert (spec.intensity["rule"], spec.interpolation, spec.dtype) == ("plane", "featureforest", "float16")
    assert all(m.is_plain for m in spec.maps) and spec.n_features == 768
    assert EncoderSpec.from_json(spec.to_json()) == spec
    assert seen_tile(plan("dinov2")) == (70, 14)
    assert seen_tile(plan("mobile_sam", tile=600, overlap=0)) == (600, 0)
    assert spec.fingerprint() != plan("sam2_base", tile=128).fingerprint()


def plan(name: str, **options):
    return plan_deep(network_of(name), channels=1, interpolation="featureforest", **options)


def test_patch_size_follows_from_the_images() -> None:
    planes = [np.zeros(shape, np.uint8) for shape in ((600, 1030), (1023, 512))]
    assert open_cyto3(planes).spec.options["patch_size"] == 256
    with pytest.raises(
        ImageError,
        match=r"expected images for which FeatureForest takes one patch size, found 256 for .*, 512 for .*--tile",
    ):
        open_cyto3([planes[0], np.zeros((1024, 1024), np.uint8)])
    assert open_cyto3([planes[0], np.zeros((1024, 1024), np.uint8)], tile=128).spec.tile == (96, 96)


def test_stack_store_and_pixels_agree(tmp_path: Path) -> None:
    """Each plane is stretched by itself, whichever way its features are asked for; the store of FeatureForest is the same."""
    image = as_image(STACK, axes="ZYX")
    encoder = open_cyto3([image])
    assert encoder.spec.options["patch_size"] == 64
    store = fb.extract(image, encoder, tmp_path / "a.features.ome.zarr")
    whole = fb.features(image, encoder)  # (F, Z, Y, X)
    points = np.random.default_rng(0).integers(0, (1, 2, 64, 70), (60, 4))
    np.testing.assert_array_equal(features_at(image, encoder, points), store.at(points))
    _, z, y, x = points.T
    assert np.array_equal(whole[:, z, y, x].T.astype(np.float16), store.at(points))
    for n, plane in enumerate(STACK):
        expected = theirs(cellpose(64, 70), plane)
        assert deviation(whole[:, n], expected).max() <= TOLERANCE
    written = fb.write_featureforest(store, tmp_path / "ours.hdf5")
    list(featureforest("utils.extract").extract_embeddings_to_file(STACK, str(tmp_path / "b.hdf5"), cellpose(64, 70)))
    with h5py.File(written) as ours, h5py.File(tmp_path / "b.hdf5") as original:
        assert dict(ours.attrs) == dict(original.attrs)
        inside = ours["1/features"][0], original["1/features"][0]
    assert np.abs(inside[0].astype("f4") - inside[1]).max() <= TOLERANCE * np.abs(inside[1]).max()


def test_command_line(tmp_path: Path) -> None:
    """Extracted or computed on the fly, the forest is the same, and an image is labelled as its store."""
    image, store, labels = tmp_path / "a.tif", tmp_path / "a.features.ome.zarr", np.zeros((64, 70), np.uint8)
    tifffile.imwrite(image, STACK[0])
    labels[2:6, 2:60], labels[30:34, 20:40] = 1, 2
    tifffile.imwrite(tmp_path / "a_labels.tif", labels)
    way = ["--encoder", "Cellpose_cyto3", "--interpolation", "featureforest", "--weights", cyto3_file()]
    ended = call("extract", image, "-o", store, *way)
    assert ended.code == 0, ended.err
    for source, options, out in ((store, [], "s.forest"), (image, way, "i.forest")):
        ended = call("train", source, "--labels", tmp_path / "a_labels.tif", "-o", tmp_path / out, *options)
        assert ended.code == 0, ended.err
    forests = [fb.load_forest(tmp_path / name) for name in ("s.forest", "i.forest")]
    assert np.array_equal(forests[0].threshold, forests[1].threshold)
    results = []
    for source, out in ((store, "s.npy"), (image, "i.npy")):
        ended = call("predict", source, "--forest", tmp_path / "i.forest", "--kind", "labels", "-o", tmp_path / out)
        assert ended.code == 0, ended.err
        results.append(np.load(tmp_path / out))
    assert np.array_equal(*results) and set(np.unique(results[0])) == {1, 2}
    ended = call("train", store, "--labels", tmp_path / "a_labels.tif", "-o", tmp_path / "x.forest", *way[2:4])
    assert ended.code == 2 and "expected --interpolation with images only" in ended.err.replace("\n", " ")
    ended = call("extract", image, "-o", tmp_path / "b.features.ome.zarr", "--interpolation", "featureforest")
    assert ended.code == 2 and "expected --interpolation with a deep encoder only" in ended.err.replace("\n", " ")
    ended = call("extract", image, "-o", tmp_path / "b.features.ome.zarr", *way, "--range", "0", "255")
    assert ended.code == 2 and "expected no low, high with the interpolation featureforest" in ended.err.replace(
        "\n", " "
    )


def test_on_a_device_tiles_are_classified_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of stride 1 have no cells beside a tile; torch's CPU stands for a GPU."""
    image = as_image(STACK, axes="ZYX")
    encoder = open_cyto3([image])
    labels = np.zeros(STACK.shape, np.uint8)
    labels[0, :4], labels[0, 30:34] = 1, 2
    forest = fb.train([(image, labels)], encoder=encoder, n_trees=5)
    expected = fb.predict(image, forest, encoder=encoder)
    monkeypatch.setattr(sys.modules["forestbridge.predict"], "find_gpu", lambda name: torch.device("cpu"))
    np.testing.assert_array_equal(fb.predict(image, forest, encoder=encoder, device="cuda"), expected)


class TestConformance(EncoderConformance):
    @pytest.fixture
    def encoder(self):
        return open_cyto3([STACK[0]])


def test_a_plane_without_contrast_is_refused(tmp_path: Path) -> None:
    """FeatureForest stores NaN there."""
    image = as_image(np.stack([STACK[0], np.full_like(STACK[0], 7)]), axes="ZYX")
    with pytest.raises(ImageError, match=r"expected planes with contrast, found that all pixels of t=0 z=1 are 7"):
        fb.extract(image, open_cyto3([image]), tmp_path / "a.features.ome.zarr")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sam2_base", {}, r"expected the patch size of FeatureForest for sam2_base, found none; give images="),
        ("sam2_base", {"tile": 4}, r"patches of at least 8 pixels, and an even overlap, found 4 and overlap 1"),
        ("sam2_base", {"tile": 64, "overlap": 7}, r"an even overlap, found 64 and overlap 7"),
        ("sam2_base", {"tile": 64, "overlap": 64}, r"found 64 and overlap 64"),
        ("sam2_base", {"tile": 64, "zoom": 2}, r"expected no zoom with the interpolation featureforest"),
        ("sam2_base", {"tile": 64, "preprocessing": "network"}, r"expected no preprocessing with the"),
        ("dinov2", {"tile": 140}, r"patches of 70 pixels, overlap 28, and an even overlap, found 140 and overlap 28"),
        ("cellpose_cyto3", {"tile": 64, "channels": 3}, r"expected 1 or 2 channels for cellpose_cyto3, found 3"),
        (
            "cellpose_cyto3",
            {"interpolation": "cubic"},
            r"expected the interpolation bilinear or featureforest.*'cubic'",
        ),
        ("cellpose_cyto3", {"interpolation": "bilinear", "overlap": 4}, r"an overlap with the latter only, found 'bil"),
        ("cellpose_cyto3", {"interpolation": "bilinear"}, r"expected low and high, the raw intensities .* found none"),
    ],
)
def test_refused_settings(name: str, options: dict, message: str) -> None:
    settings = {"channels": 1, "interpolation": "featureforest", **options}
    with pytest.raises(ValueError, match=message):
        plan_deep(network_of(name), **settings)


def test_no_combination_and_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected the interpolation bilinear for filters\+cellpose_cyto3"):
        fb.open_encoder("filters+cellpose_cyto3", images=[STACK[0]], interpolation="featureforest")
    encoder = open_cyto3([STACK[0]])
    message = (
        r"expected the interpolation bilinear for a {}, found featureforest of cellpose_cyto3 .*from the .forest file"
    )
    with pytest.raises(ValueError, match=message.format("graph")):
        export_encoder_onnx(encoder, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=message.format("package")):
        fb.write_encoder_package(tmp_path / "a.zip", encoder)
    labels = np.zeros((64, 70), np.uint8)
    labels[:4], labels[30:34] = 1, 2
    forest = fb.train([(STACK[0], labels)], encoder=encoder, n_trees=2)
    with pytest.raises(ValueError, match=message.format("package")):
        fb.write_package(tmp_path / "a.zip", forest)
    assert not list(tmp_path.iterdir())
    forest.save(tmp_path / "a.forest")
    for kind in ("fused", "forest"):
        ended = call(kind, tmp_path / "a.forest", "-o", tmp_path / "a.zip", "--dry-run", program="ff-package")
        assert ended.code == 2 and "expected the interpolation bilinear for a package" in ended.err.replace("\n", " ")


def test_an_edited_spec_is_refused() -> None:
    spec = open_cyto3([STACK[0]]).spec
    assert encoder_from_spec(spec).spec == spec
    edited = EncoderSpec.from_json(spec.to_json().replace('"overlap":16', '"overlap":8'))
    with pytest.raises(ValueError, match=r"expected cellpose_cyto3 version 1 .*, found version 1"):
        encoder_from_spec(edited)


def test_patches_at_the_end_are_not_those_of_a_clipped_tile() -> None:
    """A last core of one pixel: its patch is the reflection of what lies before, further away than the margin."""
    image = np.random.default_rng(0).integers(0, 255, (73, 97)).astype(np.uint8)
    encoder = patchwise_encoder_of(torch.load(cyto3_file(), weights_only=True), "cellpose_cyto3", tile=64)
    assert deviation(fb.features(image, encoder), theirs(cellpose(73, 97), image)).max() <= TOLERANCE
