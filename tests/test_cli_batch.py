"""Several files in one call, and calls that are stopped: a bad file does not stop the rest, Ctrl-C does not lose what is done."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import CELLS, SCALES, call, done, tree, write_line
from extract_runs import tree as store_tree
from forestbridge.cli.batch import for_each
from forestbridge.errors import ImageError, InterruptedRunError, ResourceError
from image_files import cut


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, scribbles, a store and a forest; bad.tif is cut off."""
    path = tmp_path_factory.mktemp("line")
    write_line(path)
    tifffile.imwrite(path / "bad.tif", CELLS.image)
    cut(path / "bad.tif", 0.5)
    return path


@pytest.fixture(autouse=True)
def there(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, which has the line's files under ``line``."""
    monkeypatch.chdir(tmp_path)
    Path("line").symlink_to(line)


WITHIN = 120
"""Seconds after which a program that was stopped counts as hanging."""

PREDICT = ["--forest", "line/a.forest", "-o", "out"]


def test_extract_several() -> None:
    ended = done("extract", "line/a.tif", "line/b.tif", "-o", "out", *SCALES)
    assert ended.out == "out/a.features.ome.zarr\nout/b.features.ome.zarr\n"
    assert done("verify", "out/b.features.ome.zarr").code == 0
    again = done("extract", "line/a.tif", "line/b.tif", "-o", "out", *SCALES, "--json")
    assert again.err.count("1 of 1 shards were there, 0 to compute") == 2
    assert again.json()["failed"] == []


def test_a_bad_file_does_not_stop_the_rest() -> None:
    ended = call("extract", "line/a.tif", "line/bad.tif", "line/b.tif", "-o", "out", *SCALES)
    assert ended.code == 3
    assert ended.out == "out/a.features.ome.zarr\nout/b.features.ome.zarr\n"
    assert "failed: line/bad.tif: expected" in ended.err
    assert ended.err.endswith("2 of 3 done, not done: line/bad.tif\n")
    ended = call("predict", "line/bad.tif", "line/rgb.tif", "line/a.tif", *PREDICT, "--json")
    assert ended.code == 3
    document = ended.json()
    assert document["outputs"] == ["out/a_probabilities.tif"]
    assert [f["input"] for f in document["failed"]] == ["line/bad.tif", "line/rgb.tif"]
    assert "expected 1 channel(s)" in document["failed"][1]["error"]
    assert document["failed"][1]["exit_code"] == 3
    assert not [name for name in tree(Path.cwd()) if name.endswith(".partial")]


def test_all_bad_leaves_nothing() -> None:
    before = tree(Path.cwd())
    assert call("predict", "line/bad.tif", "line/rgb.tif", *PREDICT).code == 3
    assert call("extract", "line/bad.tif", "line/nan.npy", "-o", "out").code == 3
    assert tree(Path.cwd()) == before


def test_predict_several_into_a_folder() -> None:
    ended = done("predict", "line/a.tif", "line/b.tif", *PREDICT, "--suffix", "_seg.png")
    assert ended.out == "out/a_seg.png\nout/b_seg.png\n"
    refused = call("predict", "line/a.tif", "line/b.tif", *PREDICT, "--suffix", "_seg.png")
    assert refused.code == 2
    assert "expected new outputs, found 2 that exist: out/a_seg.png, out/b_seg.png; give another folder" in refused.err
    done("predict", "line/a.tif", "line/b.tif", *PREDICT, "--suffix", "_seg.png", "--overwrite")
    # one source into a folder that is there
    done("predict", "line/a.tif", *PREDICT, "--suffix", ".npy")
    expected = fb.predict(CELLS.image, fb.load_forest("line/a.forest"))
    np.testing.assert_array_equal(np.load("out/a.npy"), expected)


def test_results_that_replace_are_whole() -> None:
    done("predict", "line/a.tif", "--forest", "line/a.forest", "-o", "p.ome.zarr")
    done("predict", "line/b.tif", "--forest", "line/a.forest", "-o", "p.ome.zarr", "--overwrite")
    done("predict", "line/b.tif", "--forest", "line/a.forest", "-o", "b.npy")
    image = fb.read_image("p.ome.zarr")
    np.testing.assert_array_equal(image.data[(slice(None),) * 3], np.load("b.npy"))


def test_what_ends_a_batch(capsys: pytest.CaptureFixture) -> None:
    items = [(Path(name), name) for name in "abc"]
    seen = []

    def work(path: Path, name: str) -> str:
        seen.append(name)
        if name == "b":
            raise error
        return name

    error: BaseException = ImageError("bad")
    results, failures = for_each(items, work)
    assert (results, [f.path.name for f in failures]) == (["a", "c"], ["b"])
    error = ResourceError("disk full")
    with pytest.raises(ResourceError, match="disk full"):
        for_each(items, work)
    error = KeyboardInterrupt()
    with pytest.raises(
        InterruptedRunError, match=r"found an interruption; what was written is complete, .* still: b, c"
    ):
        for_each(items, work)
    assert seen == ["a", "b", "c", "a", "b", "a", "b"]
    assert capsys.readouterr().err == "failed: bad\n"


def _start(*arguments: str) -> subprocess.Popen:
    code = "import sys; sys.argv[0] = 'forestbridge'; from forestbridge.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _shards(store: Path) -> int:
    """Return how many shards a store has."""
    journal = store / "forestbridge/journal.0.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def _wait_for_shards(store: Path, n: int, process: subprocess.Popen) -> None:
    """Wait until a store has so many shards."""
    for _ in range(6000):
        if _shards(store) >= n:
            return
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.01)
    raise AssertionError("no shard in a minute")


@pytest.fixture(scope="module")
def long_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of 30 planes, thus 30 shards."""
    path = tmp_path_factory.mktemp("stack") / "long stack.tif"
    planes = [np.roll(np.tile(CELLS.image, (2, 2)), n, axis=0) for n in range(30)]
    tifffile.imwrite(path, np.stack(planes), imagej=True, metadata={"axes": "ZYX"})
    return path


@pytest.mark.skipif(os.name == "nt", reason="needs signals that a process can send to another")
def test_stopped_and_resumed(long_stack: Path) -> None:
    store = Path("s t.features.ome.zarr")
    command = ["extract", str(long_stack), "-o", str(store), "--scales", "1.6", "3.5"]
    for sent, extra in [(signal.SIGINT, ["--overwrite"]), (signal.SIGTERM, ["--jobs", "2"]), (signal.SIGKILL, [])]:
        there = _shards(store)
        process = _start(*command, *extra)
        _wait_for_shards(store, there + 2, process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=WITHIN)
        assert out == ""
        assert "Traceback" not in err
        if sent == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
            continue
        assert process.returncode == 7
        resume = re.search(
            r"found an interruption \(Ctrl-C\); everything done so far is kept; go on with: (.*)\n$", err
        )
        assert resume, err
        kept = [word for word in [*command, *extra] if word != "--overwrite"]
        assert shlex.split(resume[1]) == ["forestbridge", *kept]
    partial = call("train", store, "-l", "line/a_labels.tif", "-o", "x.forest")
    assert partial.code == 4
    assert "expected a store that is done" in partial.err
    last = done(*command)
    found = re.search(r"(\d+) of 30 shards were there, (\d+) to compute", last.err)
    assert found and 6 <= int(found[1]) < 30 and int(found[1]) + int(found[2]) == 30
    done(*command[:2], "-o", "whole.features.ome.zarr", *command[4:])
    assert store_tree(store) == store_tree(Path("whole.features.ome.zarr"))


@pytest.mark.skipif(os.name == "nt", reason="needs signals that a process can send to another")
def test_prediction_stopped(long_stack: Path) -> None:
    done("extract", "line/a.tif", "-o", "all.features.ome.zarr")
    done("train", "all.features.ome.zarr", "-l", "line/a_labels.tif", "-o", "all.forest", "--n-trees", "10")
    for attempt in ("p.tif", "p.ome.zarr"):
        before = tree(Path.cwd())
        process = _start("predict", str(long_stack), "--forest", "all.forest", "-o", attempt)
        while process.poll() is None and not list(Path.cwd().glob(".p.*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WITHIN)
        assert (process.returncode, out) == (7, ""), err
        assert f"to do are still: {long_stack}" in err
        assert tree(Path.cwd()) == before
