"""The whole line on a synthetic image, as a person walks it: files in, files out, the same classes everywhere. Offline."""

import time
from pathlib import Path

import numpy as np
import tifffile

import forestbridge as fb
from forestbridge.package.reference import run_in_core
from results import whole
from small_line import SELECTION, inside


def test_from_an_image_to_the_same_answer_everywhere(tmp_path: Path) -> None:
    begin = time.perf_counter()
    cells = fb.phantom((128, 144), classes=3, seed=11)
    tifffile.imwrite(tmp_path / "a.tif", cells.image, imagej=True, resolution=(2, 2), metadata={"unit": "micron"})
    tifffile.imwrite(tmp_path / "a_labels.tif", cells.scribbles)

    image = fb.read_image(tmp_path / "a.tif")
    assert image.pixel_size == {"y": 0.5, "x": 0.5}
    encoder = fb.open_encoder("filters", selection=SELECTION)
    store = fb.extract(image, encoder, tmp_path / "a.features.ome.zarr")
    labels = fb.read_scribbles(tmp_path / "a_labels.tif", names=cells.names)
    fb.train([(store, labels)], n_trees=10).save(tmp_path / "nuclei.forest")
    forest = fb.load_forest(tmp_path / "nuclei.forest")
    assert forest.names == cells.names
    assert forest.training["oob_accuracy"] > 0.9

    probabilities = fb.predict(image, forest)
    assert probabilities.shape == (3, 128, 144)
    assert probabilities.dtype == np.float32
    classes = probabilities.argmax(axis=0) + 1
    assert (classes == cells.truth).mean() > 0.9
    np.testing.assert_array_equal(fb.predict(fb.open_store(store.path), forest), probabilities)
    np.testing.assert_array_equal(whole(fb.predict(image, forest, out=tmp_path / "p.ome.zarr")), probabilities)
    written = fb.predict(image, forest, kind="labels", out=tmp_path / "labels.tif")
    np.testing.assert_array_equal(whole(written), classes)
    assert fb.read_image(written).pixel_size == image.pixel_size

    package = tmp_path / "nuclei.zip"
    report = fb.write_package(package, forest, image=image, name="phantom nuclei")
    assert report.good
    tested = {f.weights for f in report.formats if f.engine.startswith("bioimageio.core") and f.status == "passed"}
    assert tested == {"onnx", "torchscript"}
    info = fb.inspect_package(package)
    assert (info.kind, info.spec) == ("fused", forest.spec)

    runner = fb.open_package(package)
    assert np.abs(runner.predict(image) - probabilities).max() < 1e-6
    np.testing.assert_array_equal(runner.predict(image, kind="labels"), classes)
    np.testing.assert_array_equal(whole(runner.predict(image, kind="labels", out=tmp_path / "q.ome.tif")), classes)
    raw = cells.image[None, None].astype(np.float32)  # (1, 1, Y, X)
    for weights in ("onnx", "torchscript"):
        found = run_in_core(package, weights, raw, axes="yx")[0]
        halo = forest.spec.halo if forest.spec else ()
        assert np.abs(inside(found - probabilities, halo)).max() < 1e-6
        np.testing.assert_array_equal(inside(found.argmax(axis=0) + 1, halo), inside(classes, halo))

    left = {p.name for p in tmp_path.iterdir()}
    made = {"a.tif", "a_labels.tif", "a.features.ome.zarr", "nuclei.forest", "p.ome.zarr", "labels.tif", "nuclei.zip"}
    assert left == {*made, "q.ome.tif"}
    print(f"{time.perf_counter() - begin:.0f} s")
