"""What a fit chooses among: every preset as it is, and kernels with several strengths."""

from dataclasses import replace

from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.parameters import PRESETS, CRFParameters

STRENGTHS = (0.4, 0.8, 1.6)  # a common factor of the weights
FURTHER = (  # beside the presets' kernels
    # Far and of almost one colour, near and of similar colours: with factors for the classes, each chooses among them.
    CRFParameters((Bilateral(67, 3, weight=2), Bilateral(15, 8, weight=0.5), Spatial(1, weight=1)), "symmetric"),
)


def presets(name: str | None) -> list[CRFParameters]:
    """All of them, or the one of that name."""
    return [CRFParameters.of_preset(one) for one in ([name] if name else PRESETS)]


def groups(preset: str | None, iterations: int) -> list[list[CRFParameters]]:
    """For each of the presets and, without one, of `FURTHER`: it as it is, and the same kernels weaker and stronger."""
    further = () if preset else tuple(replace(one, iterations=iterations) for one in FURTHER)
    found = []
    for one in (*presets(preset), *further):
        changed = [times(one, [strength] * len(one.kernels)) for strength in STRENGTHS]
        found.append([one, *(replace(weaker, iterations=iterations) for weaker in changed)])
    return found


def times(parameters: CRFParameters, factors: list[float]) -> CRFParameters:
    """The same with each kernel's weight times its factor."""
    kernels = tuple(
        replace(one, weight=one.weight * factor)  # type: ignore[type-var]
        for one, factor in zip(parameters.kernels, factors, strict=True)
    )
    return replace(parameters, kernels=kernels)
