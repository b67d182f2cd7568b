"""Imports point one way only, and the heavy libraries are loaded where they are used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "forestbridge"

ORDER = [
    "errors",
    "files",
    "once",
    "threads",
    "compiled",
    "devices",
    "spec",
    "tiles",
    "image",
    "phantom",
    "qc",
    "stores",
    "labels",
    "archive",
    "consumers",
    "weights",
    "encoders",
    "shards",
    "extract",
    "forest",
    "sklearn_forest",
    "intelex",
    "unpickle",
    "featureforest",
    "ilastik",
    "prune",
    "engine",
    "train",
    "assemble",
    "predict_torch",
    "predict",
    "export",
    "headless",
    "graphs",
    "package",
    "runner",
    "model",
    "objects",
    "demo",
    "example",
    "fiji",
    "__init__",
    "cli",
    "__main__",
]
"""A module imports only from modules above it, and from its own folder."""

HEAVY = (
    "torch",
    "sklearn",
    "onnxruntime",
    "zarr",
    "imagej",
    "numba",
    "bioimageio",
    "matplotlib",
    "h5py",
    "jpype",
    "scyjava",
)


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "forestbridge":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {n.name if n.name in ORDER else "__init__" for n in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                "__init__" if n.name == "forestbridge" else n.name.split(".")[1]
                for n in node.names
                if n.name.split(".")[0] == "forestbridge"
            }
    return found


def test_order_names_every_module() -> None:
    assert {layer(path) for path in modules()} == set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_upwards(path: Path) -> None:
    own = ORDER.index(layer(path))
    below = {name for name in imported_layers(path) if ORDER.index(name) > own}
    assert not below, f"{path.name} imports from {sorted(below)}, which come later in the order"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_members_of_a_family_do_not_import_each_other() -> None:
    stores = {"featureforest", "ome_zarr"}
    for path in (SOURCE / "stores").glob("*.py"):
        if path.stem in stores:
            text = path.read_text(encoding="utf-8")
            assert not any(f"forestbridge.stores.{other}" in text for other in stores - {path.stem})


@pytest.mark.parametrize("command", ["import forestbridge", "import forestbridge.cli"])
def test_heavy_libraries_load_late(command: str) -> None:
    code = f"{command}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_loads_none_of_them() -> None:
    code = (
        "import sys; sys.argv = ['forestbridge', '--help']\n"
        "from forestbridge.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("[]")
    assert "extract" in found.stdout


def test_only_one_module_calls_torch_jit() -> None:
    users = [
        path.relative_to(SOURCE)
        for path in modules()
        if re.search(r"torch\.jit\.[a-z]", path.read_text(encoding="utf-8"))
    ]
    assert [str(p) for p in users] == ["graphs/torchscript.py"]
