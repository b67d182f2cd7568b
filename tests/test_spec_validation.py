"""Validation by the installed bioimageio.spec: offline, in an empty folder, only for packages that were inspected."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forestbridge.consumers import validate_with_spec
from forestbridge.errors import PackageError
from packages import build


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server on this machine, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_spec_accepts_the_good_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text(
        "BIOIMAGEIO_PERFORM_IO_CHECKS=nonsense"
    )  # bioimageio.spec fails on it where it reads it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIOIMAGEIO_HTTP_TIMEOUT", "nonsense")
    path = build(tmp_path / "a.zip", lambda rdf: rdf["authors"][0].update(github_user="nobody-of-this-name"))
    assert validate_with_spec("a.zip") == validate_with_spec(path) == []
    assert capfd.readouterr() == ("", "")


def test_spec_names_what_is_wrong(tmp_path: Path) -> None:
    def change(rdf: dict[str, Any]) -> None:
        rdf["name"] = "a:b"
        rdf["license"] = "none"
        rdf["weights"]["torchscript"]["parent"] = "keras_v3"

    errors = validate_with_spec(build(tmp_path / "a.zip", change))
    assert {error.split(":")[0] for error in errors} >= {"name", "weights"}


def test_spec_opens_no_address(tmp_path: Path, requests: tuple[str, list[str]]) -> None:
    address, asked = requests
    more = {
        "attachments": [{"source": f"{address}/a.txt"}],
        "git_repo": f"{address}/git",
        "covers": [f"{address}/c.png"],
    }
    validate_with_spec(build(tmp_path / "a.zip", lambda rdf: rdf.update(more)))
    assert asked == []


def test_spec_does_not_see_a_hostile_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="expected no anchors and aliases"):
        validate_with_spec(build(tmp_path / "a.zip", files={"rdf.yaml": b"a: &a 1\nb: *a\n"}))
