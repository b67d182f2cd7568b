"""Settings of all tests."""

import pytest
from hypothesis import settings

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
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
