"""Batches: results in order, failures apart, and how far an interrupted one came."""

import importlib
import threading

import pytest
import torch

from crfrnn.cli import main
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


VERBS = {  # its arguments, and what it calls early
    "refine": (["a.png", "--labels", "b.png", "--out", "c.png"], "refine.files.kind_of"),
    "segment": (["a.png", "--out", "c.png"], "segment.files._targets"),
    "fit": (["a", "b", "c", "--out", "crf.yaml"], "fit.files._check_preset"),
    "evaluate": (["--predictions", "a", "--truth", "b"], "evaluate.evaluate.evaluate_predictions"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_jobs_are_the_cores_that_work(torch_threads, monkeypatch, capsys, verb):
    torch_threads(3)
    arguments, early = VERBS[verb]
    module, _, name = early.rpartition(".")
    seen = []

    def stop(*_: object) -> None:
        seen.append(threads.count())
        raise ValueError("seen")

    monkeypatch.setattr(importlib.import_module(f"crfrnn.commands.{module}"), name, stop)
    for jobs, cores in (("1", 1), ("2", 2), (None, 3)):
        assert main([verb, *arguments, *(["--jobs", jobs] if jobs else [])]) == 1
        assert seen.pop() == cores
        assert torch.get_num_threads() == 3
    assert main([verb, *arguments, "--jobs", "0"]) == 2
    assert "jobs: must be at least 1, got 0; leave it out for all cores" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["refine", "segment"])
def test_workers_of_ray_have_cores_of_their_own(capsys, verb):
    assert main([verb, *VERBS[verb][0], "--ray", "local", "--jobs", "2"]) == 2
    assert "jobs: are cores of this machine; with --ray say --ray-cpus" in capsys.readouterr().err
