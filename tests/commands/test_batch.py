"""Batches: results in order, failures apart, and how far an interrupted one came."""

import threading

import pytest

from crfrnn.commands import batch
from crfrnn.commands.batch import run_all
from crfrnn.runtime import threads


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_batch_keeps_order_and_failures_apart(torch_threads, workers):
    torch_threads(workers)
    seen = []

    def work(number: int) -> int:
        seen.append(threads.count())
        if number % 5 == 3:
            raise ValueError(f"no\n {number}s")
        if number == 6:
            raise ZeroDivisionError("by six")
        return number * number

    finished = run_all(work, range(10), "squaring")
    assert finished.results == [n * n for n in (0, 1, 2, 4, 5, 7, 9)]
    assert finished.failures == [(3, "no 3s"), (6, "ZeroDivisionError: by six"), (8, "no 8s")]
    assert set(seen[:-workers]) == {1}  # every job has one thread as long as there are more jobs than threads
    assert run_all(work, [], "nothing").results == []


def test_an_interrupted_batch_says_how_far_it_came(monkeypatch, torch_threads):
    torch_threads(1)
    under_way = threading.Event()

    def work(number: int) -> None:
        if number == 2:
            under_way.set()

    def interrupted(futures):
        assert under_way.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: \d+ of 500 done, the same command does the rest"):
        run_all(work, range(500), "waiting")
