"""The TorchScript files give the encoder's features and the forest's probabilities, and say nothing about the machine they were made on."""

import struct
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

from forestbridge.encoders.filters import open_filter_bank
from forestbridge.engine import predict
from forestbridge.errors import ForestError, MissingExtraError, OutputExistsError
from forestbridge.graphs import (
    MAX_TORCHSCRIPT_DEPTH,
    export_filters_torchscript,
    export_forest_torchscript,
    export_fused_torchscript,
    load_torchscript,
    minimum_size,
    torchscript_without_warnings,
)
from forestbridge.graphs.torch_forest import STRIP, ForestModule, perfect_trees
from random_forests import random_forest
from test_graphs import (
    BANKS,
    FORESTS,
    FUSED,
    SMALL,
    assert_features,
    assert_probabilities,
    encode,
    filter_forest,
    make_features,
    make_image,
)

SHALLOW = {name: options for name, options in FORESTS.items() if options["depth"] <= MAX_TORCHSCRIPT_DEPTH}


@pytest.mark.parametrize("options", BANKS.values(), ids=BANKS)
def test_filter_file_gives_the_encoders_features(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    deviation = export_filters_torchscript(bank.spec, tmp_path / "filters.pt")
    assert deviation.max_abs <= 5e-6 and deviation.label_flips == 0
    run = load_torchscript((tmp_path / "filters.pt").read_bytes())
    for seed in (1, 2, 3):  # sizes are free; the third run is the compiled one
        image = make_image(bank, seed=seed)[..., : 61 - 4 * seed].copy()
        assert_features(run(image), bank, image)


@pytest.mark.parametrize("options", [BANKS["ilastik's dialog"], BANKS["mixed"]], ids=["2D", "mixed"])
def test_filter_file_takes_the_minimum_size(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    export_filters_torchscript(bank.spec, tmp_path / "filters.pt")
    image = make_image(bank, seed=3, shape=minimum_size(bank.spec))
    run = load_torchscript((tmp_path / "filters.pt").read_bytes())
    assert_features(run(image), bank, image)
    with pytest.raises(RuntimeError, match="narrow"):
        run(image[..., 1:].copy())


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("options", SHALLOW.values(), ids=SHALLOW)
def test_forest_file_decides_as_the_trees_do(options: dict, offset: float, tmp_path: Path) -> None:
    features = make_features(offset)
    forest = random_forest(features[0], seed=1, **options)
    deviation = export_forest_torchscript(forest, tmp_path / "forest.pt")
    assert deviation.label_flips == 0 and deviation.max_abs <= 1e-6 and deviation.pixels == 64 * 64
    found = load_torchscript((tmp_path / "forest.pt").read_bytes())(features)
    assert found.shape == (2, options["n_classes"], 70, 50)
    assert_probabilities(found, forest, features)


def test_forest_file_sends_nan_to_the_right_and_takes_volumes(tmp_path: Path) -> None:
    features = make_features(0.0, (2, 6, 5, 14, 50))
    forest = random_forest(features[0], seed=1, n_trees=20, depth=6)
    export_forest_torchscript(forest, tmp_path / "forest.pt")
    features[:, 2, ::3] = np.nan
    assert_probabilities(load_torchscript((tmp_path / "forest.pt").read_bytes())(features), forest, features)


def test_forest_works_in_strips() -> None:
    features = make_features(0.0, (1, 6, 31, 50))
    forest = random_forest(features[0], seed=1, n_trees=9, depth=6)
    module = ForestModule(forest)
    assert module.strip == STRIP // 9
    with torch.no_grad():
        whole = module(torch.from_numpy(features)).numpy()
        module.strip = 77  # does not divide the 1550 pixels
        strips = module(torch.from_numpy(features)).numpy()
    np.testing.assert_array_equal(strips, whole)


def test_perfect_trees_repeat_leaves_that_lie_above() -> None:
    forest = random_forest(make_features(0.0)[0], seed=1, n_trees=1, depth=1)
    tables = perfect_trees(forest, 2)
    right, left = forest.leaves[forest.left[2]], forest.leaves[forest.left[1]]
    np.testing.assert_allclose(tables.votes.T / tables.one, [right, right, left, left], rtol=0, atol=2**-30)
    assert tables.feature.tolist() == [forest.feature[0], 0, 0]


@pytest.mark.parametrize("options", [BANKS[n] for n in FUSED], ids=FUSED)
def test_fused_file_gives_the_engines_probabilities(options: dict, tmp_path: Path) -> None:
    bank = open_filter_bank(**options)
    image = make_image(bank, seed=7)
    forest = filter_forest(bank, make_image(bank, seed=8)[0])
    deviation = export_fused_torchscript(forest, tmp_path / "fused.pt", image=image[0])
    assert deviation.label_flips <= 1e-4 * deviation.pixels and deviation.pixels == image[0, 0].size
    found = load_torchscript((tmp_path / "fused.pt").read_bytes())(image)
    expected = predict(forest, encode(bank, image[0]))
    differ = np.abs(found[0] - expected).max(axis=0) > 1e-6
    assert np.count_nonzero(differ) <= 2e-3 * differ.size
    assert np.count_nonzero(found[0].argmax(axis=0) != expected.argmax(axis=0)) <= 1e-4 * differ.size


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(0.0)
    deep = random_forest(features[0], seed=1, **FORESTS["deep"])
    assert deep.depth() > MAX_TORCHSCRIPT_DEPTH
    with pytest.raises(
        ForestError,
        match=r"expected a forest of depth ≤ 10 for TorchScript, found depth 25; retrain with --max-depth 10",
    ):
        export_forest_torchscript(deep, tmp_path / "forest.pt")
    bank = open_filter_bank(selection=SMALL)
    with pytest.raises(ForestError, match="depth 25"):
        export_fused_torchscript(replace(deep, spec=bank.spec, n_features=bank.spec.n_features), tmp_path / "fused.pt")
    forest = random_forest(features[0], seed=1, n_trees=2, depth=2)
    with pytest.raises(ForestError, match="expected a forest over the features of filters"):
        export_fused_torchscript(forest, tmp_path / "fused.pt")
    (tmp_path / "there.pt").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match=r"there\.pt exists"):
        export_forest_torchscript(forest, tmp_path / "there.pt")
    export_forest_torchscript(forest, tmp_path / "forest.pt")
    export_filters_torchscript(bank.spec, tmp_path / "filters.pt")
    run_forest, run_filters = (load_torchscript((tmp_path / n).read_bytes()) for n in ("forest.pt", "filters.pt"))
    with pytest.raises(torch.jit.Error, match="expected 6 features, found 5"):
        run_forest(features[:, :5].copy())
    with pytest.raises(torch.jit.Error, match="expected 1 channels, found 2"):
        run_filters(features[:, :2].copy())
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python does when a package is not there
    for export in (
        lambda: export_forest_torchscript(forest, tmp_path / "new.pt"),
        lambda: export_filters_torchscript(bank.spec, tmp_path / "new.pt"),
        lambda: export_fused_torchscript(forest, tmp_path / "new.pt"),
        lambda: load_torchscript(b""),
    ):
        with pytest.raises(MissingExtraError, match=r"TorchScript needs the extra 'torch'.*pip install"):
            export()
    assert not (tmp_path / "new.pt").exists()


def test_only_the_deprecation_of_torchscript_is_silenced() -> None:
    with torchscript_without_warnings():
        warnings.warn(
            "`torch.jit.script` is deprecated. Please switch to `torch.compile`.", FutureWarning, stacklevel=1
        )
        warnings.warn("`torch.jit.load` is deprecated. Please switch.", DeprecationWarning, stacklevel=1)
        with pytest.raises(FutureWarning, match="other"):
            warnings.warn("other", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="deprecated"):
            warnings.warn("`torch.jit.load` is deprecated", UserWarning, stacklevel=1)


def small_fused(path: Path) -> bytes:
    """The bytes of a small fused file; the same in every process."""
    bank = open_filter_bank(selection=SMALL)
    export_fused_torchscript(filter_forest(bank, make_image(bank, seed=8)[0]), path)
    return path.read_bytes()


def test_the_same_model_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    export_filters_torchscript(
        open_filter_bank(channels=2).spec, tmp_path / "before.pt"
    )  # must leave no trace in what follows
    here = small_fused(tmp_path / "here.pt")
    code = (
        "import sys; from pathlib import Path; from test_torchscript import small_fused; small_fused(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "there.pt"], cwd=Path(__file__).parent, check=True)
    assert (tmp_path / "there.pt").read_bytes() == here
    assert small_fused(tmp_path / "again.pt") == here


def test_archive_is_normalised(tmp_path: Path) -> None:
    data = small_fused(tmp_path / "fused.pt")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = archive.infolist()
        contents = b"".join(archive.read(m) for m in members)
        assert archive.testzip() is None
    names = [m.filename for m in members]
    assert names == sorted(names) and {n.split("/")[0] for n in names} == {"archive"}
    assert {"archive/data.pkl", "archive/constants.pkl", "archive/version", "archive/byteorder"} <= set(names)
    assert not any(n.endswith(".debug_pkl") or "serialization_id" in n or "mangle" in n for n in names)
    for member in members:
        assert member.date_time == (1980, 1, 1, 0, 0, 0) and member.compress_type == zipfile.ZIP_STORED
        name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
        assert (member.header_offset + 30 + name + extra) % 64 == 0
    for folder in (Path(__file__).parent.parent, Path(torch.__file__).parent, Path(sys.prefix), tmp_path, Path.home()):
        assert str(folder).encode() not in contents
    assert b".py" not in contents.replace(b"__torch__.py", b"")
