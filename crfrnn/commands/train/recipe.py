"""What a recipe says, built: the network, its CRF and its optimiser."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from crfrnn.commands.train.options import CRFConfig, StageConfig, TrainOptions
from crfrnn.data.datasets import Classes
from crfrnn.layer import CRFRNN, RATE_MULTIPLIERS
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.saved import fill
from crfrnn.networks.unary import build_unary
from crfrnn.networks.unary.efficientnet_lite0 import EfficientNetLite0
from crfrnn.networks.weights import load_efficientnet_lite0, load_vgg16
from crfrnn.parameters import CRFParameters, kernel_text

SAME_SIZE = 0.02  # what rounding may do to the ratio of two sizes


def build_network(recipe: TrainOptions, stage: StageConfig, classes: Classes) -> SegmentationNetwork:
    """The network of a stage with its initial values."""
    unary = build_unary(recipe.network.unary, num_classes=len(classes), **recipe.network.options)
    network = SegmentationNetwork(
        unary,
        None if stage.crf == "none" else build_crf(recipe.crf, len(classes)),
        separate=stage.crf == "separate",
        class_names=classes.names,
        palette=classes.palette,
        size=max(recipe.data.size) if recipe.data.size else None,
    )
    if recipe.network.weights:
        load_initial(network, recipe.network.weights)
    for name, parameter in network.named_parameters():
        frozen = rate_of(name, stage) == 0 or (stage.crf == "separate" and name.startswith("unary."))
        parameter.requires_grad_(not frozen)
    return network


def rate_of(name: str, stage: StageConfig) -> float:
    """The learning rate of a parameter: that of the longest prefix of its name in ``learning_rates``, or the stage's.

    >>> rate_of("crf.kernel_weights", StageConfig("s", epochs=1, learning_rates={"crf.": 0.1}))
    0.1
    >>> rate_of("crf.kernel_weights", StageConfig("s", epochs=1, learning_rate=0.01, crf_multipliers=True))
    0.1
    """
    matches = [prefix for prefix in stage.learning_rates if name.startswith(prefix)]
    if matches:
        return stage.learning_rates[max(matches, key=len)]
    part = name.split(".")[1] if stage.crf_multipliers and name.startswith("crf.") else ""
    return stage.learning_rate * RATE_MULTIPLIERS.get(part, 1.0)


def build_crf(config: CRFConfig, num_classes: int) -> CRFRNN:
    """The layer that a configuration describes, with initial values."""
    return CRFRNN.of(
        crf_parameters(config),
        num_classes,
        iterations=config.iterations,
        kernel_weights=config.kernel_weights,
        learn_bandwidths=config.learn_bandwidths,
    )


def crf_parameters(config: CRFConfig) -> CRFParameters:
    """Those that the layer begins with."""
    return CRFParameters.of_preset(
        config.preset,
        kernels=config.kernels or None,
        normalization=config.normalization,
        solver=config.solver,
        iterations=config.eval_iterations,
    )


def reach_note(parameters: CRFParameters, size: tuple[int, int] | None, sizes: Mapping[tuple[int, int], int]) -> str:
    """What bandwidths, which count in pixels of `size`, are in pixels of the photographs; "" at the photographs' own.

    Args:
        parameters: of the CRF, as they are used at `size`.
        size: (width, height) to which all photographs are scaled; None leaves them as they are.
        sizes: how many photographs there are of each (width, height).

    >>> reach_note(CRFParameters.of_preset("crfrnn", kernels=["spatial:3,2"]), (240, 180), {(480, 360): 9})
    'crf: kernels count in pixels of 240 x 180 (data.size): spatial:3,2 are spatial:6,2 in photographs of 480 x 360'
    """
    photographs = max(sizes, key=lambda one: sizes[one], default=size)
    if size is None or photographs is None:
        return ""
    factor = math.hypot(*photographs) / math.hypot(*size)
    if abs(factor - 1) < SAME_SIZE:
        return ""
    larger = [kernel.scaled(factor) for kernel in parameters.kernels]
    here, there = (" ".join(map(kernel_text, kernels)) for kernels in (parameters.kernels, larger))
    return (
        f"crf: kernels count in pixels of {size[0]} x {size[1]} (data.size): {here} are {there}"
        f" in photographs of {photographs[0]} x {photographs[1]}"
    )


def load_initial(network: SegmentationNetwork, source: str) -> None:
    """Initial values: of a saved network, its unary and its CRF where both have one; or of one trained on ImageNet."""
    if source in ("vgg16", "efficientnet-lite0") or source.endswith(".pth"):
        load = load_efficientnet_lite0 if isinstance(network.unary, EfficientNetLite0) else load_vgg16
        load(network.unary, source)
        return
    saved = SegmentationNetwork.from_pretrained(source)
    if saved.num_classes not in (None, network.num_classes):
        raise ValueError(
            f"weights: {source} has {saved.num_classes} classes, but the data have {network.num_classes};"
            " train a network of its own, or give data with the same classes"
        )
    fill(network.unary, saved.unary.state_dict(), source)
    if network.crf is not None and saved.crf is not None:
        fill(network.crf, saved.crf.state_dict(), source)


def parameter_groups(network: nn.Module, stage: StageConfig) -> list[dict[str, Any]]:
    """What an optimiser takes: the parameters that are not frozen, by learning rate and decay.

    >>> stage = StageConfig("s", epochs=1, learning_rate=0.1, learning_rates={"bias": 0.2}, weight_decay=0.01)
    >>> [(group["lr"], group["weight_decay"]) for group in parameter_groups(nn.Linear(2, 3), stage)]
    [(0.1, 0.01), (0.2, 0.0)]
    """
    names = [name for name, _ in network.named_parameters()]
    for prefix in stage.learning_rates:
        if not any(name.startswith(prefix) for name in names):
            tops = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise ValueError(
                f"learning_rates: no parameter of stage {stage.name!r} begins with {prefix!r};"
                f" they begin with {', '.join(tops)}"
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() > 1 and not name.startswith("crf.")
            key = rate_of(name, stage), stage.weight_decay if decays else 0.0
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError(f"learning_rate: every parameter of stage {stage.name!r} is frozen, there is nothing to train")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def build_optimiser(network: nn.Module, stage: StageConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`."""
    groups = parameter_groups(network, stage)
    if stage.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=stage.learning_rate)
    return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=stage.momentum)


def rate_factor(stage: StageConfig, update: int, updates: int) -> float:
    """What the learning rates are multiplied by at an update, 0 to `updates` - 1.

    >>> [round(rate_factor(StageConfig("s", 1, power=2, warm_up=2), update, 4), 3) for update in range(4)]
    [0.5, 0.562, 0.25, 0.062]
    """
    progress = min(1.0, update / max(1, updates))
    rising = min(1.0, (update + 1) / stage.warm_up) if stage.warm_up else 1.0
    if stage.schedule == "poly":
        return rising * (1 - progress) ** stage.power
    if stage.schedule == "cosine":
        return rising * 0.5 * (1 + torch.tensor(progress * torch.pi).cos().item())
    return rising


def settings_that_differ(first: Any, second: Any, name: str = "") -> Iterator[str]:
    """The names and values in which two configurations, as plain dictionaries and lists, differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            yield from settings_that_differ(first.get(key), second.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, pair in enumerate(zip(first, second, strict=True)):
            yield from settings_that_differ(*pair, f"{name}.{number}")
    elif first != second:
        yield f"{name} {first} there, {second} here"
