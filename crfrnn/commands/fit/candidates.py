"""What a fit chooses among: every preset as it is, and kernels with several strengths."""

from dataclasses import replace

from crfrnn.parameters import PRESETS, CRFParameters

STRENGTHS = (0.3, 0.6, 1.2)  # a common factor of the weights


def presets(name: str | None) -> list[CRFParameters]:
    """All of them, or the one of that name."""
    return [CRFParameters.of_preset(one) for one in ([name] if name else PRESETS)]


def variants(parameters: CRFParameters, iterations: int) -> list[CRFParameters]:
    """The same kernels, weaker and stronger."""
    changed = [times(parameters, [strength] * len(parameters.kernels)) for strength in STRENGTHS]
    return [replace(one, iterations=iterations) for one in changed]


def times(parameters: CRFParameters, factors: list[float]) -> CRFParameters:
    """The same with each kernel's weight times its factor."""
    kernels = tuple(
        replace(one, weight=one.weight * factor)  # type: ignore[type-var]
        for one, factor in zip(parameters.kernels, factors, strict=True)
    )
    return replace(parameters, kernels=kernels)
