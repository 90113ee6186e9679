"""What a saved network consists of: settings that can be written as JSON, and weights that must fit."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crfrnn.filtering.kernels import Bilateral, Features, Kernel, Spatial
from crfrnn.inference.solvers import build_solver, solver_config
from crfrnn.layer import CRFRNN

KERNELS = {"bilateral": Bilateral, "spatial": Spatial, "features": Features}
MOST_BYTES = 10_000_000  # of config.json
MOST_NUMBER = 1e6  # in it
SMALLEST_NUMBER = 2  # bytes of one in half precision
SMALL = 1_000_000  # numbers that are worth no question
DRAWING = (Tensor.normal_, Tensor.uniform_)
SHOWN = 4  # entries of a list in an error message


def crf_config(crf: CRFRNN) -> dict[str, Any]:
    """The settings of a CRF-RNN layer, without its weights; bandwidths as they are now, in numbers.

    >>> crf_config(CRFRNN(2, kernels=[Spatial(3)]))["kernels"]
    [{'kind': 'spatial', 'theta_gamma': 3, 'weight': 3.0, 'method': 'separable'}]
    """
    if crf.log_bandwidths is not None and crf.factor != 1:
        raise ValueError("crf: made by scaled(), its bandwidths belong to another layer; save that one")
    weights = crf.kernel_weights
    kind = "full" if weights.dim() == 3 else "scalar" if weights.shape[1] == 1 else "class"
    return {
        "num_classes": crf.num_classes,
        "kernels": [_kernel_config(kernel) for kernel in crf.kernels],
        "iterations": crf.iterations,
        "eval_iterations": crf.eval_iterations,
        "kernel_weights": kind,
        "normalization": crf.normalization,
        "learn_bandwidths": crf.log_bandwidths is not None,
        **({} if crf.solver is None else {"solver": solver_config(crf.solver)}),
        "self_connection": crf.self_connection,
        "temperature": crf.temperature,
        **({} if crf.spacing is None else {"spacing": list(crf.spacing)}),
    }


def crf_of_config(config: Mapping[str, Any]) -> CRFRNN:
    """The layer with the settings of `crf_config`, and initial values.

    >>> crf_of_config(crf_config(CRFRNN(5, iterations=3))).iterations
    3
    """
    settings: dict[str, Any] = dict(config)
    settings["kernels"] = [_build_kernel(kernel) for kernel in config["kernels"]]
    if settings.get("solver") is not None:
        settings["solver"] = build_solver(settings["solver"])
    return CRFRNN(**settings)


def _kernel_config(kernel: Kernel) -> dict[str, Any]:
    for kind, known in KERNELS.items():
        if type(kernel) is known:
            settings = {name: _plain(value) for name, value in vars(kernel).items() if value is not None}
            return {"kind": kind, **settings}
    raise ValueError(f"crf: a kernel of your own, {type(kernel).__name__}, cannot be saved; use {', '.join(KERNELS)}")


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value.tolist() if isinstance(value, Tensor) else value


def _build_kernel(config: Mapping[str, Any]) -> Kernel:
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    kind = settings.pop("kind")
    return KERNELS[str(kind)](**settings)


def read_config(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON file; a ValueError of one line where there is none."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, and settings have at most {MOST_BYTES:,}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not readable as JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds a {type(config).__name__}, expected settings in braces")
    return config


def check_numbers(settings: Any, source: str | Path, name: str = "") -> None:
    """ValueError where one of the numbers in a network's settings is none that a network can have."""
    if isinstance(settings, dict | list):
        items = settings.items() if isinstance(settings, dict) else enumerate(settings)
        for key, value in items:
            check_numbers(value, source, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, int | float) and not abs(settings) <= MOST_NUMBER:
        raise ValueError(f"{source}: {name}: {settings!r} is beyond any network")


class _Undrawn(TorchFunctionMode):
    """Draws no initial values: to draw them without memory torch would load its compiler, which takes seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0] if func in DRAWING else func(*args, **(kwargs or {}))


def check_memory(build: Callable[[], nn.Module], weights: Path) -> None:
    """ValueError where a network wants far more numbers than its file of weights holds; it is built without memory."""
    try:
        with torch.device("meta"), _Undrawn():
            wanted = sum(value.numel() for value in build().state_dict().values())
    except (NotImplementedError, RuntimeError):  # a network of others, which looks at its numbers as it is made
        return
    stored = weights.stat().st_size // SMALLEST_NUMBER
    if wanted > 2 * stored + SMALL:  # twice, as one tensor may have two places
        raise ValueError(f"{weights}: does not fit the network, which has {wanted:,} numbers; {stored:,} fit in there")


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict into a module that it must fit exactly.

    Raises ValueError, one line, with what is missing, of another shape, or has no place, and with what is not finite;
    nothing is loaded then.
    Tensors that share memory with another entry of the module may be missing, as safetensors leaves them out.
    """
    expected = module.state_dict()
    present = {expected[name].data_ptr() for name in state if name in expected}
    missing = [
        name
        for name, value in expected.items()
        if name not in state and (value.numel() == 0 or value.data_ptr() not in present)
    ]
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    unknown = [name for name in state if name not in expected]
    problems = [("missing", missing), ("of another shape", wrong), ("unknown", unknown)]
    if any(names for _, names in problems):
        lines = [f"{what}: {listed(names)}" for what, names in problems if names]
        raise ValueError(f"{source}: does not fit the network; {'; '.join(lines)}")
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"{source}: NaN or infinity in {listed(broken)}; the training that left it had diverged")
    with torch.no_grad():
        for name, value in state.items():
            expected[name].copy_(value)


def listed(names: Iterable[str]) -> str:
    """A few names and how many more there are.

    >>> listed(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    names = list(names)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
