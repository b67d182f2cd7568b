"""Packages are read without running anything: what is found in a good one, who may run code, and how ONNX is opened."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit import nothing_runs
from forestbridge.archive import (
    Limits,
    PackageInfo,
    inspect_package,
    load_tensor,
    read_member,
    require_trust,
)
from forestbridge.errors import PackageError, TrustError
from forestbridge.spec import EncoderSpec, MapSpec
from packages import build, good_files, npy

SPEC = EncoderSpec(
    name="filters",
    version=1,
    axes="yx",
    channels=1,
    halo=(16, 16),
    maps=(MapSpec("filters", ("GaussianSmoothing_0.7",)),),
    intensity={"rule": "raw"},
    options={"scales": [0.7, 1e-05]},
)


@pytest.fixture
def good(tmp_path: Path) -> PackageInfo:
    return inspect_package(build(tmp_path / "nuclei.zip"))


def spoiled(tmp_path: Path, change: Any = None, **files: bytes) -> PackageInfo:
    return inspect_package(build(tmp_path / "spoiled.zip", change, files=files))


# --- what is found ---------------------------------------------------------------------------------------------------


def test_inspect_finds_everything(good: PackageInfo) -> None:
    assert (good.format_version, good.id, good.kind, good.license) == ("0.5.9", "nuclei-filters", "fused", "CC-BY-4.0")
    assert good.authors == ("A. Author",)
    assert [entry.format for entry in good.weights] == ["onnx", "torchscript"]
    torchscript = good.weights_of("torchscript")
    assert torchscript is not None and torchscript.parent == "onnx" and torchscript.bytes == 23
    assert torchscript.details == {"pytorch_version": "2.5.1"}
    (source,), (target,) = good.inputs, good.outputs
    assert [axis.id for axis in source.axes] == ["batch", "channel", "y", "x"]
    assert (source.axes[2].min, source.axes[2].step, source.dtype) == (64, 16, "float32")
    assert target.axes[1].channel_names == ("background", "nucleus")
    assert (target.axes[3].reference, target.axes[3].ratio, target.axes[3].halo) == (("raw", "x"), 1, 16)
    assert good.onnx is not None and good.onnx.opsets == {"ai.onnx": 17, "ai.onnx.ml": 3}
    assert good.warnings == ()


def test_hashes_are_those_of_the_files(good: PackageInfo) -> None:
    assert {member.name for member in good.files} == {*good_files(), "rdf.yaml"}
    assert good.hashes["weights.onnx"] == good.weights[0].declared_sha256 == good.weights[0].sha256
    assert good.undeclared == ("README.md", "cover.png")  # computed and shown, never filled in
    assert len(good.hashes["README.md"]) == 64


def test_json_is_json(tmp_path: Path) -> None:
    info = spoiled(
        tmp_path, lambda rdf: rdf["config"]["forestbridge"].update(spec=json.loads(SPEC.to_json()), x=float("nan"))
    )
    document = json.loads(json.dumps(info.to_json_dict(), allow_nan=False))
    assert document["fingerprint"] == SPEC.fingerprint()
    assert document["carries_code"] is True
    assert document["metadata"]["x"] == "nan"


def test_spec_comes_back_from_mapping_and_from_text(tmp_path: Path) -> None:
    for written in (json.loads(SPEC.to_json()), SPEC.to_json()):
        more = {"spec": written, "fingerprint": SPEC.fingerprint()}
        info = spoiled(tmp_path, lambda rdf, more=more: rdf["config"]["forestbridge"].update(more))
        assert info.spec == SPEC


def test_wrong_fingerprint_is_refused(tmp_path: Path) -> None:
    more = {"spec": SPEC.to_json(), "fingerprint": "0" * 16}
    with pytest.raises(
        PackageError, match=rf"fingerprint: expected that of the spec, {SPEC.fingerprint()}, found '0000"
    ):
        spoiled(tmp_path, lambda rdf: rdf["config"]["forestbridge"].update(more))


def test_foreign_package_has_no_kind_of_ours(tmp_path: Path) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf.pop("config"))
    assert (info.kind, info.metadata, info.spec) == ("foreign", {}, None)


def test_addresses_are_listed_and_not_opened(tmp_path: Path) -> None:
    change = {"attachments": [{"source": "http://127.0.0.1:9/a.txt"}], "covers": ["https://example.org/a.png"]}
    path = build(tmp_path / "a.zip", lambda rdf: rdf.update(change))
    inspect_package(path)  # imports what it needs
    with nothing_runs():
        info = inspect_package(path)
    assert info.addresses == {
        "attachments[0].source": "http://127.0.0.1:9/a.txt",
        "covers[0]": "https://example.org/a.png",
    }
    assert "covers[0] is an address and was not opened: https://example.org/a.png" in info.warnings


def test_weights_at_an_address(tmp_path: Path) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf["weights"]["onnx"].update(source="https://example.org/w.onnx"))
    assert info.weights[0].bytes is None and info.onnx is None
    assert info.warnings[0] == "weights.onnx: the file is not in the zip but at https://example.org/w.onnx"


def test_warnings_name_programs_and_spare_files(tmp_path: Path) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf["inputs"][0].pop("test_tensor"), **{"a.py": b"x", "b.txt": b"x"})
    assert info.warnings == (
        "raw: no test tensor, so its numbers cannot be checked",
        "files that other programs could run: a.py",
        "files that rdf.yaml does not name: a.py, b.txt, test_raw.npy",
    )


def test_format_0_4_is_read(tmp_path: Path) -> None:
    def old(rdf: dict[str, Any]) -> None:
        rdf["format_version"] = "0.4.10"
        common = {"axes": "bcyx", "data_type": "float32"}
        rdf["inputs"] = [{"name": "raw", "shape": {"min": [1, 1, 64, 64], "step": [0, 0, 16, 16]}, **common}]
        shape = {"reference_tensor": "raw", "scale": [1, 0, 1, 0.5], "offset": [0, 1, 0, -2]}
        steps = [{"name": "sigmoid"}]
        rdf["outputs"] = [{"name": "p", "shape": shape, "halo": [0, 0, 16, 8], "postprocessing": steps, **common}]
        rdf |= {"test_inputs": ["test_raw.npy"], "test_outputs": ["./test_probabilities.npy"]}
        rdf["attachments"] = {"files": ["README.md"]}
        state = {"source": "weights.pt", "architecture": "net.py:Net", "dependencies": "conda:environment.yaml"}
        rdf["weights"]["pytorch_state_dict"] = state

    info = spoiled(tmp_path, old, **{"net.py": b"x", "environment.yaml": b"x"})
    (source,), (target,) = info.inputs, info.outputs
    assert [(axis.id, axis.size, axis.min, axis.step) for axis in source.axes[1:3]] == [
        ("channel", 1, None, None),
        ("y", None, 64, 16),
    ]
    assert (target.axes[1].size, target.axes[3].ratio, target.axes[3].offset, target.axes[3].halo) == (2, 0.5, -4, 8)
    assert (source.test, target.test, target.steps) == ("test_raw.npy", "test_probabilities.npy", ("sigmoid",))
    assert {"net.py", "environment.yaml"} <= set(info.hashes)


def test_ratio_follows_from_the_scales(tmp_path: Path) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf["outputs"][0]["axes"][2].update(scale=4))
    assert info.outputs[0].axes[2].ratio == 0.25


def test_dates_stay_text_and_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = b"config: {a: 2001-01-01, b: 1e-3, c: 0o17, d: yes, e: .inf, f: ~, g: 012, h: !!str 1, i: '1', j: -0x1}"
    base = zipfile.ZipFile(build(tmp_path / "b.zip")).read("rdf.yaml")
    data = base[: base.index(b"config:")] + text + base[len(base) :]
    found = spoiled(tmp_path, None, **{"rdf.yaml": data}).rdf["config"]
    expected = {
        "a": "2001-01-01",
        "b": 1e-3,
        "c": 15,
        "d": "yes",
        "e": np.inf,
        "f": None,
        "g": 12,
        "h": "1",
        "i": "1",
        "j": "-0x1",
    }
    assert found == expected


def test_limits_can_be_changed(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"member '.*': expected at most 1000 bytes per file"):
        inspect_package(build(tmp_path / "a.zip"), limits=Limits(file_bytes=1000))


@pytest.mark.parametrize("name", ["https://example.org/a.zip", "http://a/b"])
def test_address_in_place_of_a_file(name: str) -> None:
    with pytest.raises(PackageError, match=rf"found the address {name}; packages are only read offline: download it"):
        inspect_package(name)


def test_id_in_place_of_a_file() -> None:
    with pytest.raises(
        PackageError, match=r"an id of bioimage.io is not looked up, since packages are only read offline"
    ):
        inspect_package("affable-shark")


# --- bytes and arrays ------------------------------------------------------------------------------------------------


def test_read_member_and_load_tensor(good: PackageInfo) -> None:
    assert read_member(good, "README.md") == good_files()["README.md"]
    array = load_tensor(good, "test_probabilities.npy")
    assert (array.shape, array.dtype) == ((1, 2, 128, 128), np.float32)
    assert array[0, 1].max() == 2


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">u2", "|b1", "<f2", "<i8"])
def test_load_tensor_gives_this_machines_byte_order(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    found = load_tensor(spoiled(tmp_path, **{"test_raw.npy": npy(array)}), "test_raw.npy")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


def test_unknown_member(good: PackageInfo) -> None:
    with pytest.raises(PackageError, match=r"expected one of the files README.md, .* found a question for 'no.txt'"):
        read_member(good, "no.txt")


def test_package_that_changes_after_inspection(tmp_path: Path) -> None:
    info = inspect_package(build(tmp_path / "a.zip"))
    build(tmp_path / "a.zip", files={"README.md": b"# Nuclei\n\n## Validation\n\nCHECKED.\n"})
    with pytest.raises(
        PackageError, match=r"expected README.md with the sha256 .* that was inspected, found .* open the package"
    ):
        read_member(info, "README.md")
    build(tmp_path / "a.zip", lambda rdf: rdf.pop("covers"), files={"cover.png": None})
    with pytest.raises(PackageError, match=r"expected cover.png with the sha256"):
        read_member(info, "cover.png")


# --- trust -----------------------------------------------------------------------------------------------------------


def test_torchscript_needs_trust_and_onnx_does_not(good: PackageInfo) -> None:
    assert good.carries_code
    require_trust(good, None, weights="onnx")
    require_trust(good, f"sha256:{good.sha256}")
    line = rf"carries code \(weights.torchscript: TorchScript is a program\); .* --trust sha256:{good.sha256}"
    with pytest.raises(TrustError, match=line):
        require_trust(good, None)


def test_wrong_trust_shows_both_hashes(good: PackageInfo) -> None:
    other = f"sha256:{'0' * 64}"
    with pytest.raises(
        TrustError, match=rf"the hash that was trusted, {other}, found sha256:{good.sha256}; it is another"
    ):
        require_trust(good, other)
    with pytest.raises(
        TrustError, match=rf"sha256: and 64 hexadecimal digits, found 'yes'; use --trust sha256:{good.sha256}"
    ):
        require_trust(good, "yes")


CODE = {
    "a callable of a library": (
        {"architecture": {"import_from": "os", "callable": "system"}},
        "imports 'system' from 'os'",
    ),
    "a Python file": ({"architecture": {"source": "net.py", "callable": "Net"}}, "architecture in 'net.py'"),
}


@pytest.mark.parametrize("name", CODE)
def test_state_dict_is_code(tmp_path: Path, name: str) -> None:
    entry, reason = CODE[name]
    state = {"source": "weights.pt", "parent": "onnx", "pytorch_version": "2.5.1", **entry}
    change = {"pytorch_state_dict": state}
    info = spoiled(tmp_path, lambda rdf: rdf["weights"].update(change), **{"net.py": b"raise SystemExit"})
    with pytest.raises(TrustError, match=reason):
        require_trust(info, None, weights="pytorch_state_dict")


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            lambda rdf: rdf["outputs"][0].update(postprocessing=[{"id": "custom"}]),
            r"postprocessing\[0\]: the step 'custom' is",
        ),
        (
            lambda rdf: rdf["inputs"][0].update(preprocessing=[{"id": "mine"}]),
            r"preprocessing\[0\]: the step 'mine' is not",
        ),
        (lambda rdf: rdf.update(run_mode={"name": "deepimagej"}), "run_mode: a run mode names code"),
        (lambda rdf: rdf.update(later={"callable": "os.system"}), "later.callable: names Python code: 'os.system'"),
    ],
)
def test_code_outside_of_the_weights_needs_trust_even_for_onnx(tmp_path: Path, change: Any, reason: str) -> None:
    with pytest.raises(TrustError, match=reason):
        require_trust(spoiled(tmp_path, change), None, weights="onnx")


@pytest.mark.parametrize(
    "format", ["keras_hdf5", "keras_v3", "tensorflow_saved_model_bundle", "tensorflow_js", "new_one"]
)
def test_every_other_format_is_code(tmp_path: Path, format: str) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf["weights"].update({format: {"source": "weights.pt"}}))
    with pytest.raises(TrustError, match=f"weights.{format}"):
        require_trust(info, None)


def test_data_package_needs_no_trust(tmp_path: Path) -> None:
    def change(rdf: dict[str, Any]) -> None:
        rdf["weights"].pop("torchscript")
        rdf["inputs"][0]["preprocessing"] = [{"id": "scale_linear", "kwargs": {"gain": 2.0}}]

    info = spoiled(tmp_path, change)
    assert not info.carries_code
    require_trust(info, None)


def test_code_at_an_address_is_never_trusted(tmp_path: Path) -> None:
    info = spoiled(tmp_path, lambda rdf: rdf["weights"]["torchscript"].update(source="https://example.org/w.pt"))
    with pytest.raises(
        TrustError, match=r"expected all code inside of the file, .* addresses at weights.torchscript.source"
    ):
        require_trust(info, f"sha256:{info.sha256}")


def test_inspection_loads_no_engine(tmp_path: Path) -> None:
    path = build(tmp_path / "a.zip")
    code = (
        "import sys; from forestbridge.archive import inspect_package; "
        "from forestbridge.consumers import consumer_report; "
        "consumer_report(inspect_package(sys.argv[1])); "
        "print(sorted({'torch', 'onnxruntime', 'sklearn', 'zarr', 'bioimageio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
