"""The warm worker and the client that Fiji's commands execute: one process, models open, cancel, and every way to lose it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

import forestbridge as fb
from command_line import call, write_line
from forestbridge.cli.worker import Worker
from forestbridge.fiji import client
from forestbridge.once import open_once
from forestbridge.phantom import phantom
from macro_calls import CLIENT, client_call, environment, execute, job_call, request, value


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a forest."""
    path = tmp_path_factory.mktemp("line")
    write_line(path)
    tifffile.imwrite(path / "big.tif", np.tile(phantom((500, 500), classes=2).image, (12, 12)))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A cache folder whose worker ends with the test."""
    path = tmp_path / "cache"
    yield path
    pid = worker_pid(path)
    client_call("stop", cache=path)
    if pid:
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=30) if psutil.pid_exists(pid) else ([], [])
        assert not alive, "the worker did not end"


def worker_pid(cache: Path) -> int | None:
    """Return the process of the worker, if one says that it serves."""
    found = [p for p in cache.glob("worker-*") if not p.suffix]
    return int(found[0].read_text().split()[2]) if found else None


def predict_words(line: Path, out: Path, image: str = "a.tif") -> tuple[str | Path, ...]:
    return "predict", line / image, "--forest", line / "a.forest", "--kind", "labels", "-o", out


def wait_until_it_works(job: Path, cache: Path, words: tuple[str | Path, ...]) -> None:
    """Submit a job and return when its progress is above 0."""
    reply = client_call("submit", job, request(*words), cache=cache)
    end = time.monotonic() + 60
    while value(reply.line, "current") in ("0", "") and time.monotonic() < end:
        assert reply.line.startswith("status=running"), reply
        reply = client_call("wait", job, cache=cache)
    assert reply.line.startswith("status=running"), reply


def test_words_travel_as_they_are() -> None:
    words = ["predict", "/a b/c,d%20.tif", 'quoted "x"', "größe\t1", "", "two\nlines"]
    line = client.encode(words)
    assert not set(line) & set(' "\n\t')
    assert client.decode(line) == words


def test_second_call_meets_the_same_worker(line: Path, tmp_path: Path, cache: Path) -> None:
    pids = set()
    for n in range(3):
        job = tmp_path / f"forestbridge-{n}"
        reply = job_call(job, *predict_words(line, job / "out.tif"), cache=cache)
        assert reply.line.startswith("status=ok"), reply
        assert (reply.code, reply.err) == (0, b"")
        pids.add(worker_pid(cache))
        found = tifffile.imread(job / "out.tif")
        assert np.array_equal(
            found, fb.predict(fb.read_image(line / "a.tif"), fb.load_forest(line / "a.forest"), kind="labels")
        )
        assert job.stat().st_mode & 0o077 == 0
    assert len(pids) == 1
    assert (cache.stat().st_mode & 0o077) == 0
    assert all(p.stat().st_mode & 0o077 == 0 for p in cache.glob("worker-*") if not p.suffix)


def test_error_of_a_command_is_its_message(line: Path, tmp_path: Path, cache: Path) -> None:
    job = tmp_path / "forestbridge-1"
    reply = job_call(
        job, "predict", line / "a.tif", "--forest", tmp_path / "no.forest", "-o", job / "p.tif", cache=cache
    )
    assert "no.forest" in reply.message
    again = job_call(job, "info", line / "a.tif", cache=cache)
    assert again.line.startswith("status=ok"), "a status of an earlier call in the same folder counts"


def test_two_calls_at_once_both_get_their_answer(line: Path, tmp_path: Path, cache: Path) -> None:
    jobs = [tmp_path / f"forestbridge-{n}" for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda job: job_call(job, *predict_words(line, job / "out.tif"), cache=cache), jobs))
    assert [reply.line.split()[0] for reply in replies] == ["status=ok"] * 3
    end = time.monotonic() + 30
    while (n := number_of_workers(cache)) > 1 and time.monotonic() < end:
        time.sleep(0.1)  # those that came too late are just ending
    assert n == 1


def number_of_workers(cache: Path) -> int:
    return sum(is_worker(process, cache) for process in psutil.process_iter(["environ", "cmdline"]))


def is_worker(process: psutil.Process, cache: Path) -> bool:
    info = process.info
    return "serve" in (info["cmdline"] or ()) and (info["environ"] or {}).get("FORESTBRIDGE_CACHE") == str(cache)


def test_worker_killed_in_mid_call(line: Path, tmp_path: Path, cache: Path) -> None:
    job = tmp_path / "forestbridge-1"
    wait_until_it_works(job, cache, predict_words(line, job / "out.tif", "big.tif"))
    pid = worker_pid(cache)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    reply = client_call("wait", job, cache=cache)
    assert "ended in the middle of this call" in reply.message
    assert not (job / "out.tif").exists()
    again = job_call(job, *predict_words(line, job / "again.tif"), cache=cache)
    assert again.line.startswith("status=ok")
    assert worker_pid(cache) != pid


def test_cancelled_by_file_and_by_a_caller_that_is_gone(line: Path, tmp_path: Path, cache: Path) -> None:
    job = tmp_path / "forestbridge-1"
    wait_until_it_works(job, cache, predict_words(line, job / "out.tif", "big.tif"))
    (job / "status.cancel").touch()
    reply = client_call("wait", job, cache=cache)
    assert reply.message.startswith("cancelled; what was")
    wait_until_it_works(job, cache, predict_words(line, job / "out.tif", "big.tif"))
    long_ago = time.time() - 60
    os.utime(job / "status.alive", (long_ago, long_ago))
    end = time.monotonic() + 30
    while job.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not job.exists(), "what a gone caller left is removed"
    stopped = client_call("stop", cache=cache).line
    assert stopped == "status=ok stopped=true", [p.read_text() for p in cache.glob("*.log")]


def test_worker_ends_when_idle_or_told(line: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "forestbridge", "serve", "--idle", "1"]
    process = subprocess.Popen(command, env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith(b"serving on 127.0.0.1:")
    assert err == b""
    assert worker_pid(cache) is None
    assert client_call("stop", cache=cache).line == "status=ok stopped=false"


def test_second_worker_gives_way(cache: Path, tmp_path: Path, line: Path) -> None:
    job_call(tmp_path / "forestbridge-1", "info", line / "a.tif", cache=cache)
    reply = execute([sys.executable, "-m", "forestbridge", "serve"], cache)
    assert reply.code == 0
    assert b"another worker of this Python serves already" in reply.err


def test_strangers_get_no_answer(line: Path, tmp_path: Path, cache: Path) -> None:
    job_call(tmp_path / "forestbridge-1", "info", line / "a.tif", cache=cache)
    [place] = [p for p in cache.glob("worker-*") if not p.suffix]
    port, token, _ = place.read_text().split()
    lines = [
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"\xff\xfe\n",
        b"wrong,1,hello\n",
        f"{token[:-1]},1,hello\n".encode(),
        b"%zz,1,x\n",
    ]
    for sent in lines:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(100) == b"", sent
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as connection:
        connection.sendall(f"{token},{client.VERSION},hello\n".encode())
        assert connection.recv(100).startswith(fb.__version__.encode())


def test_commands_of_another_version_are_told() -> None:
    worker = Worker("token", 1)
    [refused, text] = worker.answer("0", ["hello"])
    assert refused == "refused"
    assert "forestbridge fiji install" in text
    assert worker.answer(str(client.VERSION), ["dance"])[0] == "refused"


def test_worker_of_an_older_installation_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("token", 1)
    monkeypatch.setattr("forestbridge.cli.worker._installation", lambda: (0,))
    assert worker.answer(str(client.VERSION), ["hello"]) == ["old"]
    assert worker.answer(str(client.VERSION), ["has", "x"]) == ["no"]


def test_without_a_worker_the_call_runs_alone(line: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache folder should be")
    job = tmp_path / "forestbridge-1"
    reply = job_call(job, *predict_words(line, job / "out.tif"), cache=blocked)
    assert reply.line.startswith("status=ok"), reply
    assert (job / "out.tif").exists()
    assert "no worker could be started" in (job / "log").read_text()


def test_python_without_forestbridge(tmp_path: Path, cache: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    for words in (("check",), ("submit", tmp_path / "forestbridge-1", request("info", "a.tif"))):
        reply = client_call(*words, cache=cache, python=bare / "bin" / "python")
        assert "expected forestbridge in the Python" in reply.message
        assert "it has none" in reply.message
        assert reply.err == b""


def test_python_that_is_too_old(tmp_path: Path) -> None:
    """No old Python is at hand: the client is run with the version it would see."""
    script = "import sys, runpy; sys.version_info = (3, 8, 1, 'final', 0); sys.argv[0] = sys.argv[1]; del sys.argv[1]; "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    reply = execute([sys.executable, "-c", script, CLIENT, "check"], tmp_path)
    assert "expected Python 3.11 or newer, found Python 3.8" in reply.message


def test_client_can_be_read_by_old_pythons() -> None:
    import ast

    ast.parse(CLIENT.read_text(encoding="ascii"), feature_version=(3, 6))


def test_check_tells_versions(cache: Path) -> None:
    reply = client_call("check", cache=cache)
    assert value(reply.line, "version") == fb.__version__
    assert value(reply.line, "python") == "{}.{}.{}".format(*sys.version_info)
    assert value(reply.line, "executable") == sys.executable


def test_wrong_words(cache: Path) -> None:
    assert "expected check, submit JOB REQUEST" in client_call("dance", cache=cache).message
    assert "expected check, submit JOB REQUEST" in client_call(cache=cache).message


def test_stop_from_the_command_line(cache: Path, tmp_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(cache))
    assert call("serve", "--stop").out == "no worker runs\n"
    job_call(tmp_path / "forestbridge-1", "info", line / "a.tif", cache=cache)
    assert call("serve", "--stop", "--json").json() == {"stopped": True}


def test_open_once(tmp_path: Path) -> None:
    path, opened = tmp_path / "x", []

    def read(path: Path, **options: str) -> str:
        opened.append(options)
        return path.read_text()

    path.write_text("a")
    assert [open_once(read, path), open_once(read, path)] == ["a", "a"]
    assert len(opened) == 1
    path.write_text("bb")
    assert open_once(read, path) == "bb"
    assert open_once(read, path, device="cpu") == "bb"
    assert len(opened) == 3
    shutil.copy(path, tmp_path / "y")
    open_once(read, tmp_path / "y")
    assert len(opened) == 4
    with pytest.raises(FileNotFoundError):
        open_once(read, tmp_path / "z")
