"""The OME-Zarr store: the contract of all stores, its files as independent validators see them, damage, bytes read."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from forestbridge.errors import LabelError, OutputExistsError
from forestbridge.extract import extract
from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.stores import (
    ImageFacts,
    store_facts,
    verify_store,
    write_store_labels,
)
from forestbridge.stores.grid import check_names, plan_grid
from small_encoders import local_encoder, noise_image, pooling_encoder
from store_contract import StoreContract


def shard_files(path: Path) -> list[Path]:
    """Return the files of all shards, sorted."""
    return sorted(f for f in (path / "features").rglob("c/**/*") if f.is_file())


class TestOmeZarr(StoreContract):
    """The contract, for uncompressed chunks."""

    @pytest.fixture
    def make_store(self, tmp_path):
        return lambda image, encoder: extract(image, encoder, tmp_path / "a.features.ome.zarr")


class TestCompressedOmeZarr(StoreContract):
    """The contract, for compressed chunks."""

    @pytest.fixture
    def make_store(self, tmp_path):
        return lambda image, encoder: extract(image, encoder, tmp_path / "a.features.ome.zarr", compress=True)


@pytest.fixture
def store_path(tmp_path):
    """A store of 3 × 2 shards that is done."""
    path = tmp_path / "a.features.ome.zarr"
    extract(noise_image("YX", (70, 50)), local_encoder(), path)
    return path


# --- The layout, and what other programs say about it ---


def test_layout_and_codecs(store_path):
    root = json.loads((store_path / "zarr.json").read_text())
    assert root["attributes"]["ome"]["version"] == "0.5"
    (multiscale,) = root["attributes"]["ome"]["multiscales"]
    assert [d["path"] for d in multiscale["datasets"]] == ["features/local/0"]
    assert multiscale["axes"] == [
        {"name": "c", "type": "feature"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    ours = root["attributes"]["forestbridge"]
    own = {"format", "tool", "run_key", "spec", "image", "core", "compress", "done", "input_sha256", "image_statistics"}
    assert set(ours) == own
    assert ours["format"] == 1
    assert ours["done"] is True
    array = json.loads((store_path / "features/local/0/zarr.json").read_text())
    assert array["dimension_names"] == ["c", "y", "x"]
    assert array["fill_value"] == "NaN"
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [3, 32, 32]
    (sharding,) = array["codecs"]
    assert [c["name"] for c in sharding["configuration"]["codecs"]] == ["bytes", "crc32c"]
    run = json.loads((store_path / "forestbridge/run.json").read_text())
    assert run["run_key"] == ours["run_key"]
    assert {"spec", "image", "versions", "batch", "threads"} <= set(run)
    lines = (store_path / "forestbridge/journal.0.jsonl").read_text().splitlines()
    assert [json.loads(line)["shard"] for line in lines] == ["y0.x0", "y0.x1", "y1.x0", "y1.x1", "y2.x0", "y2.x1"]


def test_compressed_chunks_carry_the_checksum_of_zstd(tmp_path):
    path = tmp_path / "a.zarr"
    extract(noise_image("YX", (70, 50)), local_encoder(), path, compress=True)
    array = json.loads((path / "features/local/0/zarr.json").read_text())
    zstd = array["codecs"][0]["configuration"]["codecs"][1]
    assert zstd == {"name": "zstd", "configuration": {"level": 3, "checksum": True}}


def test_scale_and_translation_are_in_physical_units(tmp_path):
    path = tmp_path / "a.zarr"
    extract(noise_image("TZYX", (2, 2, 64, 64)), pooling_encoder(), path)
    ome = json.loads((path / "features/pool.coarse/zarr.json").read_text())["attributes"]["ome"]
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert [a["name"] for a in ome["multiscales"][0]["axes"]] == list("tczyx")
    assert scale["scale"] == [30, 1, 2, 16 * 0.5, 16 * 0.25]
    assert translation["translation"] == [0, 0, 0, 7.5 * 0.5, 7.5 * 0.25]
    assert [c["label"] for c in ome["omero"]["channels"]] == ["coarse 0", "coarse 1", "coarse 2"]


def test_only_three_features_are_shown_at_first(tmp_path):
    path = tmp_path / "a.zarr"
    extract(noise_image("YX", (20, 20)), local_encoder(7), path)
    channels = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["omero"]["channels"]
    assert [c["active"] for c in channels] == [True] * 3 + [False] * 4


CASES = [
    ("YX", (70, 50), local_encoder()),
    ("TCZYX", (2, 2, 3, 70, 50), local_encoder(channels=2)),
    ("ZYX", (9, 40, 35), local_encoder(axes="zyx", tile=(4, 32, 16))),
    ("TYX", (2, 130, 75), pooling_encoder()),
]


@pytest.fixture(params=CASES, ids=["plane", "5D", "3D", "strided"])
def labelled_store(request, tmp_path):
    """A store with labels, its image and its encoder."""
    axes, shape, encoder = request.param
    image = noise_image(axes, shape)
    path = tmp_path / "a.features.ome.zarr"
    extract(image, encoder, path)
    sizes = [image.sizes[a] for a in axes.replace("C", "")]
    labels = np.random.default_rng(0).integers(0, 3, sizes)
    write_store_labels(path, "scribbles", labels, names={1: "background", 2: "nucleus"}, colours={1: "#0000ff"})
    write_store_labels(path, "other", labels)
    return path, image, encoder


def nodes(path: Path) -> list[Path]:
    """Return the store, the groups of its maps and of its labels: what validators must see one by one."""
    groups = [*(path / "features").iterdir(), *(path / "labels").iterdir()]
    return [path, *(g for g in groups if g.is_dir())]


def test_ome_zarr_models_accepts_every_node(labelled_store):
    ome_zarr_models = pytest.importorskip("ome_zarr_models")
    path, _, encoder = labelled_store
    found = [type(ome_zarr_models.open_ome_zarr(node, version="0.5")).__name__ for node in nodes(path)]
    assert found == ["Image"] * (1 + len(encoder.spec.maps)) + ["ImageLabel"] * 2


def test_yaozarrs_accepts_every_node(labelled_store):
    yaozarrs = pytest.importorskip("yaozarrs")
    for node in nodes(labelled_store[0]):
        yaozarrs.validate_zarr_store(str(node))


def test_napari_reads_maps_and_labels(labelled_store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own, at import
        napari_ome_zarr = pytest.importorskip("napari_ome_zarr")
    path, image, encoder = labelled_store
    read = napari_ome_zarr.napari_get_reader(str(path))
    layers = read(str(path))
    (features, *labels) = [data[0] if isinstance(data, list) else data for data, *_ in layers]
    assert [kind for *_, kind in layers] == ["image", "labels", "labels"]
    m = plan_grid(encoder.spec, ImageFacts.of(image)).maps[0]
    assert features.shape == m.shape
    assert all(
        array.shape == tuple(n for a, n in zip(image.axes, image.shape, strict=True) if a != "C") for array in labels
    )
    for node in (path / "features").iterdir():
        if node.is_dir():
            ((data, *_),) = napari_ome_zarr.napari_get_reader(str(node))(str(node))
            assert np.isfinite(np.asarray(data[0])).all()


def test_labels_are_kept_with_names_and_colours(labelled_store):
    import zarr

    path, _, _ = labelled_store
    listed = json.loads((path / "labels/zarr.json").read_text())["attributes"]["ome"]
    assert listed == {"version": "0.5", "labels": ["scribbles", "other"]}
    label = json.loads((path / "labels/scribbles/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert label["version"] == "0.5"
    assert label["source"] == {"image": "../../"}
    assert label["properties"] == [{"label-value": 1, "name": "background"}, {"label-value": 2, "name": "nucleus"}]
    assert label["colors"] == [
        {"label-value": 1, "rgba": [0, 0, 255, 255]},
        {"label-value": 2, "rgba": [0x56, 0xB4, 0xE9, 255]},
    ]
    other = json.loads((path / "labels/other/zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert [p["name"] for p in other["properties"]] == ["1", "2"]
    array = zarr.open_array(path / "labels/scribbles/0", mode="r")
    assert array.dtype == np.uint8
    assert set(np.unique(array[...])) == {0, 1, 2}  # pyright: ignore[reportArgumentType]


def test_labels_are_checked(store_path):
    labels = np.zeros((70, 50), int)
    write_store_labels(store_path, "a", labels)
    with pytest.raises(OutputExistsError, match=r"expected a new name, found labels 'a' .* --overwrite"):
        write_store_labels(store_path, "a", labels)
    write_store_labels(store_path, "a", labels + 300, overwrite=True)
    assert store_facts(store_path)["labels"] == ["a"]
    with pytest.raises(
        LabelError, match=r"expected labels of the image's size {'Y': 70, 'X': 50}, found an array of \(50, 70\)"
    ):
        write_store_labels(store_path, "b", labels.T)
    with pytest.raises(LabelError, match=r"expected labels as integers from 0 .* found int64 from -1"):
        write_store_labels(store_path, "b", labels - 1)
    with pytest.raises(ValueError, match="expected colours as '#rrggbb', found"):
        write_store_labels(store_path, "b", labels, colours={1: "red"})
    with pytest.raises(ValueError, match=r"expected a label name of letters.*found 'a/b'; use 'a_b'"):
        write_store_labels(store_path, "a/b", labels)
    assert verify_store(store_path).ok


@pytest.mark.parametrize(
    "names, message",
    [
        (["../a"], "use 'a'"),
        (["CON"], "found 'CON'; use 'map_CON'"),
        (["a.partial"], "found 'a.partial'"),
        ([""], "found ''; use 'map'"),
        (["a", "A"], "expected map names that differ by more than upper and lower case"),
    ],
)
def test_names_that_are_no_folder_everywhere_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        check_names(names, what="map")


# --- Geometry ---


def spec_of(features: int, *, axes="yx", dtype="float32", stride=1.0, tile=None) -> EncoderSpec:
    """Return a spec of one map."""
    names = tuple(map(str, range(features)))
    m = MapSpec("m", names, stride=stride)
    return EncoderSpec("e", 1, axes, 1, (0,) * len(axes), (m,), {}, {}, tile=tile, dtype=dtype)


@pytest.mark.parametrize(
    "spec, core, chunks",
    [
        (spec_of(49), (512, 512), (49, 32, 32)),
        (spec_of(147), (512, 512), (147, 16, 16)),
        (spec_of(1000), (128, 128), (1000, 8, 8)),
        (spec_of(256, dtype="float16", stride=16), (512, 512), (256, 16, 16)),
        (spec_of(64, dtype="float16", stride=4), (512, 512), (64, 32, 32)),
        (spec_of(384, dtype="float16", stride=14, tile=(518, 518)), (518, 518), (384, 37, 37)),
    ],
)
def test_chunks_are_one_small_read(spec, core, chunks):
    grid = plan_grid(spec, ImageFacts("YX", (2000, 2000), "uint8"))
    assert grid.core == core
    assert grid.maps[0].chunks == chunks


def test_chunks_of_stacks():
    stack = ImageFacts("TCZYX", (2, 3, 50, 300, 300), "uint8")
    grid = plan_grid(spec_of(61, axes="zyx"), stack)
    assert grid.maps[0].axes == "tczyx"
    assert grid.maps[0].chunks == (1, 61, 4, 16, 16)
    assert grid.maps[0].shards == (1, 61, 32, 128, 128)
    assert plan_grid(spec_of(49), stack).maps[0].chunks == (1, 49, 1, 32, 32)


@pytest.mark.parametrize("axes, shape, encoder", CASES)
def test_shards_cover_every_cell_once(axes, shape, encoder):
    grid = plan_grid(encoder.spec, ImageFacts(axes, shape, "uint8"))
    shards = list(grid.shards())
    assert len(shards) == len({s.name for s in shards}) == grid.n_shards
    for m in grid.maps:
        count = np.zeros(m.shape, int)
        for shard in shards:
            count[m.region(shard)] += 1
        assert (count == 1).all()


def test_a_tile_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(
        ValueError, match=r"expected tiles of a whole number of cells, found tiles of \(100, 100\) pixels .* stride 16"
    ):
        plan_grid(spec_of(1, stride=16, tile=(100, 100)), ImageFacts("YX", (20, 20), "uint8"))
