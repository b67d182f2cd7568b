"""Work in threads: results in order, bounded, not divided twice, and ended by the first error."""

import threading
import time

import pytest

from forestbridge.threads import check_threads, cores, for_each, in_order


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_results_come_in_order(threads: int | None) -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n % 3 == 0 else 0)
        return n * n

    assert list(in_order(slow_first, range(20), threads)) == [n * n for n in range(20)]
    done = []
    for_each(done.append, range(20), threads)
    assert sorted(done) == list(range(20))


def test_no_more_is_begun_than_twice_the_threads() -> None:
    begun: list[int] = []
    results = in_order(lambda n: begun.append(n) or n, iter(range(1000)), 3)
    for n in range(5):
        assert next(results) == n
        time.sleep(0.01)
        assert len(begun) <= n + 2 * 3
    results.close()
    time.sleep(0.01)
    assert len(begun) < 20


def test_work_inside_work_stays_in_its_thread() -> None:
    used = set()

    def inner(_: int) -> str:
        return threading.current_thread().name

    def outer(_: int) -> set[str]:
        return set(in_order(inner, range(4), 4)) | {threading.current_thread().name}

    for names in in_order(outer, range(8), 2):
        assert len(names) == 1
        used |= names
    assert all(name.startswith("forestbridge") for name in used)
    assert len(set(in_order(lambda n: time.sleep(0.01) or inner(n), range(8), 2))) == 2


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_ends_it(threads: int) -> None:
    begun: list[int] = []

    def fail(n: int) -> None:
        begun.append(n)
        if n in (4, 5):
            raise ValueError(f"number {n}")

    with pytest.raises(ValueError, match=r"^number 4$"):
        for_each(fail, range(1000), threads)
    assert len(begun) < 30


def test_number_of_threads() -> None:
    assert check_threads(None) == cores() >= 1
    assert check_threads(3) == 3
    with pytest.raises(ValueError, match=r"expected at least one thread, found -1; leave it out to use all \d+ cores"):
        check_threads(-1)
