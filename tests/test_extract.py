"""`extract`: the same bytes whatever happens on the way, and a clear refusal of what does not belong together."""

import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from extract_runs import IMAGE, stop_after, tree
from forestbridge.encoders import open_encoder
from forestbridge.errors import (
    ImageError,
    InterruptedRunError,
    OutputExistsError,
    SpecMismatchError,
    StoreError,
)
from forestbridge.extract import extract
from forestbridge.stores import open_store, verify_store
from forestbridge.stores.lock import writer_lock
from small_encoders import CountingEncoder, local_encoder, noise_image, pooling_encoder, whole_maps


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The files of a store that was written in one go."""
    path = tmp_path_factory.mktemp("reference") / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    return tree(path)


# --- Values ---


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (600, 530)])
def test_the_filter_bank_is_stored_as_it_is_on_the_whole_image(tmp_path, shape):
    image = noise_image("YX", shape)
    encoder = open_encoder(
        "filters", selection={"GaussianSmoothing": [0.7, 5.0], "HessianOfGaussianEigenvalues": [1.6]}
    )
    store = extract(image, encoder, tmp_path / "a.features.ome.zarr")
    everything = tuple(slice(0, n) for n in shape)
    (expected,) = encoder.encode(image.region(everything), everything)
    found = store.read_map("filters", spatial=everything)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    y, x = (np.random.default_rng(1).integers(0, n, 50) for n in shape)
    np.testing.assert_array_equal(store.at(np.stack([y, x], axis=1)), found[:, y, x].T)
    assert store.spec == encoder.spec


def test_the_filter_bank_in_3d(tmp_path):
    image = noise_image("ZYX", (9, 40, 30))
    encoder = open_encoder("filters", selection={"GaussianSmoothing": [0.7]}, compute_in_2d=False)
    store = extract(image, encoder, tmp_path / "a.features.ome.zarr")
    everything = (slice(0, 9), slice(0, 40), slice(0, 30))
    (expected,) = encoder.encode(image.region(everything), everything)
    np.testing.assert_allclose(store.read_map("filters", spatial=everything), expected, atol=1e-4)


def test_plain_arrays_are_images(tmp_path):
    pixels = np.random.default_rng(0).random((2, 40, 30))
    store = extract(pixels, local_encoder(channels=2), tmp_path / "a.zarr")
    assert (store.image.axes, store.image.source, store.image.dtype) == ("CYX", "array", "float64")
    with pytest.raises(StoreError, match=r"forestbridge.extract\(image, encoder, '.*b.zarr'\)"):
        stop_and_open(pixels, tmp_path / "b.zarr")


def stop_and_open(pixels, path):
    """Interrupt an extraction at its start and open what is there."""

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        extract(pixels, local_encoder(channels=2), path, progress=stop)
    open_store(path)


# --- The same bytes ---


def test_done_is_done(tmp_path, caplog, reference):
    path = tmp_path / "a.zarr"
    encoder = CountingEncoder(local_encoder())
    extract(IMAGE, encoder, path)
    assert encoder.calls == 12
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}
    seen = []
    with caplog.at_level(logging.INFO):
        store = extract(IMAGE, encoder, path, progress=lambda *n: seen.append(n))
    assert encoder.calls == 12
    assert seen == [(12, 12)]
    assert "12 of 12 shards were there, 0 to compute" in caplog.text
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()} == before
    assert store.done
    assert tree(path) == reference


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_bytes_depend_neither_on_jobs_nor_on_interruptions(tmp_path, caplog, reference, jobs):
    path = tmp_path / "a.zarr"
    for shards in (0, 1, 5, 5, 11):
        with pytest.raises(
            InterruptedRunError, match=r"everything done so far is kept; go on with: forestbridge extract noise.tif -o"
        ):
            extract(IMAGE, local_encoder(), path, progress=stop_after(shards), jobs=jobs)
        assert len(open_store(path, allow_partial=True).missing()) == 12 - shards
        assert not (path / "forestbridge/lock").exists()
        assert verify_store(path).ok
    with caplog.at_level(logging.INFO):
        extract(IMAGE, local_encoder(), path, jobs=jobs)
    assert "11 of 12 shards were there, 1 to compute" in caplog.text
    assert tree(path) == reference


def test_bytes_do_not_depend_on_the_order(tmp_path, reference):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    journal = path / "forestbridge/journal.0.jsonl"
    rng = np.random.default_rng(0)
    for _ in range(5):
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(lines[k] for k in rng.permutation(12)[:6]))
        extract(IMAGE, local_encoder(), path, jobs=3)
        assert tree(path) == reference


def test_other_journals_count_too(tmp_path, reference):
    """A store that several workers wrote has one journal of each."""
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    journal = path / "forestbridge/journal.0.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]))
    journal.with_name("journal.7.jsonl").write_text("".join(lines[4:]))
    encoder = CountingEncoder(local_encoder())
    assert extract(IMAGE, encoder, path).missing() == []
    assert encoder.calls == 0
    journal.with_name("journal.7.jsonl").write_text("".join(lines[5:]))
    extract(IMAGE, encoder, path)
    assert encoder.calls == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "junk", "empty"])
def test_a_damaged_journal_costs_time_only(tmp_path, reference, damage):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    journal = path / "forestbridge/journal.0.jsonl"
    text = bytearray(journal.read_bytes())
    match damage:
        case "cut":
            del text[-40:]
        case "flip":
            text[text.index(b'"input":"') + 12] ^= 1
        case "junk":
            text += b"[]\n{}\n\xff\n"
        case "empty":
            text.clear()
    journal.write_bytes(text)
    extract(IMAGE, local_encoder(), path)
    assert tree(path) == reference


def test_temporary_files_of_a_killed_run_are_swept(tmp_path, caplog, reference):
    path = tmp_path / "a.zarr"
    with pytest.raises(InterruptedRunError):
        extract(IMAGE, local_encoder(), path, progress=stop_after(3))
    left = path / "features/local/0/c/0/0/0.1234abcd.partial"
    left.write_bytes(b"half a shard")
    (path / "labels/x.partial").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        extract(IMAGE, local_encoder(), path)
    assert not left.exists()
    assert "removed 2 temporary file(s) of an interrupted run" in caplog.text
    (path / "labels").rmdir()
    assert tree(path) == reference


def test_skeletons_of_killed_runs_are_swept(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    left, other = (
        tmp_path / f".a.zarr.{int(dead.stdout)}-abcd.partial",
        tmp_path / f".a.zarr.{os.getpid()}-abcd.partial",
    )
    for folder in (left, other):
        folder.mkdir()
        (folder / "zarr.json").write_text("{}")
    extract(IMAGE, local_encoder(), tmp_path / "a.zarr")
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("damage", ["missing", "size", "content"])
def test_damaged_shards_are_computed_again(tmp_path, caplog, reference, damage):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    file = path / "features/local/0/c/0/2/1"
    match damage:
        case "missing":
            file.unlink()
        case "size":
            file.write_bytes(file.read_bytes()[:-1])
        case "content":
            file.write_bytes(bytes(file.stat().st_size))
    encoder = CountingEncoder(local_encoder())
    if damage == "content":  # the same size: only decoding tells
        extract(IMAGE, encoder, path)
        assert encoder.calls == 0
    extract(IMAGE, encoder, path, repair=damage == "content")
    assert encoder.calls == 1
    assert "shard y2.x1 will be computed again: map 'local'" in caplog.text
    assert tree(path) == reference


def test_a_store_is_not_done_while_it_is_repaired(tmp_path):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    (path / "features/local/0/c/0/2/1").unlink()
    with pytest.raises(InterruptedRunError):
        extract(IMAGE, local_encoder(), path, progress=stop_after(11))
    assert not open_store(path, allow_partial=True).done


def test_points_of_a_partial_store(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(InterruptedRunError):
        extract(IMAGE, local_encoder(), path, progress=stop_after(2))
    store = open_store(path, allow_partial=True)
    (expected,) = whole_maps(IMAGE, local_encoder(), 0, 0)
    np.testing.assert_array_equal(store.at([[31, 63]]), expected[:, 31:32, 63].T)
    with pytest.raises(StoreError, match=r"found that 2 shard\(s\) .* not extracted yet: y0.x2, y1.x0; go on with"):
        store.at([[31, 63], [31, 64], [32, 0]])
    both = store.read_map("local", spatial=(slice(0, 32), slice(60, 68)))
    np.testing.assert_array_equal(both[:, :, :4], expected[:, :32, 60:64])
    assert np.isnan(both[:, :, 4:]).all()


# --- What does not belong together ---


def test_another_encoder_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    with pytest.raises(
        SpecMismatchError,
        match=r"extract expects the features of local \[.*store .*a.zarr has those of local .*maps: .*; give another",
    ):
        extract(IMAGE, local_encoder(4), path)
    with pytest.raises(SpecMismatchError, match="--overwrite"):
        extract(IMAGE, pooling_encoder(), path)


def test_another_image_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    before = tree(path)
    with pytest.raises(
        SpecMismatchError,
        match=r"expected the image of store .* \(noise.tif\), found another one, noise.tif "
        r"\(shape: \[90, 100\] against \[100, 90\]\)",
    ):
        extract(noise_image("YX", (90, 100)), local_encoder(), path)
    changed = np.array(IMAGE.data[:, :])  # pyright: ignore[reportCallIssue, reportArgumentType]
    changed[99, 89] += 1
    other = replace(IMAGE, data=changed, source="other.tif")
    with pytest.raises(
        SpecMismatchError,
        match=r"found other pixels in shard y3.x2 of other.tif: sha256 [0-9a-f]{16} against [0-9a-f]{16}",
    ):
        extract(other, local_encoder(), path)
    assert tree(path) == before


def test_another_image_is_refused_while_the_store_is_partial(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(InterruptedRunError):
        extract(IMAGE, local_encoder(), path, progress=stop_after(1))
    with pytest.raises(SpecMismatchError, match=r"found other pixels in shard y0.x0 of noise.tif"):
        extract(noise_image("YX", (100, 90), seed=9), local_encoder(), path)


def test_other_metadata_of_the_same_image_is_noted(tmp_path, caplog):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    extract(replace(IMAGE, pixel_size={"y": 1.0}), local_encoder(), path, compress=True)
    assert "the store keeps its image's pixel_size {'x': 0.25, 'y': 0.5}; this image says {'y': 1.0}" in caplog.text
    assert "the store was begun without compression and stays so" in caplog.text


def test_overwrite_replaces_a_store_and_nothing_else(tmp_path, reference):
    path = tmp_path / "a.zarr"
    extract(IMAGE, pooling_encoder(), path)
    extract(IMAGE, local_encoder(), path, overwrite=True)
    assert tree(path) == reference
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputExistsError, match="folder exists and is no feature store; it is left as it is"):
        extract(IMAGE, local_encoder(), tmp_path / "folder", overwrite=True)


def test_overwrite_heals_a_store_with_damaged_metadata(tmp_path, reference):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="expected the root group of a feature store as JSON"):
        extract(IMAGE, local_encoder(), path)
    extract(IMAGE, local_encoder(), path, overwrite=True)
    assert tree(path) == reference


def test_overwrite_does_not_pull_a_store_from_under_its_writer(tmp_path):
    path = tmp_path / "a.zarr"
    extract(IMAGE, local_encoder(), path)
    with writer_lock(path), pytest.raises(StoreError, match="expected to be the only writer"):
        extract(IMAGE, local_encoder(), path, overwrite=True)
    assert verify_store(path).ok
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_the_number_of_channels_must_fit(tmp_path):
    with pytest.raises(ImageError, match="expected 2 channel"):
        extract(IMAGE, local_encoder(channels=2), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="expected at least one job, found 0"):
        extract(IMAGE, local_encoder(), tmp_path / "a.zarr", jobs=0)
