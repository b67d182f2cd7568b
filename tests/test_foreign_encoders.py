"""Packages of other programs as encoders: the contract, axes, steps, the line by Python and command, and refusals."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import torch
from torch import nn

import forestbridge as fb
from command_line import call, write_line
from foreign_encoders import Maps, exported, foreign_package, onnx_of
from forestbridge.encoders import Encoder, encoder_from_spec
from forestbridge.encoders.conformance import EncoderConformance
from forestbridge.errors import ImageError, PackageError, SpecMismatchError, TrustError
from packages import build, npy, to_yaml, write_zip


def network(channels: int = 1) -> Maps:
    return Maps([nn.Conv2d(channels, 4, 3, 1, 1), nn.Tanh()], [nn.Conv2d(4, 6, 2, 2)])


class TestConformance(EncoderConformance):
    @pytest.fixture
    def encoder(self, tmp_path: Path) -> Encoder:
        return fb.open_encoder(foreign_package(tmp_path / "two.zip", network(2), channels=2, size=64))


PICTURE = np.random.default_rng(0).integers(0, 4000, (2, 64, 96)).astype(np.uint16)

STEPS: dict[str, list[dict[str, Any]]] = {
    "linear": [
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        {"id": "scale_linear", "kwargs": {"axis": "channel", "gain": [0.001, 0.002], "offset": [0.1, -0.1]}},
        {"id": "clip", "kwargs": {"min": 0.2, "max": 3.0}},
    ],
    "fixed": [{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 2000.0, "std": 1200.0}}],
    "binarize": [{"id": "binarize", "kwargs": {"threshold": 1500.0}}],
    "sigmoid": [
        {
            "id": "fixed_zero_mean_unit_variance",
            "kwargs": {"mean": [100.0, 3000.0], "std": [900.0, 500.0], "axis": "channel"},
        },
        {"id": "sigmoid"},
    ],
    "percentiles": [
        {"id": "scale_range", "kwargs": {"axes": ["x", "y"], "min_percentile": 1.0, "max_percentile": 99.8}},
        {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
    ],
    "variance": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}}],
    "together": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "x", "y"]}}],
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # bioimageio.spec leaves the zip open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", STEPS)
def test_steps_are_those_of_bioimageio_core(tmp_path: Path, name: str) -> None:
    """What the network sees of one whole picture is what bioimageio.core makes of it."""
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.core.proc_setup import setup_pre_and_postprocessing
    from bioimageio.spec import load_model_description

    from forestbridge.encoders.package_steps import apply_steps, freeze_steps, read_steps

    path = foreign_package(tmp_path / "a.zip", network(2), channels=2, steps=STEPS[name])
    info = fb.inspect_package(path)
    steps = freeze_steps(read_steps(info, info.inputs[0]), images=[fb.as_image(PICTURE)], limits=None, source="a.zip")
    found = apply_steps(steps, PICTURE.astype(np.float32))
    model = load_model_description(path, perform_io_checks=False, format_version="latest")
    sample = create_sample_for_model(model, inputs={"raw": PICTURE[None].astype(np.float32)})  # pyright: ignore[reportArgumentType]
    for step in setup_pre_and_postprocessing(model, dataset_for_initial_statistics=[]).pre:  # pyright: ignore[reportArgumentType]
        step(sample)
    [expected] = [member.data.to_numpy() for member in sample.members.values()]
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)


def test_statistics_are_measured_once(tmp_path: Path) -> None:
    path = foreign_package(tmp_path / "a.zip", network(2), channels=2, steps=STEPS["percentiles"])
    encoder = fb.open_encoder(path, images=[PICTURE])
    [scale, clip] = encoder.spec.intensity["steps"]
    np.testing.assert_allclose(scale["mean"], np.percentile(PICTURE.reshape(2, -1), 1, axis=1), rtol=1e-6)
    assert clip == {"step": "clip", "min": 0.0, "max": 1.0}
    given = fb.open_encoder(path, low=[0, 0], high=[4000, 2000])
    assert given.spec.intensity["steps"][0]["mean"] == [0, 0]
    np.testing.assert_allclose(given.spec.intensity["steps"][0]["std"], [4000, 2000])
    again = encoder_from_spec(type(encoder.spec).from_json(encoder.spec.to_json()), weights=path)
    np.testing.assert_array_equal(fb.features(PICTURE, again), fb.features(PICTURE, encoder))
    with pytest.raises(ValueError, match=r"expected constants for scale_range of .*a.zip, .*; give images=\[...\]"):
        fb.open_encoder(path)
    variance = foreign_package(tmp_path / "b.zip", network(2), channels=2, steps=STEPS["variance"])
    with pytest.raises(
        ValueError, match=r"expected low and high .* for a package .* scale_range, found the steps zero_mean"
    ):
        fb.open_encoder(variance, low=[0, 0], high=[1, 1])


class Turned(nn.Module):
    """From (y, x, c) to (x, f, y) and (y, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = network(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return two maps of one picture."""
        fine, coarse = self.maps(x.permute(2, 0, 1)[None])
        return fine[0].permute(2, 0, 1), coarse[0, 0]


def test_axes_in_any_order(tmp_path: Path) -> None:
    turned = Turned()
    graph = exported(turned, torch.zeros(64, 64, 2))

    def change(rdf: dict[str, Any]) -> None:
        def pick(tensor: dict[str, Any], order: str) -> None:
            by = {"b": 0, "c": 1, "y": 2, "x": 3}
            tensor["axes"] = [tensor["axes"][by[letter]] for letter in order]
            tensor.pop("test_tensor")

        pick(rdf["inputs"][0], "yxc")
        pick(rdf["outputs"][0], "xcy")
        pick(rdf["outputs"][1], "yx")
        rdf["weights"]["onnx"].pop("sha256")

    plain = foreign_package(tmp_path / "plain.zip", turned.maps, channels=2, size=64)
    with zipfile.ZipFile(plain) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    rdf = yaml.safe_load(files["rdf.yaml"])
    change(rdf)
    files |= {"weights.onnx": graph, "rdf.yaml": to_yaml(rdf)}
    encoder = fb.open_encoder(write_zip(tmp_path / "turned.zip", files))
    found, expected = fb.features(PICTURE, encoder), fb.features(PICTURE, fb.open_encoder(plain))
    assert encoder.spec.n_features == 5
    np.testing.assert_allclose(found, expected[:5], rtol=1e-5, atol=1e-2)


def test_steps_after_the_model(tmp_path: Path) -> None:
    def after(rdf: dict[str, Any]) -> None:
        rdf["outputs"][1].update(postprocessing=[{"id": "scale_linear", "kwargs": {"gain": 2.0}}])

    plain = foreign_package(tmp_path / "a.zip", network(2), channels=2)
    doubled = foreign_package(tmp_path / "b.zip", network(2), channels=2, change=after)
    a, b = (fb.features(PICTURE, fb.open_encoder(p)) for p in (plain, doubled))
    np.testing.assert_allclose(b[4:], 2 * a[4:], rtol=1e-5)
    np.testing.assert_array_equal(b[:4], a[:4])


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_line(tmp_path)
    steps = [{"id": "scale_range", "kwargs": {"min_percentile": 1.0, "max_percentile": 99.0}}]
    foreign_package(tmp_path / "net.zip", network(), steps=steps)
    for arguments in (
        ("extract", "a.tif", "-o", "n.features.ome.zarr", "--encoder", "net.zip", "--tile", "96"),
        ("train", "n.features.ome.zarr", "--labels", "a_labels.tif", "--n-trees", "5", "-o", "n.forest"),
        ("predict", "n.features.ome.zarr", "--forest", "n.forest", "-o", "s.npy"),
        ("predict", "a.tif", "--forest", "n.forest", "--weights", "net.zip", "-o", "i.npy"),
        ("extract", "a.tif", "-o", "b.features.ome.zarr", "--like", "n.forest", "--weights", "net.zip"),
        ("extract", "a.tif", "-o", "c.features.ome.zarr", "--encoder", "net.zip+filters"),
        (
            "train",
            "a.tif",
            "--labels",
            "a_labels.tif",
            "--n-trees",
            "5",
            "--encoder",
            "filters+net.zip",
            "-o",
            "c.forest",
        ),
        ("predict", "a.tif", "--forest", "c.forest", "--weights", "net.zip", "-o", "c.npy"),
    ):
        ended = call(*arguments)
        assert ended.code == 0, ended.err
    np.testing.assert_allclose(np.load("i.npy"), np.load("s.npy"), atol=1e-6)
    spec = fb.open_store("n.features.ome.zarr").spec
    assert fb.open_store("b.features.ome.zarr").spec == spec
    assert [m.name for m in fb.open_store("c.features.ome.zarr").spec.maps][:2] == ["package.map0", "package.map1"]
    ended = call("predict", "a.tif", "--forest", "n.forest", "-o", "x.npy")
    assert ended.code != 0
    assert f"the package 'nuclei-filters' with ONNX weights of the sha256 {spec.weights}" in " ".join(ended.err.split())
    assert "give it with --weights FILE.zip" in " ".join(ended.err.split())
    for option in (("--weights", "w.pt"), ("--preprocessing", "network"), ("--3d",)):
        ended = call("extract", "a.tif", "-o", "d.features.ome.zarr", "--encoder", "net.zip", *option)
        assert ended.code == 2 and f"expected {option[0]} with" in ended.err


def test_another_package_is_refused(tmp_path: Path) -> None:
    spec = fb.open_encoder(foreign_package(tmp_path / "a.zip", network())).spec
    other = foreign_package(tmp_path / "b.zip", Maps([nn.Conv2d(1, 4, 3, 1, 1)]))
    with pytest.raises(SpecMismatchError, match=r"from 'nuclei-filters' with the weights .*; give that package"):
        encoder_from_spec(spec, weights=other)

    def after(rdf: dict[str, Any]) -> None:
        rdf["outputs"][1].update(postprocessing=[{"id": "sigmoid"}])

    with pytest.raises(SpecMismatchError, match="give that package"):
        encoder_from_spec(spec, weights=foreign_package(tmp_path / "c.zip", network(), change=after))


def test_channels(tmp_path: Path) -> None:
    path = foreign_package(tmp_path / "a.zip", network(3), channels=3)
    with pytest.raises(
        ImageError, match=r"expected 3 channel\(s\) for the package Nuclei by filters .*, found 1; choose"
    ):
        fb.open_encoder(path, images=[PICTURE[0]])
    with pytest.raises(ValueError, match=r"expected 3 channel\(s\) for the package .*, found 1"):
        fb.open_encoder(path, channels=1)
    with pytest.raises(ImageError, match=r"expected 3 channel\(s\) for the encoder package"):
        fb.features(PICTURE, fb.open_encoder(path))


@pytest.mark.parametrize("tile", [100, 17, 0])
def test_tiles_that_are_not_allowed(tmp_path: Path, tile: int) -> None:
    path = foreign_package(tmp_path / "a.zip", network())
    with pytest.raises(
        ValueError, match=rf"a tile of 16 \+ n · 16 pixels along y that is a multiple of 2, found {tile};"
    ):
        fb.open_encoder(path, tile=tile)


class Vector(nn.Module):
    """Classes of the whole picture."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return (N, 2)."""
        return (torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], 1),)


def as_vector(rdf: dict[str, Any]) -> None:
    rdf["outputs"][0]["axes"] = rdf["outputs"][0]["axes"][:2]


def deep(rdf: dict[str, Any]) -> None:
    rdf["inputs"][0]["axes"].insert(2, {"type": "space", "id": "z", "size": 8})


REFUSED: dict[str, tuple[Any, str]] = {
    "vector": (lambda p: build_vector(p), r"found outputs 'map0' \(batch, channel\), of which none is a map"),
    "z": (lambda p: foreign_package(p, network(), change=deep), r"found: .*raw|an axis z in 'raw'"),
    "no padding": (
        lambda p: foreign_package(p, Maps([nn.Conv2d(1, 4, 3)])),
        r"found 'map0' of \(62, 62\) cells for a tile of \(64, 64\) pixels; export the model with padding",
    ),
    "one stride per axis": (
        lambda p: foreign_package(p, Maps([nn.Conv2d(1, 4, 3, (1, 2), 1)])),
        r"expected maps with a cell for every 1, 2, 3, ... pixels along y and x, alike, found 'map0' of \(64, 32\)",
    ),
    "larger than the image": (
        lambda p: foreign_package(p, Maps([nn.Upsample(scale_factor=2)])),
        r"found 'map0' of \(128, 128\) cells",
    ),
    "one centre per axis": (
        lambda p: foreign_package(p, Maps([nn.Conv2d(1, 4, (3, 4), 2, 1)])),
        r"expected cells with the same centre along y and x, found 0.0 and 0.5; such maps",
    ),
    "percentile clip": (
        lambda p: foreign_package(p, network(), steps=[{"id": "clip", "kwargs": {"max_percentile": 99.0}}]),
        r"expected constants of the step clip that bioimage.io describes, found .*; export",
    ),
    "unknown step": (
        lambda p: foreign_package(
            p, network(), steps=[{"id": "scale_mean_variance", "kwargs": {"reference_tensor": "raw"}}]
        ),
        r"expected the steps binarize, clip, .* before the model, found scale_mean_variance; export the model with them inside",
    ),
    "softmax after": (
        lambda p: foreign_package(
            p, network(), change=lambda r: r["outputs"][0].update(postprocessing=[{"id": "softmax"}])
        ),
        r"expected the steps .* after the model, found softmax",
    ),
    "fused": (lambda p: build(p), r"found one of kind 'fused' by forestbridge; its results are classes"),
    "no onnx": (
        lambda p: build(p, lambda rdf: rdf["weights"].pop("onnx")),
        r"expected ONNX weights in the zip, found torchscript; export the model as ONNX",
    ),
}


def build_vector(path: Path) -> Path:
    with zipfile.ZipFile(foreign_package(path.with_name("map.zip"), Maps([nn.Conv2d(1, 2, 1)]))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    rdf = yaml.safe_load(files["rdf.yaml"])
    as_vector(rdf)
    rdf["weights"]["onnx"].pop("sha256")
    for tensor in (rdf["inputs"][0], rdf["outputs"][0]):
        tensor["test_tensor"].pop("sha256", None)
    files |= {
        "weights.onnx": onnx_of(Vector()),
        "test_map0.npy": npy(np.zeros((1, 2), np.float32)),
        "rdf.yaml": to_yaml(rdf),
    }
    return write_zip(path, files)


@pytest.mark.parametrize("case", REFUSED)
def test_packages_that_are_no_encoders(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(PackageError, match=message):
        fb.open_encoder(make(tmp_path / "a.zip"), images=[PICTURE[0]])


def test_code_needs_trust(tmp_path: Path) -> None:
    path = foreign_package(tmp_path / "a.zip", network(), steps=[{"id": "custom"}])
    with pytest.raises(TrustError, match=r"carries code .*--trust sha256:"):
        fb.open_encoder(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"expected a package at .*gone.zip, found no such file"):
        fb.open_encoder(tmp_path / "gone.zip")


def test_two_packages_are_no_combination(tmp_path: Path) -> None:
    a, b = (foreign_package(tmp_path / f"{n}.zip", network()) for n in "ab")
    with pytest.raises(
        ValueError, match=r"expected two or more different encoders with \+ between them, found package\+package"
    ):
        fb.open_encoder(f"{a}+{b}")


def test_tile_by_name(tmp_path: Path) -> None:
    path = foreign_package(tmp_path / "a.zip", network(2), channels=2)
    found, expected = (fb.open_encoder(path, tile=tile) for tile in ({str(path): 128}, 128))
    assert found.spec.tile == expected.spec.tile
    with pytest.raises(
        ValueError, match=r"expected tile for encoders among .*a.zip, found sam2_base; name one of these"
    ):
        fb.open_encoder(path, tile={"sam2_base": 128})
