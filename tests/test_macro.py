"""``--macro``: nothing on stderr, one status line at the end, progress in a file, cancelling by a file."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.main import get_command

from command_line import call, write_line
from forestbridge.cli import macro
from forestbridge.cli.app import app
from forestbridge.cli.macro import Outcome, macro_order, run_for_macro, status_line, write_status
from forestbridge.phantom import phantom
from macro_calls import environment, forestbridge_call, value
from test_cli_documented import commands


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, scribbles, a store and a forest; its name has a blank."""
    path = tmp_path_factory.mktemp("a line")
    write_line(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"output": "/a/b.tif"}, "status=ok output=/a/b.tif"),
        ({"output": "/a b/c.tif", "n": 3}, "status=ok output=[/a b/c.tif] n=3"),
        ({"output": "/a/b [1].tif"}, "status=ok output=[/a/b [1].tif]"),
        ({"output": "/a/b] c.tif"}, "status=ok output=[/a/b) c.tif]"),
        ({"names": ""}, "status=ok names=[]"),
        ({"names": "two\nlines"}, "status=ok names=[two lines]"),
        ({"names": "'quoted' a"}, "status=ok names=['quoted' a]"),
    ],
)
def test_status_line(facts: dict[str, object], expected: str) -> None:
    assert status_line("ok", **facts) == expected
    for name, given in facts.items():
        assert value(expected, name) == " ".join(str(given).split()).replace("b] ", "b) ")


def test_message_is_last_and_on_one_line() -> None:
    assert status_line("error", message="a\n b=c  [d") == "status=error message=a b=c [d"


@pytest.mark.parametrize("name", [name for name, _ in commands(get_command(app))])
def test_every_command_tells_a_misspelt_option(name: str, tmp_path: Path, cache: Path) -> None:
    ended = call(*name.split(), "--mispelt", "--macro")
    assert (ended.code, ended.err) == (2, "")
    assert re.fullmatch(r"status=error message=.*No such option.*--mispelt.*\n", ended.out)
    assert "No such option" in (cache / "macro.log").read_text()


def test_help_shows_the_options() -> None:
    text = call("predict", "--help").out
    assert "For macros" in text
    assert all(option in text for option in ("--macro", "--status", "--log"))


def test_line_with_macro_writes_nothing_to_stderr(line: Path, tmp_path: Path, cache: Path) -> None:
    """Each step of the line in a process of its own: libraries write to stderr behind Python's back."""
    out = tmp_path / "with blank"
    out.mkdir()
    steps = {
        "info": ("info", line / "a.tif"),
        "extract": ("extract", line / "a.tif", "-o", out / "x.features.ome.zarr", "--scales", "1"),
        "train": ("train", line / "a.tif", "--labels", line / "a_labels.tif", "--n-trees", "3", "-o", out / "x.forest"),
        "predict": ("predict", line / "a.tif", "--forest", line / "a.forest", "-o", out / "p.tif"),
        "export": ("export", line / "a.features.ome.zarr", "-o", out / "f.tif"),
        "package": ("package", "fused", line / "a.forest", "-o", out / "x.zip"),
        "verify": ("verify", line / "a.features.ome.zarr"),
        "encoders": ("encoders", "--json"),
    }
    for name, words in steps.items():
        reply = forestbridge_call(*words, "--macro", cache=cache)
        assert (reply.code, reply.err) == (0, b""), name
        assert reply.line.startswith("status=ok "), name
        assert value(reply.line, "log") == str(cache / "macro.log")
        if "-o" in words:
            assert value(reply.line, "output") == str(words[words.index("-o") + 1])
    assert value(forestbridge_call(*steps["train"], "--overwrite", "--macro", cache=cache).line, "trees") == "3"


def test_facts_of_a_prediction(line: Path, tmp_path: Path) -> None:
    ended = call("predict", line / "a.tif", "--forest", line / "a.forest", "-o", tmp_path / "p.tif", "--macro")
    last = ended.out.splitlines()[-1]
    assert value(last, "classes") == "1:background,2:cell"
    assert value(last, "outputs") == "1"
    images = [line / "a.tif", line / "b.tif"]
    words = ["--forest", line / "a.forest", "--kind", "labels", "--suffix", "_l.tif", "--json", "--macro"]
    ended = call("predict", *images, "-o", tmp_path, *words)
    assert value(ended.out.splitlines()[-1], "outputs") == "2"


def test_error_is_the_message_of_the_command(line: Path, tmp_path: Path, cache: Path) -> None:
    words = ("predict", line / "a.tif", "--forest", tmp_path / "no.forest", "-o", tmp_path / "p.tif")
    plain, ended = call(*words), call(*words, "--macro")
    assert ended.err == ""
    assert ended.code == plain.code == 3
    assert ended.out == "status=error message=" + " ".join(plain.err.split()).removeprefix("forestbridge: ") + "\n"


def test_checked_and_not_good_is_an_error(line: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"no image")
    words = ["--forest", line / "a.forest", "-o", tmp_path / "out", "--macro"]
    ended = call("predict", line / "a.tif", tmp_path / "bad.tif", *words)
    assert ended.code == 3
    assert "1 of 2 done" in ended.out.splitlines()[-1]
    assert "bad.tif" in ended.out.splitlines()[-1]


def test_status_file_is_the_status_line(line: Path, tmp_path: Path) -> None:
    status = tmp_path / "status"
    words = ["--forest", line / "a.forest", "-o", tmp_path / "p.tif", "--macro", "--status", status]
    ended = call("predict", line / "a.tif", *words)
    assert status.read_text() == ended.out.splitlines()[-1] + "\n"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("status")) == ["status"]


def test_log_that_cannot_be_written_is_replaced(line: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = call("info", line / "a.tif", "--macro", f"--log={tmp_path / 'file' / 'x.log'}")
    log = Path(value(ended.out.splitlines()[-1], "log"))
    assert ended.code == 0
    assert log.exists()
    assert "info" in log.read_text()
    log.unlink()


def test_long_log_is_put_aside(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macro, "LOG_BYTES", 10)
    for _ in range(2):
        call("info", line / "a.tif", "--macro", "--log", tmp_path / "x.log")
    assert (tmp_path / "macro.old.log").exists()


def test_words_behind_two_dashes_are_no_options() -> None:
    assert macro_order(["info", "--", "--macro"]) is None
    order = macro_order(["info", "--macro", "--status", "s", "--log=l"])
    assert order == (Path("s"), Path("l"))


def test_what_libraries_write_to_stderr_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> Outcome:
        os.write(2, b"from compiled code\n")
        print("from Python", file=sys.stderr)
        return Outcome(0)

    assert run_for_macro(work, macro.Order(None, tmp_path / "x.log"), ["test"]) == 0
    found = capfd.readouterr()
    assert found.err == ""
    assert found.out.startswith("status=ok log=")
    text = (tmp_path / "x.log").read_text()
    assert "from compiled code" in text
    assert "from Python" in text


def start_slow_prediction(line: Path, tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path, Path]:
    """Start a prediction of many tiles; return it, its status file, and its output."""
    tifffile.imwrite(tmp_path / "big.tif", np.tile(phantom((500, 500), classes=2).image, (12, 12)))
    status, out = tmp_path / "status", tmp_path / "p.tif"
    command = [sys.executable, "-m", "forestbridge", "predict", tmp_path / "big.tif", "--forest", line / "a.forest"]
    command += ["-o", out, "--jobs", "1", "--macro", "--status", status]
    process = subprocess.Popen(
        command, env=environment(tmp_path / "cache"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return process, status, out


def progress_of(status: Path) -> int:
    try:
        text = status.read_text()
    except OSError:
        return 0
    assert text.startswith("status=")
    return int(value(text, "current") or 10**9)


@pytest.mark.parametrize("how", ["cancel", "gone"])
def test_cancelling(how: str, line: Path, tmp_path: Path) -> None:
    process, status, out = start_slow_prediction(line, tmp_path)
    seen = set()
    while process.poll() is None and len(seen) < 3:
        seen.add(progress_of(status))
        time.sleep(0.01)
    assert len(seen) == 3, "progress was not told"
    if how == "cancel":
        Path(f"{status}.cancel").touch()
    else:
        alive = Path(f"{status}.alive")
        alive.touch()
        os.utime(alive, (time.time() - 60, time.time() - 60))
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (7, b"")
    reason = "cancelled; what was" if how == "cancel" else "cancelled, since the caller gave no sign of life for 10 s"
    assert said.decode().splitlines()[-1].startswith(f"status=error message={reason}")
    assert status.read_text() == said.decode().splitlines()[-1] + "\n"
    assert not out.exists()
    assert not list(tmp_path.glob(".*partial"))


def test_readers_of_a_status_file_see_whole_lines(tmp_path: Path) -> None:
    path, seen, end = tmp_path / "status", [], threading.Event()
    write_status(path, "status=running 0")

    def read() -> None:
        while not end.is_set():
            seen.append(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        write_status(path, f"status=running {n} " + "x" * 5000)
    end.set()
    reader.join()
    assert all(text.startswith("status=running") and text.endswith("\n") for text in seen)


def test_defects_give_a_status_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> Outcome:
        raise AttributeError("no such thing")

    assert run_for_macro(work, macro.Order(tmp_path / "status", tmp_path / "x.log"), ["test"]) == 1
    found = capfd.readouterr()
    assert found.err == ""
    assert found.out.startswith(
        "status=error message=expected to finish, found a defect of forestbridge (AttributeError"
    )
    assert (tmp_path / "status").read_text() == found.out
    assert "Traceback" in (tmp_path / "x.log").read_text()


def test_caller_whose_folder_is_gone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    order = macro.Order(tmp_path / "gone" / "status", tmp_path / "x.log")
    assert run_for_macro(lambda: Outcome(0), order, ["test"]) == 0
    found = capfd.readouterr()
    assert found.err == ""
    assert found.out.startswith("status=ok ")
    assert "expected to write" in (tmp_path / "x.log").read_text()
