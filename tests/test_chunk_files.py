"""Single cells read from the files of a store equal what zarr reads, and no index leads outside its file."""

import io
from pathlib import Path

import numpy as np
import pytest
import zarr
from google_crc32c import value as crc32c
from zarr.codecs import Crc32cCodec, ZstdCodec

from forestbridge.extract import extract
from forestbridge.stores import open_store
from forestbridge.stores.chunk_files import ABSENT, CRC_BYTES, ShardFile, read_cells
from forestbridge.stores.ome_zarr import OmeZarrStore
from small_encoders import local_encoder, noise_image, pooling_encoder


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("axes", "shape", "encoder"),
    [
        ("YX", (150, 130), local_encoder(tile=(64, 64))),
        ("TYX", (3, 70, 90), local_encoder(tile=(32, 64))),
        ("ZYX", (9, 40, 50), local_encoder(axes="zyx", tile=(4, 32, 32))),
        ("YX", (300, 270), pooling_encoder()),
    ],
    ids=["plane", "time", "volume", "strides"],
)
def test_cells_equal_those_of_zarr(tmp_path: Path, compress: bool, axes: str, shape: tuple, encoder) -> None:
    store = extract(noise_image(axes, shape), encoder, tmp_path / "a.zarr", compress=compress)
    assert isinstance(store, OmeZarrStore)
    rng = np.random.default_rng(0)
    for m in store.grid.maps:
        every = np.moveaxis(np.asarray(store._arrays[m.spec.name]), m.axes.index("c"), 0)
        for shard in store.grid.shards():
            slices = [r for a, r in zip(m.axes, m.region(shard), strict=True) if a != "c"]
            cells = [rng.integers(0, r.stop - r.start, 50) for r in slices]
            with (tmp_path / "a.zarr" / m.shard_file(shard.index)).open("rb") as file:
                found = read_cells(file, m, cells, compress=compress)
            places = [r.start + c for r, c in zip(slices, cells, strict=True)]
            np.testing.assert_array_equal(found, every[(slice(None), *places)].T)
            assert found.dtype == np.float32


@pytest.mark.parametrize("compress", [False, True])
def test_shards_equal_those_of_zarr(tmp_path: Path, compress: bool) -> None:
    """zarr reads from them what it reads from its own, whole, at the image's borders, and where chunks are absent."""
    store = extract(
        noise_image("TYX", (2, 150, 130)), local_encoder(tile=(64, 64)), tmp_path / "a.zarr", compress=compress
    )
    assert isinstance(store, OmeZarrStore)
    [m] = store.grid.maps
    ours = np.asarray(store._arrays[m.spec.name])
    theirs = zarr.create_array(tmp_path / "b.zarr", shape=m.shape, dtype=m.dtype, zarr_format=3, shards=m.shards,
        chunks=m.chunks, fill_value=np.nan, config={"write_empty_chunks": True},
        compressors=[ZstdCodec(level=3, checksum=True) if compress else Crc32cCodec()])  # fmt: skip
    for shard in store.grid.shards():
        theirs[m.region(shard)] = ours[m.region(shard)]
        mine, other = store.path / m.shard_file(shard.index), tmp_path / "b.zarr" / m.shard_file(shard.index)
        other = tmp_path / "b.zarr" / other.relative_to(tmp_path / "b.zarr" / m.path)
        assert mine.stat().st_size == other.stat().st_size
        with mine.open("rb") as a, other.open("rb") as b:
            files = [ShardFile(f, m, compress=compress) for f in (a, b)]
            inside = [-(-(r.stop - r.start) // c) for r, c in zip(m.region(shard), m.chunks, strict=True)]
            absent = 0
            for index in np.ndindex(files[0]._grid):
                if all(i < n for i, n in zip(index, inside, strict=True)):
                    np.testing.assert_array_equal(*(f.chunk(index) for f in files))
                else:
                    absent += 1
                    with pytest.raises(ValueError, match="chunks are missing"):
                        files[0].chunk(index)
    assert absent > 0


def test_points_that_share_cells_and_come_in_any_order(tmp_path: Path) -> None:
    store = extract(noise_image("YX", (300, 270)), pooling_encoder(), tmp_path / "a.zarr")
    points = np.random.default_rng(1).integers(0, 270, (400, 2))
    whole = store.at(points)
    order = np.random.default_rng(2).permutation(400)
    np.testing.assert_array_equal(store.at(points[order]), whole[order])
    np.testing.assert_array_equal(store.at(np.repeat(points, 3, axis=0)), np.repeat(whole, 3, axis=0))
    np.testing.assert_array_equal(np.concatenate([store.at(p[None]) for p in points[:40]]), whole[:40])
    assert store.at(np.empty((0, 2))).shape == (0, 5)


@pytest.mark.parametrize(
    ("offset", "length", "message"),
    [
        (0, 2**63, "expected chunks in the .* bytes of the file, found one up to byte 9223372036854775808"),
        (10**6, 100, "expected chunks in the .* bytes of the file, found one up to byte 1000100"),
        (ABSENT, ABSENT, "chunks are missing"),
        (0, 8, "checksum|expected a chunk of|[Zz]std"),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_an_index_with_a_good_checksum_is_not_believed(
    tmp_path: Path, compress: bool, offset: int, length: int, message: str
) -> None:
    extract(noise_image("YX", (30, 20)), local_encoder(), tmp_path / "a.zarr", compress=compress)
    store = open_store(tmp_path / "a.zarr")
    assert isinstance(store, OmeZarrStore)
    [m] = store.grid.maps
    data = bytearray((tmp_path / "a.zarr" / m.shard_file((0, 0))).read_bytes())
    entries = data[-CRC_BYTES - 16 : -CRC_BYTES]  # one chunk
    entries[:] = offset.to_bytes(8, "little") + length.to_bytes(8, "little")
    data[-CRC_BYTES - 16 :] = bytes(entries) + crc32c(bytes(entries)).to_bytes(4, "little")
    shard = ShardFile(io.BytesIO(bytes(data)), m, compress=compress)
    with pytest.raises((ValueError, RuntimeError), match=message):
        shard.chunk((0, 0, 0))


def test_only_the_chunks_asked_for_are_read(tmp_path: Path) -> None:
    class Counting(io.FileIO):
        read_bytes = 0

        def readall(self) -> bytes:  # never asked for
            raise AssertionError("the whole file")

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    store = extract(noise_image("YX", (256, 256)), local_encoder(8, tile=(256, 256)), tmp_path / "a.zarr")
    assert isinstance(store, OmeZarrStore)
    [m] = store.grid.maps
    file = Counting(tmp_path / "a.zarr" / m.shard_file((0, 0)))
    with file:
        read_cells(file, m, [np.array([0, 1, 255]), np.array([0, 1, 255])], compress=False)  # type: ignore[arg-type]
        chunks = (m.shape[1] // m.chunks[1]) * (m.shape[2] // m.chunks[2])
        assert file.read_bytes == 2 * (int(np.prod(m.chunks)) * 4 + 4) + 16 * chunks + CRC_BYTES
