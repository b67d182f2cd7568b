"""The benchmark's own machinery: inputs, contenders in processes, and the page. What it measures is no test's business."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "scripts" / "benchmark"
sys.path.insert(0, str(FOLDER))

import data  # noqa: E402
import measure  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import tasks  # noqa: E402
from peers import Figures, Peer, PeerError, Worker, make_environment  # noqa: E402

SMALL = tasks.Problem(size=64, classes=2, pixels=60)


def task(*names: str) -> tasks.Task:
    return tasks.Task("t", "Title", "Note.", SMALL, tuple(tasks.Contender(n, n) for n in names), "labels")


def test_every_contender_has_its_file_and_every_peer_its_contenders() -> None:
    files = {p.stem for p in (FOLDER / "contenders").glob("*.py")} - {"common"}
    named = {c.name for t in tasks.TASKS for c in t.contenders}
    scaling = {"scaling_forestbridge", "scaling_scipy_sklearn", "stack_forestbridge"}
    assert files == named | scaling
    of_peers = {(c.name, c.peer) for t in tasks.TASKS for c in t.contenders if c.peer}
    assert of_peers == {(name, p.name) for p in peers.PEERS for name in p.contenders}


def test_strokes_stay_in_their_class() -> None:
    truth = data.draw_blobs(128, 3, seed=1)
    y, x, k = data.scribble(truth, 90, seed=2)
    assert np.bincount(k).tolist() == [30, 30, 30] and (truth[y, x] == k).all()


def test_contenders_take_turns_and_agree(tmp_path: Path) -> None:
    result = measure.run_task(task("planes_forestbridge", "planes_sklearn"), tmp_path, repeats=2, install=False)
    assert [len(row.figures) for row in result.rows] == [2, 2] and not result.left_out
    assert result.rows[1].answer == "0 of 4096 labels differ" and result.rows[0].answer == ""
    assert all(f.wall > 0 and f.cpu > 0 and f.extra_mib >= 0 for row in result.rows for f in row.figures)
    section = report.task_section(result)
    assert section.startswith("### Title\n\nNote.\n\n| ") and "0 of 4096 labels differ" in section


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"planes_sklearn failed: FileNotFoundError.*see .*planes_sklearn.log"):
        Worker(Path(sys.executable), "planes_sklearn", tmp_path)
    assert "Traceback" in (tmp_path / "planes_sklearn.log").read_text()


def test_a_peer_that_is_not_there_is_left_out_with_a_remedy(tmp_path: Path) -> None:
    absent = Peer(name="absent", contenders=(), interpreter=sys.executable, check="import absent", remedy="get it")
    with pytest.raises(PeerError, match="absent is left out; missing: get it"):
        make_environment(absent, tmp_path)
    with pytest.raises(PeerError, match="which a run without --quick makes"):
        make_environment(absent._replace(requirements=("absent==1",)), tmp_path, install=False)
    assert not list(tmp_path.iterdir())


def test_numbers_on_the_page() -> None:
    assert report.spread(np.array([3.1, 3.5, 3.2]), ".1f") == "3.2 (3.1 to 3.5)"
    assert report.spread(np.array([3.21, 3.19, 3.2]), ".1f") == "3.2"
    slow, fast = (
        measure.Row("", tuple(Figures(w, w, 0.0) for w in walls), "", {"fastfilters": "HASH", "vigra": "1.11"})
        for walls in ((4.0, 9.0), (2.0, 3.0))
    )
    assert slow.ratios(fast).tolist() == [2.0, 3.0]  # of the same round
    assert report.peer_versions([measure.Result(task(), (slow,), ())]) == "fastfilters, vigra 1.11"


def test_answers_are_compared_as_the_task_says() -> None:
    ours, other = np.array([1, 2, 2]), np.array([1, 1, 2])
    assert measure.compare(task(), other, ours) == "1 of 3 labels differ"
    assert measure.compare(task(), np.zeros(2), ours) == "another kind"
    features = task()._replace(compare="features")
    assert measure.compare(features, np.array([[2.0, 4.0]]), np.array([[2.0, 4.4]])) == "9e-02 of the largest value"
