"""Weights: downloads from a real server on this machine, hashes, the cache, offline use, and files that are none."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from forestbridge.errors import ResourceError, WeightsError
from forestbridge.fiji.client import cache_folder
from forestbridge.weights import CHECKPOINTS, Checkpoint, checkpoint_of, weights_file, weights_folder, weights_status
from forestbridge.weights import cache as weights_cache

TENSORS = {"image_encoder.weight": torch.arange(40_000, dtype=torch.float32), "decoder.bias": torch.ones(3)}


def convert(content: Any) -> dict[str, torch.Tensor]:
    """Take what a small network has, as the encoders do."""
    if not isinstance(content, dict) or "image_encoder.weight" not in content:
        raise ValueError("expected the 1 tensors of small, found others; give the weights of this network")
    return {"weight": content["image_encoder.weight"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache's folder of weights."""
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORESTBRIDGE_OFFLINE", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(TENSORS, path)
    return path.read_bytes()


class Server(ThreadingHTTPServer):
    """Serves one file; `cut` ends the first answer after so many bytes, `ranges` is whether parts can be asked for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.kind, self.status = content, "application/octet-stream", 200
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/small.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else self.server.status)
        self.send_header("Content-Type", self.server.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[:cut])

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    with Server(content) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def small(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """Return a checkpoint on the server, known as any other."""
    return known(monkeypatch, small_checkpoint(server.url, content))


def small_checkpoint(url: str, content: bytes) -> Checkpoint:
    sha256 = hashlib.sha256(content).hexdigest()
    return Checkpoint("small", "small.pt", url, 1, len(content), sha256, "CC0-1.0", "nobody")


def known(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint) -> Checkpoint:
    monkeypatch.setattr("forestbridge.weights.checkpoints.CHECKPOINTS", (checkpoint,))
    return checkpoint


get = partial(weights_file, "small", convert=convert)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_table() -> None:
    """Every network has its file: hashes have their lengths, names in the cache differ, and only microSAM has no sha256."""
    assert len({c.file for c in CHECKPOINTS}) == len(CHECKPOINTS) == 8
    for c in CHECKPOINTS:
        assert c.url.startswith("https://")
        assert c.licence and c.citation
        assert c.size is None or abs(c.size / 1e6 - c.megabytes) < 1
        assert (c.sha256 is None) == c.name.startswith("micro_sam")
        assert len(c.sha256 or "0" * 64) == 64
        assert (c.xxh128 is not None) == (c.sha256 is None)
    with pytest.raises(
        ValueError, match=r"expected one of the encoders with published weights, mobile_sam, .* found 'big'"
    ):
        checkpoint_of("big")


def test_folder_is_that_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("/elsewhere", ""):
        monkeypatch.setenv("FORESTBRIDGE_CACHE", value)
        assert weights_folder() == Path(cache_folder()) / "weights"


def test_download(folder: Path, server: Server, small: Checkpoint) -> None:
    told = []
    assert weights_status("small") is None
    found = get(progress=lambda done, total: told.append((done, total)))
    assert found == (folder / f"small-{small.sha256[:16]}.safetensors", small.sha256)
    assert names(folder) == [found.path.name]
    assert torch.equal(load_file(found.path)["weight"], TENSORS["image_encoder.weight"])
    with safe_open(found.path, "pt") as file:
        assert file.metadata() == {"source_sha256": small.sha256, "encoder": "small"}
    assert told[-1] == (0, 1)
    assert get() == get(offline=True) == get(sha256=small.sha256) == weights_status("small") == found
    assert server.asked == [None]


def test_resume(folder: Path, server: Server, small: Checkpoint) -> None:
    server.cut = 70_000
    with pytest.raises(
        ResourceError, match=r"expected to download http://127.*, found: .*; try again, it goes on where"
    ):
        get()
    assert names(folder) == ["small.pt.partial"]
    assert (folder / "small.pt.partial").stat().st_size == 70_000
    assert get().sha256 == small.sha256
    assert server.asked == [None, "bytes=70000-"]


def test_resume_where_the_server_begins_anew(folder: Path, server: Server, small: Checkpoint) -> None:
    server.cut, server.ranges = 70_000, False
    with pytest.raises(ResourceError):
        get()
    assert get().sha256 == small.sha256
    assert len(names(folder)) == 1


def test_everything_was_there_but_not_checked(folder: Path, server: Server, small: Checkpoint, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "small.pt.partial").write_bytes(content)
    assert get().sha256 == small.sha256
    assert server.asked == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1] + b"x", r"expected the weights of small with sha256 .*, found .*; the file is damaged or"),
        (lambda c: c[:-5], r"expected \d+ bytes as the weights of small, found \d+; the file is cut off or another"),
        (lambda c: c + b"more", r"expected \d+ bytes as the weights of small, found \d+"),
        (lambda c: b"<!DOCTYPE html><p>Sign in".ljust(len(c)), r"expected a weight file, found a web page"),
        (lambda c: b"", r"expected a weight file, found an empty file"),
    ],
)
def test_other_content(folder: Path, server: Server, small: Checkpoint, change: Any, message: str) -> None:
    server.content = change(server.content)
    with pytest.raises(WeightsError, match=message):
        get()
    assert names(folder) == []


def test_web_page_by_its_type(folder: Path, server: Server, small: Checkpoint) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(
        WeightsError, match=r"at http://127.*, found a web page; fetch the file with a browser and put it"
    ):
        get()
    assert names(folder) == []


def test_not_found_and_nobody_there(folder: Path, server: Server, small: Checkpoint, monkeypatch: Any) -> None:
    server.status = 404
    with pytest.raises(ResourceError, match=r"found: HTTP Error 404: Not Found; try again"):
        get()
    known(monkeypatch, replace(small, url="http://127.0.0.1:1/small.pt"))
    with pytest.raises(ResourceError, match=r"Connection refused"):
        get()
    assert names(folder) == []


@pytest.mark.parametrize("by_variable", [False, True])
def test_offline(
    folder: Path, server: Server, small: Checkpoint, content: bytes, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    """The message names the file and its place; once it is there, it is checked and taken."""
    if by_variable:
        monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")
    offline = None if by_variable else True
    place = folder / "small.pt"
    with pytest.raises(ResourceError, match=rf"fetch {server.url} on another machine and put it there as {place}$"):
        get(offline=offline)
    place.write_bytes(content[:-9])
    with pytest.raises(WeightsError, match=r"small.pt: expected \d+ bytes as the weights of small"):
        get(offline=offline)
    place.write_bytes(content)
    assert get(offline=offline).sha256 == small.sha256
    assert names(folder) == [f"small-{small.sha256[:16]}.safetensors"]
    assert server.asked == []


def test_trusted_when_it_first_comes(
    folder: Path, server: Server, small: Checkpoint, content: bytes, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Without a published sha256 the first file is pinned: another one is refused later."""
    caplog.set_level("INFO")
    xxh128 = xxhash.xxh3_128(content).hexdigest()
    known(monkeypatch, replace(small, sha256=None, size=None, xxh128=xxh128))
    found = get()
    assert f"trusted as it came for the first time, sha256 {small.sha256}" in caplog.text
    assert json.loads((folder / "pinned.json").read_text()) == {"small.pt": small.sha256}
    assert get() == weights_status("small") == found
    found.path.unlink()
    known(monkeypatch, replace(small, sha256=None, size=None))
    server.content = content[:-1] + b"x"
    with pytest.raises(WeightsError, match=rf"expected the weights of small with sha256 {small.sha256}"):
        get()
    assert names(folder) == ["pinned.json"]


def test_wrong_xxh128(folder: Path, small: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, replace(small, sha256=None, xxh128="0" * 32))
    with pytest.raises(WeightsError, match=r"expected the weights of small with xxh128 0{32}, found"):
        get()
    assert names(folder) == []


def test_network_of_another_kind(
    folder: Path, server: Server, small: Checkpoint, monkeypatch: Any, tmp_path: Path
) -> None:
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pt")
    server.content = (tmp_path / "other.pt").read_bytes()
    known(monkeypatch, small_checkpoint(server.url, server.content))
    with pytest.raises(WeightsError, match=r"small.pt: expected the 1 tensors of small, found others"):
        get()
    assert names(folder) == []


# The user's own file


def test_own_file_is_kept_and_found_by_its_hash(
    folder: Path, small: Checkpoint, tmp_path: Path, server: Server
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(TENSORS | {"decoder.bias": torch.zeros(3)}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    found = get(path)
    assert found == (folder / f"small-{sha256[:16]}.safetensors", sha256)
    assert path.exists()
    path.unlink()
    assert get(sha256=sha256) == found
    found.path.unlink()
    with pytest.raises(
        ResourceError, match=rf"with sha256 {sha256}, found none in .*: name the file once with: forestbridge"
    ):
        get(sha256=sha256)
    assert server.asked == []


def test_own_safetensors_file(folder: Path, small: Checkpoint, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "mine.safetensors")
    assert torch.equal(load_file(get(tmp_path / "mine.safetensors").path)["weight"], TENSORS["image_encoder.weight"])


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("evil"),)


def write_bad(path: Path, kind: str, content: bytes) -> None:
    """Write a file that is no weight file."""
    match kind:
        case "code":
            torch.save({"image_encoder.weight": Evil()}, path)
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_text("weights")
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("readme.txt", "no weights")
        case "list":
            torch.save([torch.ones(1)], path)
        case "page":
            path.write_text("  <html>404</html>")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", r"expected a weight file that torch reads with weights_only, .* carries code"),
        ("cut", r"found one that is damaged, no weight file"),
        ("text", r"found one that is damaged, no weight file"),
        ("zip", r"found one that is damaged, no weight file"),
        ("list", r"expected the 1 tensors of small"),
        ("page", r"expected a weight file, found a web page"),
    ],
)
def test_bad_own_file(
    folder: Path, small: Checkpoint, tmp_path: Path, content: bytes, kind: str, message: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad(tmp_path / "bad.pt", kind, content)
    with pytest.raises(WeightsError, match=message):
        get(tmp_path / "bad.pt")
    assert names(folder) == []
    assert not Path("evil").exists()


def test_own_file_of_another_hash_or_absent(folder: Path, small: Checkpoint, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "small.pt").write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"with sha256 {'0' * 64}, found {small.sha256}; give the file that the features"
    ):
        get(tmp_path / "small.pt", sha256="0" * 64)
    with pytest.raises(ResourceError, match=r"expected a weight file at .*none.pt, found none"):
        get(tmp_path / "none.pt")


def test_damaged_converted_file_is_made_again(folder: Path, small: Checkpoint, server: Server) -> None:
    found = get()
    found.path.write_bytes(found.path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"expected converted weights, found: .*; it was removed"):
        weights_cache.load_tensors(found)
    assert get() == found
    assert len(server.asked) == 2
    assert weights_cache.load_tensors(found)["weight"].shape == (40_000,)
