"""The choice of a method is a pure function of the call, and says why."""

import subprocess
import sys
import warnings

import pytest
import torch

from crfrnn.filtering import methods
from crfrnn.runtime import gpu
from tests.support.problems import METHOD_OF, ROWS, device_for

CPU = torch.device("cpu")


@pytest.mark.parametrize("row", ROWS)
def test_rows_load(row):
    device_for(row)
    operator = row.load()
    assert operator.__name__ == row.operator
    assert callable(operator.apply)


@pytest.mark.parametrize("method", methods.IMPLEMENTATIONS)
class TestTable:
    def test_every_method_has_a_reference_that_takes_everything(self, method):
        *_, last = methods.IMPLEMENTATIONS[method]
        assert last.name == "reference"
        for device in ("cpu", "cuda", "meta"):
            for dtype in (torch.float32, torch.float64):
                assert last.refuses(torch.device(device), dtype) is None

    def test_names_are_unique(self, method):
        names = [row.name for row in methods.IMPLEMENTATIONS[method]]
        assert len(names) == len(set(names))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_first_that_fits_is_chosen(self, method, dtype):
        rows = (row for row in methods.IMPLEMENTATIONS[method] if row.name != "triton")
        fitting = [row for row in rows if row.refuses(CPU, dtype) is None]
        assert methods.choose(method, CPU, dtype) is fitting[0]

    def test_asking_by_name(self, method):
        for row in methods.IMPLEMENTATIONS[method]:
            if row.refuses(CPU, torch.float32) is None:
                assert methods.choose(method, CPU, torch.float32, row.name) is row

    def test_unknown_name(self, method):
        with pytest.raises(ValueError, match=r"^implementation: 'fortran' is none of .*reference"):
            methods.choose(method, CPU, torch.float32, "fortran")


@pytest.mark.parametrize("method", ["separable", "permutohedral"])
def test_cpu_gets_numba(method):
    for dtype in (torch.float32, torch.float64):
        assert methods.choose(method, CPU, dtype).name == "numba_cpu"


@pytest.mark.parametrize("method", ["separable", "permutohedral"])
def test_refusals_say_why(method):
    with pytest.raises(ValueError, match=r"^method: .* cannot run this call \(numba_cpu: .*the CPU.*on meta\)"):
        methods.choose(method, torch.device("meta"), torch.float32, "numba_cpu")
    with pytest.raises(ValueError, match=r"numba_cpu: .*float32 or float64, not torch.bfloat16"):
        methods.choose(method, CPU, torch.bfloat16, "numba_cpu")


def test_triton_says_what_it_needs(monkeypatch):
    with pytest.raises(ValueError, match=r"\(triton: its kernels run on CUDA, the tensors are on meta\)"):
        methods.choose("permutohedral", torch.device("meta"), torch.float32, "triton")
    monkeypatch.setattr(gpu, "triton_installed", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'crfrnn\[triton\]'"):
        methods.choose("permutohedral", torch.device("cuda"), torch.float32, "triton")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_one_warning_where_a_gpu_gets_the_reference(device, monkeypatch):
    monkeypatch.setattr(gpu, "triton_installed", lambda: False)
    monkeypatch.setattr(methods, "_warned", set())
    with pytest.warns(UserWarning, match=rf"^separable: the plain torch reference runs on {device}.*triton: "):
        row = methods.choose("separable", torch.device(device), torch.float32)
    assert row.name == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.choose("separable", torch.device(device), torch.float32)


def test_cuda_gets_triton(monkeypatch):
    monkeypatch.setattr(gpu, "triton_installed", lambda: True)
    for method in ("separable", "permutohedral"):
        assert methods.choose(method, torch.device("cuda"), torch.float32).name == "triton"


def test_the_interpreter_runs_only_for_those_who_ask(monkeypatch):
    monkeypatch.setattr(gpu, "interpreted", lambda: True)
    for method in methods.IMPLEMENTATIONS:
        assert methods.choose(method, CPU, torch.float32).name != "triton"
    assert methods.choose("separable", CPU, torch.float32, "triton").name == "triton"


def test_unknown_method():
    with pytest.raises(ValueError, match=r"^method: 'fft' is none of exact, separable, permutohedral"):
        methods.choose("fft", CPU, torch.float32)


def test_method_of_covers_the_table():
    assert len(METHOD_OF) == sum(len(rows) for rows in methods.IMPLEMENTATIONS.values())


def test_importing_compiles_and_loads_nothing():
    """Compiled code comes at first use: the import of the package imports neither Numba nor a kernel."""
    code = (
        "import sys, crfrnn; loaded = [name for name in sys.modules"
        " if name.split('.')[0] == 'numba' or name.endswith(('numba_cpu', 'triton_gpu'))]; sys.exit(str(loaded or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.strip() in ("", "0"), done.stderr
