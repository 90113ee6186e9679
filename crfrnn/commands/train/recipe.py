"""A training recipe: data, network, CRF, stages, hardware. What `crfrnn train --config FILE` reads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import Classes
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.inference.solvers import find_solver
from crfrnn.layer import CRFRNN, KERNEL_WEIGHTS, RATE_MULTIPLIERS
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.saved import fill
from crfrnn.networks.unary import build_unary
from crfrnn.networks.weights import load_vgg16
from crfrnn.parameters import find_preset, parse_kernel

CRF_MODES = ("none", "separate", "trained")
OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("poly", "cosine", "constant")
CLASS_WEIGHTS = ("none", "balanced")
LOGS = ("csv", "tensorboard")


@dataclass(frozen=True)
class NetworkConfig:
    """The network that gives the unary term.

    Args:
        unary: fast-scnn, fcn8s, deeplab, hf:NAME or torchvision:NAME.
        options: what this network takes besides the number of classes.
        weights: initial values: a folder that training or ``save_pretrained`` left, a name on the hub, or, for fcn8s
            and deeplab, ``vgg16`` (ImageNet, downloaded) or a file with torchvision's VGG-16.
    """

    unary: str = "fast-scnn"
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class CRFConfig:
    """The CRF-RNN behind it, in the stages that have one.

    Args:
        preset: bandwidths, initial weights and normalization: crfrnn, pydensecrf, deeplab-v1 or deeplab-v2.
        kernels: instead of the preset's, bilateral:THETA_ALPHA,THETA_BETA,WEIGHT and spatial:THETA_GAMMA,WEIGHT.
        normalization: instead of the preset's: after, symmetric, before or none.
        kernel_weights: class, scalar or full.
        iterations: T in training.
        eval_iterations: T in validation and in use.
        learn_bandwidths: the kernels' bandwidths learn, too.
        solver: instead of the paper's mean field, damped:STEP or another of `crfrnn.solvers.SOLVERS`.
    """

    preset: str = "crfrnn"
    kernels: list[str] | None = None
    normalization: str | None = None
    kernel_weights: str = "class"
    iterations: int = 5
    eval_iterations: int = 10
    learn_bandwidths: bool = False
    solver: str | None = None

    def __post_init__(self):
        find_preset(self.preset)
        if self.solver is not None:
            find_solver(self.solver)
        for text in self.kernels or ():
            parse_kernel(text)
        if self.normalization is not None:
            _one_of("normalization", self.normalization, NORMALIZATIONS)
        _one_of("kernel_weights", self.kernel_weights, KERNEL_WEIGHTS)


@dataclass(frozen=True)
class StageConfig:
    """One stage of the training; it begins with the best weights of the one before.

    Args:
        name: its folder's name.
        epochs: how often it goes through the training split.
        crf: none, the network alone; trained, network and CRF end to end; separate, the CRF behind a frozen network.
        batch_size: photographs in a batch, on each device.
        accumulate: batches whose gradients are added up before an update.
        optimiser: sgd or adamw.
        learning_rate: at the start, for the mean loss over the pixels of a batch.
        learning_rates: other rates, for the parameters whose names begin so: ``crf.kernel_weights: 0.1``; 0 freezes.
        crf_multipliers: the CRF's parameters, where learning_rates says nothing of them, learn at the multiples of
            learning_rate that ``CRFRNN.parameter_groups`` has.
        momentum: of sgd.
        weight_decay: for convolutions and matrices; biases, normalisation and the CRF have none.
        schedule: poly, (1 - t) ** power with t from 0 to 1; cosine; or constant.
        power: of poly.
        warm_up: updates over which the rate rises from zero.
        gradient_clip: largest norm of the gradient of all parameters together; 0 is no limit.
        class_weights: none, or balanced: 1 / log(1.02 + share of the class) in the loss (Paszke et al., ENet, 2016).
        patience: stop after so many epochs without a better validation mIoU; 0 never stops early.
    """

    name: str
    epochs: int
    crf: str = "none"
    batch_size: int = 8
    accumulate: int = 1
    optimiser: str = "sgd"
    learning_rate: float = 0.01
    learning_rates: dict[str, float] = field(default_factory=dict)
    crf_multipliers: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "poly"
    power: float = 0.9
    warm_up: int = 0
    gradient_clip: float = 0.0
    class_weights: str = "none"
    patience: int = 0

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name or self.name.startswith(".") or self.name == "model":
            raise ValueError(f"name: a stage's name is its folder's name, {self.name!r} cannot be one")
        _one_of("crf", self.crf, CRF_MODES)
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        for name, least in {"epochs": 1, "batch_size": 1, "accumulate": 1, "warm_up": 0, "patience": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")
        rates = {f"learning_rates.{prefix}": rate for prefix, rate in self.learning_rates.items()}
        for name in ("learning_rate", "momentum", "weight_decay", "power", "gradient_clip"):
            rates[name] = getattr(self, name)
        for name, value in rates.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: must be at least 0, got {value}")


@dataclass(frozen=True)
class HardwareConfig:
    """Where it runs. Changing this between a start and its continuation is allowed.

    Args:
        accelerator: auto, cpu, gpu, or another that Lightning knows.
        devices: how many, or auto.
        machines: how many, each started with the same command (docs/training.md).
        strategy: auto, ddp, or another that Lightning knows.
        precision: 32-true, 16-mixed or bf16-mixed; the CRF computes in 32 bits whatever this is.
        sync_batchnorm: batch normalisation over all devices together.
        save_minutes: how often the state is saved in the middle of an epoch; 0 saves after each update.
        log: csv, or tensorboard besides.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    machines: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    sync_batchnorm: bool = False
    save_minutes: float = 5.0
    log: str = "csv"

    def __post_init__(self):
        _one_of("log", self.log, LOGS)
        if self.machines < 1:
            raise ValueError(f"machines: must be at least 1, got {self.machines}")


@dataclass(frozen=True)
class Recipe:
    """All of it; see the parts."""

    data: DataConfig
    network: NetworkConfig
    stages: list[StageConfig]
    crf: CRFConfig = field(default_factory=CRFConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    seed: int = 0

    def __post_init__(self):
        if not self.stages:
            raise ValueError("stages: give at least one, with name and epochs")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: two have the same name, {', '.join(names)}")
        if self.seed < 0:
            raise ValueError(f"seed: must be at least 0, got {self.seed}")


def build_network(recipe: Recipe, stage: StageConfig, classes: Classes) -> SegmentationNetwork:
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
    preset = find_preset(config.preset)
    return CRFRNN(
        num_classes,
        kernels=[parse_kernel(text) for text in config.kernels] if config.kernels else preset.kernels,
        iterations=config.iterations,
        eval_iterations=config.eval_iterations,
        kernel_weights=config.kernel_weights,
        normalization=config.normalization or preset.normalization,
        learn_bandwidths=config.learn_bandwidths,
        solver=None if config.solver is None else find_solver(config.solver),
    )


def load_initial(network: SegmentationNetwork, source: str) -> None:
    """Initial values: of a saved network, its unary and its CRF where both have one; or of VGG-16 from ImageNet."""
    if source == "vgg16" or source.endswith(".pth"):
        load_vgg16(network.unary, source)
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


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
