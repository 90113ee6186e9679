"""What the GPU benchmark can do without a GPU: its arithmetic, its refusals, and a dry run of every call."""

import math
import subprocess
import sys

import pytest
import torch

from benchmarks import bm_gpu, gpu_inputs, gpu_time, gpu_work
from benchmarks.gpu_work import H200, Work

CPU = torch.device("cpu")


def bench(deadline: float = math.inf) -> bm_gpu.Bench:
    return bm_gpu.Bench(CPU, H200, dry=True, deadline=deadline)


class TestFloor:
    def test_the_slowest_unit_sets_it(self):
        assert Work(bandwidth=4.8e9, fmas=1e9).floor(H200) == (1.0, "bandwidth")
        assert Work(bandwidth=4.8e9, exps=8.4e9).floor(H200) == (2.0, "exps")

    def test_work_adds_up(self):
        assert Work(1, 2, 3, 4) + Work(bandwidth=1) * 2 == Work(3, 2, 3, 4)

    def test_exact_filter_of_a_photo(self):
        """500 x 375 squared is 3.5e10 pairs; the differences are more work than the exponentials."""
        work = gpu_work.exact(500 * 375, 21, share=1.0)
        assert work.exps == pytest.approx(3.5e10, rel=0.01)
        milliseconds, unit = work.floor(H200)
        assert unit == "products"
        assert 10 < milliseconds < 20
        assert gpu_work.exact(500 * 375, 21, share=0.1).floor(H200)[0] == pytest.approx(milliseconds / 10)

    def test_inference_grows_with_everything(self):
        least = gpu_work.inference(1000, 21, 500, 5).floor(H200)[0]
        for more in ((2000, 21, 500, 5), (1000, 42, 500, 5), (1000, 21, 1000, 5), (1000, 21, 500, 6)):
            assert gpu_work.inference(*more).floor(H200)[0] > least
        assert gpu_work.training(1000, 21, 500, 5).floor(H200)[0] > 1.5 * least
        assert gpu_work.inference(1000, 21, 500, 5, batch=3).floor(H200)[0] == pytest.approx(3 * least)


class TestRefusals:
    def test_same(self):
        x = torch.tensor([1.0, 2.0])
        bm_gpu.same("sums", x * (1 + 1e-6), x)
        for wrong in (x * 1.001, x * float("nan")):
            with pytest.raises(bm_gpu.Refused, match=r"^sums differ from the reference by"):
                bm_gpu.same("sums", wrong, x)

    def test_a_wrong_layer_is_not_timed(self, monkeypatch):
        run = bm_gpu.run
        monkeypatch.setattr(bm_gpu, "run", lambda *arguments: 1.01 * run(*arguments))
        here = bench()
        row = here.guarded("T = 10", 7, lambda: bm_gpu.layer_row(here, bm_gpu.CALLS[0]))
        assert row[1].startswith("refused: sums differ from the reference by 1.0e-02")
        assert len(row) == 7
        assert here.failed

    def test_one_failure_does_not_cost_the_others(self):
        def fails() -> list[str]:
            raise RuntimeError("CUDA out of memory\nand more")

        here = bench()
        assert here.guarded("large", 3, fails) == ["large", "failed: RuntimeError: CUDA out of memory", ""]
        assert here.guarded("small", 3, lambda: ["1", "2"]) == ["small", "1", "2"]
        assert here.failed

    def test_no_time_left(self):
        assert bench(deadline=0).guarded("late", 3, lambda: ["1", "2"]) == ["late", "no time left", ""]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self, capsys):
        assert bm_gpu.main([]) == 1
        assert (
            capsys.readouterr().err == "bm_gpu: no CUDA device here; run it on a machine with one, or try --dry-run\n"
        )


def test_inputs_come_in_turn():
    seen = []
    call = gpu_time.in_turn([lambda: seen.append("x"), lambda: seen.append("y")])
    for _ in range(4):
        call()
    assert sorted(seen[:2]) == sorted(seen[2:]) == ["x", "y"]


def test_dry_run_makes_every_kind_of_call(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bm_gpu, "CALLS", [bm_gpu.CALLS[n] for n in (1, 4)])
    monkeypatch.setattr(bm_gpu, "ON_CPU", bm_gpu.ON_CPU[2:])
    report = tmp_path / "results" / "gpu.md"
    assert bm_gpu.main(["--dry-run", "--out", str(report)]) == 0, capsys.readouterr().out
    text = report.read_text()
    assert "nothing was measured" in text
    for call in bm_gpu.CALLS:
        assert f"| {call.name} | " in text
    assert "| near tiles, set a | 20 | " in text
    assert "| 100.0% | " in text
    assert text in capsys.readouterr().out


def test_runs_where_only_torch_and_triton_are(tmp_path):
    """Neither scikit-image nor what the command line is made of."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['skimage', 'skimage.data', 'jsonargparse', 'transformers']));"
        "from benchmarks import bm_gpu, gpu_inputs; print(gpu_inputs.source(), *gpu_inputs.photos(5, 30, 40).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "made pictures, for scikit-image is not installed 5 3 30 40\n", done.stderr


def test_made_pictures_have_edges_and_flat_regions():
    picture = gpu_inputs._made(0).astype(int)
    step = abs(picture[:, 1:] - picture[:, :-1]).max(axis=2)
    assert (step > 30).mean() > 0.005
    assert (step < 12).mean() > 0.9
