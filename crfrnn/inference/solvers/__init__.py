"""Solvers: how inference goes from one set of marginals to the next. README.md derives them.

layer = CRFRNN(21, solver=DampedMeanField(0.5, learn_step=True))
refine(image, probabilities, solver="entropic-frank-wolfe")
"""

from typing import Any

from crfrnn.inference.problem import Problem
from crfrnn.inference.solvers.convergent import ConvergentMeanField
from crfrnn.inference.solvers.damped import DampedMeanField
from crfrnn.inference.solvers.frank_wolfe import EntropicFrankWolfe, EuclideanFrankWolfe, FrankWolfe
from crfrnn.inference.solvers.iterate import Iterate
from crfrnn.inference.solvers.parallel import MeanField
from crfrnn.inference.solvers.simplex import sparsemax
from crfrnn.inference.solvers.solver import Solver

__all__ = [
    "SOLVERS",
    "ConvergentMeanField",
    "DampedMeanField",
    "EntropicFrankWolfe",
    "EuclideanFrankWolfe",
    "FrankWolfe",
    "Iterate",
    "MeanField",
    "Problem",
    "Solver",
    "build_solver",
    "find_solver",
    "solver_config",
    "sparsemax",
]

SOLVERS: dict[str, type[Solver]] = {  # tests iterate over it
    "mean-field": MeanField,
    "damped": DampedMeanField,
    "convergent": ConvergentMeanField,
    "entropic-frank-wolfe": EntropicFrankWolfe,
    "euclidean-frank-wolfe": EuclideanFrankWolfe,
}
PLACES: dict[str, tuple[str, ...]] = {  # what stands behind the colon, in `find_solver`
    "damped": ("step",),
    "convergent": ("curvature",),
    "entropic-frank-wolfe": ("step", "lambda_"),
    "euclidean-frank-wolfe": ("step", "lambda_"),
}


def find_solver(text: str) -> Solver:
    """A solver from its name in `SOLVERS`, or from ``NAME:STEP`` or ``NAME:STEP,LAMBDA``.

    STEP is a number in (0, 1], for the two Frank-Wolfes also ``diminishing`` or ``line-search``; for ``convergent`` it
    is the curvature.

    >>> find_solver("damped:0.3").settings()
    {'step': 0.3, 'learn_step': False}
    >>> find_solver("euclidean-frank-wolfe:line-search,0.5").settings()
    {'lambda_': 0.5, 'step': 'line-search', 'learn_step': False}
    """
    name, _, rest = text.partition(":")
    if name not in SOLVERS:
        raise ValueError(f"solver: {name!r} is none of {', '.join(SOLVERS)}")
    words = rest.split(",") if rest else []
    places = PLACES.get(name, ())
    if len(words) > len(places):
        raise ValueError(f"solver: {text!r} has more than {name}:{','.join(places).upper()} or less".replace("_", ""))
    return SOLVERS[name](**{place: _number(word) for place, word in zip(places, words, strict=False)})


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def solver_config(solver: Solver) -> dict[str, Any]:
    """A solver's name and settings, without what it has learned; ValueError for one of your own."""
    for name, known in SOLVERS.items():
        if type(solver) is known:
            return {"name": name, **solver.settings()}
    raise ValueError(f"solver: {type(solver).__name__} is your own and cannot be saved; use {', '.join(SOLVERS)}")


def build_solver(config: dict[str, Any]) -> Solver:
    """The solver with the settings of `solver_config`, and initial values.

    >>> build_solver(solver_config(DampedMeanField(0.25))).settings()["step"]
    0.25
    """
    settings = dict(config)
    name = str(settings.pop("name"))
    if name not in SOLVERS:
        raise ValueError(f"solver: {name!r} is none of {', '.join(SOLVERS)}")
    return SOLVERS[name](**settings)
