"""A training recipe: data, network, CRF, stages, hardware. What `crfrnn train --config FILE` reads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crfrnn.commands.errors import UsageError, check_not_negative
from crfrnn.data.config import DataConfig

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
            and deeplab, ``vgg16`` (ImageNet, downloaded) or a file with torchvision's VGG-16, for efficientnet-lite0
            ``efficientnet-lite0`` (ImageNet, from the extra ``pretrained``).
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


@dataclass(frozen=True)
class DenseCRFLossConfig:
    """What `crfrnn.losses.DenseCRFLoss` is given.

    Args:
        weight: 1e-7 of the published code is 1.8e-3 here at 320 x 320.
        kernels: bilateral:THETA_ALPHA,THETA_BETA,WEIGHT and spatial:THETA_GAMMA,WEIGHT, in pixels of what the network
            sees.
        scale: of the picture that it works on, above 0 to 1.
        normalization: none, after, symmetric or before.
        gate: labelled pixels pay less the surer they are.
    """

    weight: float = 1e-3
    kernels: tuple[str, ...] = ("bilateral:100,15,1",)
    scale: float = 0.5
    normalization: str = "none"
    gate: bool = False


@dataclass(frozen=True)
class GatedCRFLossConfig:
    """What `crfrnn.losses.GatedCRFLoss` is given; labelled pixels pay nothing.

    Args:
        weight: published 0.1.
        kernels: as of dense_crf.
        radius: of the window in pixels, at `scale`.
        scale: of the picture that it works on, above 0 to 1.
    """

    weight: float = 0.1
    kernels: tuple[str, ...] = ("bilateral:6,25.5,1",)
    radius: int = 5
    scale: float = 0.5


@dataclass(frozen=True)
class LossConfig:
    """What is lowered: a sum of these. Pixels without a label, void in the masks, count in all but the first.

    Args:
        cross_entropy: weight of the mean cross-entropy over the labelled pixels.
        dense_crf: a dense CRF's energy over all pixels.
        gated_crf: the same within a window, for the pixels without a label.
    """

    cross_entropy: float = 1.0
    dense_crf: DenseCRFLossConfig | None = None
    gated_crf: GatedCRFLossConfig | None = None

    def __post_init__(self):
        if not 0 <= self.cross_entropy < float("inf"):
            raise ValueError(f"loss.cross_entropy: must be at least 0, got {self.cross_entropy}")


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
        loss: ``{cross_entropy: 1.0, dense_crf: {weight: 1.0e-3}}``: what is lowered, with few labels other losses too.
        unary_loss: weight of the loss of the network's own logits, beside that of the CRF's, where the CRF is trained.
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
    loss: LossConfig = LossConfig()
    unary_loss: float = 0.0
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
        for name in ("learning_rate", "momentum", "weight_decay", "power", "gradient_clip", "unary_loss"):
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


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a network, alone and then end to end with a CRF-RNN, as a configuration says.

    Interrupted or killed, the same command goes on where it was and comes to the same result. The folder gets, for
    each stage, log.csv, last.ckpt and best, the network with the best validation mIoU; the last stage's best is
    copied to model. Needs Lightning: pip install 'crfrnn[train]'.

    Args:
        data: the data set, and how it is read.
        network: the network that gives the unary term.
        stages: what is trained, one after the other.
        out: the folder for everything that comes of it.
        crf: the CRF-RNN behind the network.
        hardware: devices, machines, precision, how often to save.
        seed: of initial values, order and augmentation.
        overwrite: begin anew where the folder holds a run.
    """

    data: DataConfig
    network: NetworkConfig
    stages: list[StageConfig]
    out: str
    crf: CRFConfig = field(default_factory=CRFConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self):
        if not self.stages:
            raise UsageError("stages: give at least one, with name and epochs")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise UsageError(f"stages: two have the same name, {', '.join(names)}")
        check_not_negative("seed", self.seed)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
