"""Results do not depend on threads: not on how many, not on who else calls, not on a fork.

Tolerance: none. The filters are bit-equal for any number of threads, and from run to run.
"""

import concurrent.futures
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch

from crfrnn import Bilateral, Spatial
from crfrnn.runtime import threads
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.places import ROOT
from tests.support.problems import ROWS, photo, predictions, prepared, random_values, rows_of

HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
FAST = [row for row in rows_of("separable", "permutohedral") if str(row.id).endswith("numba_cpu")]


@pytest.fixture(autouse=True)
def two_threads(torch_threads):
    torch_threads(2)


def refined() -> torch.Tensor:
    """Both default kernels on a photo that is large enough to be divided: 6,912 points."""
    q = predictions("coffee").softmax(dim=1)
    bilateral, spatial = Bilateral(80, 13).prepare(photo("coffee")), Spatial(3).prepare(photo("coffee"))
    return torch.cat([bilateral(q), bilateral.transpose(q), spatial(q), spatial.transpose(q)])


class TestNumberOfThreads:
    @each("normalization", ["after", "symmetric", "none"])
    @each("shape", [(1, 1), (3, 5), (1, 9000), (97, 95), (4096,), (20, 21, 22)])
    @pytest.mark.parametrize("row", FAST)
    def test_bit_equal(self, row, shape, normalization, torch_threads):
        values = random_values(2, 3, *shape)

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            gaussian = prepared(row, shape, batch=2, dimensions=3, normalization=normalization)
            return gaussian(values), gaussian.transpose(values)

        torch_threads(1)
        expected = run()
        for count in (2, 3, 7):
            torch_threads(count)
            for quantity, got, one in zip(("filtered values", "transposed filter"), run(), expected, strict=True):
                assert_equal(f"{quantity} with {count} threads", got, one, 0)

    def test_photo(self, torch_threads):
        torch_threads(1)
        expected = refined()
        torch_threads(2)
        assert_equal("filtered values", refined(), expected, 0)

    def test_inside_single(self):
        expected = refined()
        with threads.limited(1):
            assert threads.count() == 1
            assert_equal("filtered values", refined(), expected, 0)
        assert threads.count() == 2


@pytest.mark.parametrize("row", ROWS)
def test_run_to_run(row):
    values = random_values(1, 3, 40, 41)
    runs = [prepared(row, (40, 41), dimensions=3)(values) for _ in range(3)]
    for again in runs[1:]:
        assert_equal("filtered values", again, runs[0], 0)


def test_concurrent_callers():
    """Eight Python threads on the pool at once, each with another problem."""
    expected = refined()
    rows = [row.values[0] for row in FAST]
    alone = [prepared(row, (70, 71), seed=seed)(random_values(1, 4, 70, 71)) for row in rows for seed in range(4)]

    def other(index: int) -> torch.Tensor:
        return prepared(rows[index // 4], (70, 71), seed=index % 4)(random_values(1, 4, 70, 71))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        photos = [pool.submit(refined) for _ in range(6)]
        others = [pool.submit(other, index) for index in range(len(alone))]
        for done in photos:
            assert_equal("filtered values", done.result(timeout=120), expected, 0)
        for done, one in zip(others, alone, strict=True):
            assert_equal("filtered values", done.result(timeout=120), one, 0)


def test_one_filter_shared_by_callers():
    """A prepared filter has no state that calls could meet in."""
    gaussian, q = Bilateral(80, 13).prepare(photo("coffee")), predictions("coffee").softmax(dim=1)
    expected, expected_transposed = gaussian(q), gaussian.transpose(q)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        both = [(pool.submit(gaussian, q), pool.submit(gaussian.transpose, q)) for _ in range(8)]
    for forward, transposed in both:
        assert_equal("filtered values", forward.result(), expected, 0)
        assert_equal("transposed filter", transposed.result(), expected_transposed, 0)


def of_4096_points() -> torch.Tensor:
    """Divided between two of our threads, and nowhere large enough for torch to use its own."""
    values = random_values(1, 3, 64, 64)
    filters = [prepared(row.values[0], (64, 64), dimensions=3) for row in FAST]
    return torch.cat([gaussian(values) for gaussian in filters])


def exit_with_comparison(expected: torch.Tensor, count: int) -> None:
    torch.set_num_threads(count)
    sys.exit(0 if torch.equal(of_4096_points(), expected) else 3)


def fork_after_use(count: int) -> None:
    """Two children, when the parent's threads are running: a forked child has none of them."""
    torch.set_num_threads(2)
    expected = of_4096_points()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=exit_with_comparison, args=(expected, count), daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join(timeout=30)
            assert child.exitcode == 0, f"exit code {child.exitcode}; None: it hangs, 3: another result"
    finally:
        for child in children:
            child.kill()


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
@pytest.mark.parametrize("count", [1, 2])
def test_forked_children(count):
    """In a fresh process: torch's own OpenMP, once used, hangs in any forked child that asks for two threads.

    (Measured with `big * 2` alone, torch 2.13. A DataLoader's workers therefore run with one thread.)
    """
    code = f"from tests.runtime.test_threads import fork_after_use; fork_after_use({count})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


class Refining(torch.utils.data.Dataset):
    """Filters in the worker, as a data set that prepares pseudo labels does."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return refined()


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this system")
def test_data_loader_workers():
    expected = refined()
    loader = torch.utils.data.DataLoader(
        Refining(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    batches = list(loader)
    assert len(batches) == 2
    for batch in batches:
        for item in batch:
            assert_equal("filtered values", item, expected, 0)


class TestOverRange:
    @each("size", [0, 1, 2, 5, 100])
    @each("smallest", [1, 3, 1000])
    @each("count", [1, 2, 3, 8])
    def test_covers_the_range_once(self, size, smallest, count, torch_threads):
        torch_threads(count)
        seen: list[tuple[int, int]] = []
        threads.over_range(lambda a, b: seen.append((a, b)), size, smallest)
        covered = sorted(index for a, b in seen for index in range(a, b))
        assert covered == list(range(size))
        assert len(seen) <= count
        assert len(seen) == 1 or min(b - a for a, b in seen) >= smallest

    @pytest.mark.parametrize("failing", ["here", "in the pool"])
    def test_errors_reach_the_caller(self, failing):
        """After the parts that had begun have ended, so that nobody writes into memory that is gone."""
        begun, ended = threading.Event(), threading.Event()

        def slow() -> None:
            begun.set()
            time.sleep(0.05)
            ended.set()

        def fail() -> None:
            assert begun.wait(timeout=30)
            raise ArithmeticError("in a thread")

        tasks: list[Callable[[], object]] = [slow, fail] if failing == "here" else [fail, slow]
        with pytest.raises(ArithmeticError, match="in a thread"):
            threads.together(tasks)
        assert ended.is_set()

    @each("count", [1, 2, 5])
    def test_results_in_order(self, count, torch_threads):
        torch_threads(count)
        assert threads.together([lambda k=k: k * k for k in range(20)]) == [k * k for k in range(20)]

    def test_tasks_of_tasks(self):
        """Nobody waits in a circle, however deep and from however many threads."""

        def nested(depth: int) -> int:
            return 1 if depth == 0 else sum(threads.together([lambda: nested(depth - 1)] * 3))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            running = [pool.submit(nested, 4) for _ in range(4)]
            assert [done.result(timeout=60) for done in running] == [3**4] * 4


class TestForEach:
    @each("number", [0, 1, 2, 5])
    @each("count", [1, 2, 3])
    def test_results_in_order(self, number, count, torch_threads):
        torch_threads(count)
        assert threads.for_each(lambda k: k * k, number) == [k * k for k in range(number)]

    def test_images_are_side_by_side(self):
        """Each waits for the other; with fewer images than threads, one has them all."""
        both = threading.Barrier(2, timeout=60)
        assert threads.for_each(lambda k: (both.wait() >= 0, torch.get_num_threads()), 2) == [(True, 1)] * 2
        assert threads.for_each(lambda k: threads.count(), 1) == [2]

    @each("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_batches_under_every_mode_of_torch(self, mode, torch_threads):
        """A batch that is shared out among threads, each of which has modes of its own."""
        q = torch.cat([predictions("coffee").softmax(dim=1)] * 3).requires_grad_()
        guide = torch.cat([photo("coffee"), photo("coffee").flip(3), photo("coffee").flip(2)])
        runs = []
        for count in (1, 2, 3):
            torch_threads(count)
            with mode():
                out = Bilateral(80, 13).prepare(guide)(q)
            assert out.requires_grad == (mode is torch.enable_grad)
            (grad,) = torch.autograd.grad((out**2).sum(), q) if out.requires_grad else (out,)
            runs.append((out, grad))
        for run in runs[1:]:
            assert_equal("filtered values", run[0], runs[0][0], 0)
            assert_equal("gradient", run[1], runs[0][1], 0)


class TestSideBySide:
    @staticmethod
    def numbers() -> tuple[int, int, str]:
        return threads.count(), torch.get_num_threads(), threading.current_thread().name

    def test_each_thread_is_alone_and_others_are_not(self):
        both = threading.Barrier(2, timeout=60)

        def together(_: int) -> tuple[int, int, str]:
            both.wait()
            result = self.numbers()
            both.wait()
            return result

        with threads.side_by_side(2) as pool:
            assert self.numbers()[:2] == (2, 2)
            results = list(pool.map(together, range(4)))
            with concurrent.futures.ThreadPoolExecutor(1) as other:
                assert other.submit(self.numbers).result()[:2] == (2, 2)
        assert {result[:2] for result in results} == {(1, 1)}
        assert len({name for *_, name in results}) == 2
        assert self.numbers()[:2] == (2, 2)

    def test_idle_threads_help(self):
        """The last task has all threads, inside `limited` no more than that."""
        with threads.side_by_side(4) as pool:
            go, begun = threading.Event(), threading.Semaphore(0)

            def wait() -> None:
                begun.release()
                go.wait(60)

            def counts() -> tuple[int, int]:
                with threads.limited(1):
                    alone = threads.count()
                return threads.count(), alone

            shares = []
            for _ in range(3):
                shares.append(pool.submit(counts).result(60))
                waiting = pool.submit(wait)
                assert begun.acquire(timeout=60)
            assert shares == [(4, 1), (2, 1), (1, 1)]
            go.set()
            waiting.result(60)

    def test_cancelled_tasks_need_no_threads(self):
        go = threading.Event()
        with threads.side_by_side(2) as pool:
            running = [pool.submit(go.wait, 60) for _ in range(2)]
            waiting = [pool.submit(int) for _ in range(5)]
            assert all(future.cancel() for future in waiting)
            go.set()
            concurrent.futures.wait(running)
            assert pool.submit(threads.count).result(60) == 2

    def test_errors_come_through(self):
        with pytest.raises(ZeroDivisionError), threads.side_by_side(2) as pool:
            pool.submit(lambda: 1 // 0).result()
        assert torch.get_num_threads() == 2

    def test_a_thread_that_cannot_be_started(self, monkeypatch):
        """Nothing hangs, and the number is put back."""
        started = []
        original = threading.Thread.start

        def start(thread):
            started.append(thread)
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            original(thread)

        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="start new thread"), threads.side_by_side(2):
            pass
        assert torch.get_num_threads() == 2
