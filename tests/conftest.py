"""Settings of all tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from deep_packages import Written

# Without a database of failing examples, which would be a folder in the working directory.
settings.register_profile("forestbridge", database=None)
settings.load_profile("forestbridge")


@pytest.fixture
def without_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out a package's validation against the specification, a process of seconds, where something else is the point."""
    monkeypatch.setattr("forestbridge.package.check.validate_with_spec", lambda path: [])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep logs and workers out of the user's cache folder."""
    monkeypatch.setenv("FORESTBRIDGE_CACHE", _cache(tmp_path_factory))


def _cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(scope="session")
def cyto3_package(tmp_path_factory: pytest.TempPathFactory) -> "Written":
    """A fused package of a forest over cyto3, with its store; shared, since it takes seconds."""
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")
    from deep_packages import write_cyto3_package

    folder: Path = tmp_path_factory.mktemp("cyto3")
    with pytest.MonkeyPatch.context() as patch:  # `own_cache` is of single tests
        patch.setenv("FORESTBRIDGE_CACHE", _cache(tmp_path_factory))
        return write_cyto3_package(folder)
