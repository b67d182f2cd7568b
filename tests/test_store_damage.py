"""What a store refuses, what `verify_store` finds, and what reading it costs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from forestbridge.errors import OutputExistsError, ResourceError, StoreError
from forestbridge.extract import extract
from forestbridge.image import Image
from forestbridge.stores import (
    ImageFacts,
    create_store,
    open_store,
    store_facts,
    verify_store,
)
from small_encoders import local_encoder, noise_image, whole_maps


def shard_files(path: Path) -> list[Path]:
    """Return the files of all shards, sorted."""
    return sorted(f for f in (path / "features").rglob("c/**/*") if f.is_file())


@pytest.fixture
def store_path(tmp_path):
    """A store of 3 × 2 shards that is done."""
    path = tmp_path / "a.features.ome.zarr"
    extract(noise_image("YX", (70, 50)), local_encoder(), path)
    return path


# --- Opening and creating ---


def test_open_refuses_what_is_no_store(tmp_path, store_path):
    with pytest.raises(
        StoreError, match=r"expected a feature store at .*none.zarr, found nothing; make one with: forestbridge extract"
    ):
        open_store(tmp_path / "none.zarr")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"found that .*file is another file"):
        open_store(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        StoreError, match=r"expected the root group of a feature store in .*folder/zarr.json, found no such file"
    ):
        open_store(tmp_path / "folder")
    with pytest.raises(StoreError, match="is another zarr"):
        open_store(store_path / "features/local")
    with pytest.raises(StoreError, match=r"expected the folder of a feature store .* found none at"):
        store_facts(tmp_path / "none.zarr")


def edit_root(path: Path, **changes) -> None:
    """Change our attributes in the root."""
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["forestbridge"] |= changes
    (path / "zarr.json").write_text(json.dumps(root))


def test_open_refuses_other_formats_and_changed_metadata(store_path):
    ours = json.loads((store_path / "zarr.json").read_text())["attributes"]["forestbridge"]
    edit_root(store_path, format=2)
    with pytest.raises(StoreError, match=r"expected store format 1, found 2 in .*; update forestbridge"):
        open_store(store_path)
    edit_root(store_path, format=1, spec=ours["spec"] | {"version": 2})
    with pytest.raises(StoreError, match="its metadata was changed"):
        open_store(store_path)
    edit_root(store_path, spec=ours["spec"], image=ours["image"] | {"shape": "?"})
    with pytest.raises(
        StoreError, match=r"expected the attributes of a feature store in .*zarr.json, found: ValueError"
    ):
        open_store(store_path)
    edit_root(store_path, image=ours["image"])
    assert open_store(store_path).done
    array = store_path / "features/local/0/zarr.json"
    text = array.read_text()
    array.write_text(text.replace("float32", "float64"))
    with pytest.raises(
        StoreError, match=r"expected the array of map 'local' as its store describes it, found in .*: data_type float64"
    ):
        open_store(store_path)
    array.write_text(text[:100])
    with pytest.raises(StoreError, match=r"expected the array of map 'local' as JSON in .*/features/local/0/zarr.json"):
        open_store(store_path)
    array.write_text("[]")
    with pytest.raises(StoreError, match=r"as a JSON object in .*, found list"):
        open_store(store_path)
    array.write_text("{}")
    with pytest.raises(StoreError, match=r"expected the array of map 'local' in .*, found: KeyError"):
        open_store(store_path)
    array.unlink()
    with pytest.raises(StoreError, match="found no such file; restore it, or extract again"):
        open_store(store_path)


def test_a_flipped_bit_in_the_metadata_is_noticed_or_harmless(store_path):
    file = store_path / "zarr.json"
    good = file.read_bytes()
    whole = open_store(store_path)
    points = np.array([[0, 0], [69, 49]])
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.integers(len(good))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        try:
            store = open_store(store_path)
        except StoreError:
            noticed += 1
            continue
        assert store.spec == whole.spec
        np.testing.assert_array_equal(store.at(points), whole.at(points))
    assert noticed > 100


def test_a_new_store_is_empty_and_says_so(tmp_path):
    image = noise_image("YX", (70, 50))
    path = tmp_path / "a.zarr"
    store = create_store(path, local_encoder().spec, ImageFacts.of(image))
    assert not store.done
    assert len(store.missing()) == 6
    assert np.isnan(store.read_map("local", spatial=(slice(0, 70), slice(0, 50)))).all()
    with pytest.raises(
        StoreError,
        match=r"6 shard\(s\) of .* are not extracted yet: y0.x0, .*; go on with: forestbridge extract noise.tif -o",
    ):
        store.at([[y, x] for y in (0, 40, 69) for x in (0, 40)])
    with pytest.raises(
        StoreError,
        match=r"expected a store that is done, found 0 of 6 shards in .*; finish it with: .*allow_partial=True",
    ):
        open_store(path)
    assert not open_store(path, allow_partial=True).done
    with pytest.raises(OutputExistsError, match="exists; give another name or --overwrite"):
        create_store(path, local_encoder().spec, ImageFacts.of(image))


def test_what_is_no_store_is_never_replaced(tmp_path):
    facts = ImageFacts.of(noise_image("YX", (70, 50)))
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "precious.txt").write_text("x")
    file.write_text("x")
    for path in (folder, file):
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match="exists and is no feature store; it is left as it is"):
                create_store(path, local_encoder().spec, facts, overwrite=overwrite)
    assert (folder / "precious.txt").read_text() == file.read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_that_cannot_be_written_fails_before(tmp_path):
    facts = ImageFacts.of(noise_image("YX", (70, 50)))
    with pytest.raises(ResourceError, match=r"expected the folder .*none for a.zarr, found none"):
        create_store(tmp_path / "none/a.zarr", local_encoder().spec, facts)


# --- Facts and verification ---


def test_facts_are_json(store_path):
    facts = json.loads(json.dumps(store_facts(store_path)))
    assert facts["done"] is True
    assert facts["shards"] == {"done": 6, "total": 6}
    assert facts["encoder"]["features"] == 3
    assert facts["encoder"]["fingerprint"] == local_encoder().spec.fingerprint()
    assert facts["image"]["source"] == "noise.tif"
    (m,) = facts["maps"]
    assert m["shape"] == [3, 70, 50]
    assert m["bytes"] == sum(f.stat().st_size for f in shard_files(store_path))


def test_verify_counts_what_it_compared(store_path):
    report = verify_store(store_path)
    assert report.ok
    assert (report.shards, report.shards_done) == (6, 6)
    assert report.n_bytes == 6 * 3 * 32 * 32 * 4


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing", "zeros"])
def test_a_damaged_shard_is_named_and_repaired(tmp_path, compress, damage):
    image, encoder, path = noise_image("YX", (70, 50)), local_encoder(), tmp_path / "a.zarr"
    extract(image, encoder, path, compress=compress)
    file = path / "features/local/0/c/0/1/0"
    good = file.read_bytes()
    bad = bytearray(good)
    match damage:
        case "flip":
            bad[100] ^= 4
        case "truncate":
            del bad[-7:]
        case "empty":
            bad.clear()
        case "zeros":
            bad[64:128] = bytes(64)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(bad)
    store = open_store(path)
    np.testing.assert_array_equal(store.at([[0, 0]]), whole_maps(image, encoder, 0, 0)[0][:, :1, 0].T)
    reason = (
        r"without a file, or with an empty one: y1.x0; recompute"
        if damage in {"missing", "empty"}
        else r"shard y1.x0 of map 'local' damaged .file features/local/0/c/0/1/0"
    )
    with pytest.raises(StoreError, match=f"{reason}.*--repair"):
        store.at([[40, 5]])
    with pytest.raises(StoreError, match=reason):
        store.read_map("local", spatial=(slice(32, 64), slice(0, 32)))
    with pytest.raises(
        StoreError,
        match="y1.x0" if damage in {"missing", "empty"} else "one of the shards y0.x0 to y2.x1 of map 'local' damaged",
    ):
        store.read_map("local", spatial=(slice(0, 70), slice(0, 50)))
    (problem,) = verify_store(path).problems
    assert problem.shard == "y1.x0"
    extract(image, encoder, path, repair=True)
    assert file.read_bytes() == good
    assert verify_store(path).ok


@pytest.mark.parametrize("compress", [False, True])
def test_every_flipped_bit_of_a_shard_is_detected(tmp_path, compress):
    path = tmp_path / "a.zarr"
    extract(noise_image("YX", (30, 20)), local_encoder(), path, compress=compress)
    (file,) = shard_files(path)
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        bad = bytearray(good)
        bad[rng.integers(len(good))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        assert not verify_store(path).ok
    file.write_bytes(good)
    assert verify_store(path).ok


def test_verify_notices_a_shard_of_another_place(store_path):
    """Each file is intact, but they were exchanged: only the journal's hashes tell."""
    first, second = (store_path / f"features/local/0/c/0/{y}/0" for y in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    problems = verify_store(store_path).problems
    assert [p.shard for p in problems] == ["y0.x0", "y1.x0"]
    assert "its values differ from those that were written" in problems[0].reason


def test_verify_notices_a_lost_journal(store_path):
    journal = store_path / "forestbridge/journal.0.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[1:]))
    (problem,) = verify_store(store_path).problems
    assert (problem.shard, problem.reason) == ("y0.x0", "the journal does not name it, though the store is done")
    journal.write_text("".join(lines))
    edit_root(store_path, input_sha256="0" * 64)
    (problem,) = verify_store(store_path).problems
    assert problem.reason == "the hash over all inputs differs from the one in zarr.json"


def test_a_store_moves_with_its_folder(store_path, tmp_path):
    shutil.move(store_path, tmp_path / "elsewhere.zarr")
    assert verify_store(tmp_path / "elsewhere.zarr").ok


# --- Bytes read ---


def bytes_read() -> int:
    """Return the bytes that this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io, which counts the bytes read")
def test_scribbles_read_only_the_chunks_they_touch(tmp_path):
    """3,000 pixels in 60 strokes of a 4096² image: below 50 MB with the 49 features of the filter bank."""
    features = 1
    encoder = local_encoder(features, tile=None)
    image = Image(np.broadcast_to(np.uint8(7), (4096, 4096)), "YX", pixel_size={})
    store = extract(image, encoder, tmp_path / "a.zarr", jobs=2)
    rng = np.random.default_rng(0)
    start, angle = rng.uniform(60, 4036, (60, 1, 2)), rng.uniform(0, 2 * np.pi, 60)
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)[:, None]  # (60, 1, 2)
    points = (start + np.arange(50)[:, None] * direction).astype(int).reshape(-1, 2)
    store.at(points[:1])  # opens the arrays
    before = bytes_read()
    found = store.at(points)
    read = bytes_read() - before
    assert (found == 7).all()
    chunks = len(np.unique(points // 32, axis=0))
    overhead = (
        (512 // 32) ** 2 * 16 + 4 + 8192
    )  # the index of the shard is read for each chunk, through a buffer of 8 KiB
    assert read <= chunks * (features * 32 * 32 * 4 + 4 + overhead) + 10_000
    assert chunks * (49 * 32 * 32 * 4 + 4 + overhead) < 50e6
