"""CRF-RNN as a layer (section 5): logits and image in, refined logits out, everything in between learns."""

import copy
import html
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crfrnn.filtering.bandwidths import LogBandwidths
from crfrnn.filtering.gaussian_filter import check_numbers, check_tensor
from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial, per_pixel, scaled
from crfrnn.inference.fused import choice
from crfrnn.inference.recurrence import as_iterations, check_iterations, mean_field
from crfrnn.inference.settled import Iterations
from crfrnn.inference.solvers import Solver
from crfrnn.parameters import CRFParameters, as_kernels
from crfrnn.runtime.meta_tensors import like, plain, spacing_of
from crfrnn.runtime.transforms import NO_SCRIPT, check_tracer

KERNEL_WEIGHTS = ("class", "scalar", "full")
# learning rates over the network's, for a mean cross-entropy and Adam; docs/learning.md shows why
RATE_MULTIPLIERS = {"kernel_weights": 10.0, "compatibility": 1.0, "log_bandwidths": 10.0, "solver": 10.0}


class CRFRNN(nn.Module):
    """Mean-field inference in a fully connected CRF as a recurrent layer behind any segmentation network.

    Args:
        num_classes: L, number of labels, at least 2.
        kernels: the Gaussian kernels; their ``weight`` is the initial value of w_m. Texts do as well, such as
            ``bilateral:80,13,10``, and one alone needs no list.
        iterations: T while training. The paper trains with 5 (more makes gradients vanish and costs accuracy).
        eval_iterations: T in evaluation mode; the paper tests with 10. "settled", without gradients, are as many as
            each image needs until no marginal moves by more than 0.001, at most 100.
        kernel_weights: ``class``, one weight for each kernel and class (+1.8 mIoU over scalar in the paper);
            ``scalar``, one for each kernel; ``full``, an L x L matrix for each kernel, as in the original code.
        normalization: of the kernels: ``after``, ``symmetric``, ``before`` or ``none``.
        learn_bandwidths: the kernels' bandwidths, which the paper keeps fixed, are parameters too: as many of each as
            the kernel is made with, one number or one for each axis or channel.
        solver: what an iteration does, such as ``DampedMeanField(0.5, learn_step=True)`` of `crfrnn.solvers`; its
            learned step becomes a parameter of this layer. None is the paper's mean field, the fastest.
        self_connection: whether a pixel hears itself, the term j = i, as in every released code. False leaves it out,
            as the sum of the energy does; the weights must then be learned anew, and the fused CPU code is not used.
        temperature: divides the logits; fitted ones are often below 1. It is no parameter that learns.
        spacing: from one pixel to the next along each axis, such as (z, y, x) in millimetres; bandwidths of positions
            then count in its unit, instead of in pixels.

    Parameters: ``kernel_weights`` (M, L), (M, 1) or (M, L, L); ``compatibility`` mu (L, L), a penalty that is
    subtracted, starting as the Potts model 1 - I and learned without any constraint (section 4.2.3); with
    `learn_bandwidths` also ``log_bandwidths.0.theta_alpha`` and so on, natural logarithms, so that every value is a
    bandwidth. `parameter_groups` gives each of them a learning rate that suits it.

    Shapes: logits (B, L, *S), image or other guide (B, C, *S) in the units of ``theta_beta`` (RGB 0..255 for the
    default) -> logits (B, L, *S). S is a grid of 1 to 3 dimensions. MONAI's MetaTensors of volumes come back as such,
    and tell their spacing where nobody else does. The default kernels see no edges in an image in
    0..1, or normalised as networks take it: there is a warning, once.

    Gradients reach the logits, the parameters and, where it requires one, the guide, which may be a network's own
    feature map (docs/learning.md).

    Source: Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015.

    >>> layer = CRFRNN(num_classes=21)
    >>> logits, image = torch.randn(2, 21, 24, 32), torch.randint(0, 256, (2, 3, 24, 32))
    >>> layer(logits, image).shape
    torch.Size([2, 21, 24, 32])
    """

    def __init__(
        self,
        num_classes: int,
        kernels: Sequence[Kernel | str] = (Bilateral(160, 3), Spatial(3)),
        iterations: int = 5,
        eval_iterations: Iterations = 10,
        kernel_weights: str = "class",
        normalization: str = "after",
        learn_bandwidths: bool = False,
        solver: Solver | None = None,
        self_connection: bool = True,
        temperature: float = 1.0,
        spacing: Sequence[float] | None = None,
    ):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes: a CRF needs at least 2 labels, got {num_classes}")
        if kernel_weights not in KERNEL_WEIGHTS:
            raise ValueError(f"kernel_weights: {kernel_weights!r} is none of {', '.join(KERNEL_WEIGHTS)}")
        kernels = as_kernels(kernels)
        crf = CRFParameters(kernels, normalization, temperature, solver=solver, self_connection=self_connection)
        self.num_classes = num_classes
        self._kernels = crf.kernels  # as they were made, for pictures of the size that they were made for
        self.factor = 1.0  # how much larger the pictures are now, see `scaled`
        self.log_bandwidths = nn.ModuleList(map(LogBandwidths, kernels)) if learn_bandwidths else None
        self.iterations = check_iterations(iterations)
        self.eval_iterations: Iterations = as_iterations(eval_iterations, "eval_iterations")
        self.normalization = normalization
        self.solver = solver
        self.self_connection = self_connection
        self.temperature = float(temperature)
        if spacing is not None:
            per_pixel(spacing, len(spacing))
        self.spacing = None if spacing is None else tuple(map(float, spacing))
        initial = crf.kernel_weights()
        if kernel_weights == "full":
            weights = initial.view(-1, 1, 1) * torch.eye(num_classes)
        else:
            weights = initial.repeat(1, num_classes if kernel_weights == "class" else 1)
        self.kernel_weights = nn.Parameter(weights)
        self.compatibility = nn.Parameter(torch.ones(num_classes, num_classes).fill_diagonal_(0))
        choice.preload()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__({"spacing": None} | state)  # which those of older versions lack
        choice.preload()

    @classmethod
    def from_config(cls, path: str | Path, num_classes: int | None = None) -> "CRFRNN":
        """The layer with the parameters that ``crfrnn fit`` found, as a start for training or for use as it is.

        Args:
            path: the YAML file that ``crfrnn fit --out`` wrote, or one with the same names written by hand.
            num_classes: L, where the file does not tell it.

        Raises:
            ValueError: a file that cannot be read, or that is for another number of classes.
        """
        chosen = CRFParameters.from_yaml(path)
        if None not in (num_classes, chosen.num_classes) and num_classes != chosen.num_classes:
            raise ValueError(f"num_classes: {num_classes}, but {path} was fitted to {chosen.num_classes} classes")
        labels = num_classes or chosen.num_classes
        if labels is None:
            raise ValueError(f"num_classes: {path} does not tell it; say from_config(path, num_classes=...)")
        if chosen.standardize:
            warnings.warn(
                f"standardize: {path} is for standardised intensities; give the layer crfrnn.standardized(image)",
                stacklevel=2,
            )
        return cls.of(chosen, labels)

    @classmethod
    def of(
        cls,
        parameters: CRFParameters,
        num_classes: int,
        *,
        iterations: int = 5,
        kernel_weights: str = "class",
        learn_bandwidths: bool = False,
    ) -> "CRFRNN":
        """The layer that begins with these parameters; their iterations are T in evaluation.

        Args:
            parameters: of a dense CRF, such as those of a preset.
            num_classes: L.
            iterations, kernel_weights, learn_bandwidths: as in the constructor.

        >>> CRFRNN.of(CRFParameters.of_preset("deeplab-v2"), num_classes=21).normalization
        'symmetric'
        """
        layer = cls(
            num_classes,
            parameters.kernels,
            iterations=iterations,
            eval_iterations=parameters.iterations,
            kernel_weights=kernel_weights,
            normalization=parameters.normalization,
            learn_bandwidths=learn_bandwidths,
            solver=parameters.solver,
            self_connection=parameters.self_connection,
            temperature=parameters.temperature,
        )
        if parameters.class_weights is not None:
            if kernel_weights == "scalar":
                raise ValueError("kernel_weights: 'scalar' has none for each class, but the parameters do; use 'class'")
            weights = parameters.kernel_weights(num_classes)
            with torch.no_grad():
                layer.kernel_weights.copy_(torch.diag_embed(weights) if kernel_weights == "full" else weights)
        return layer

    def forward(
        self,
        logits: Tensor,
        image: Tensor,
        iterations: Iterations | None = None,
        spacing: Sequence[float] | None = None,
        took: Callable[[int], object] | None = None,
    ) -> Tensor:
        """(B, L, *S), (B, C, *S) -> (B, L, *S), the logits after T iterations.

        `iterations` overrides T once, and `spacing` the layer's, for volumes that differ in theirs. `took` is called
        with T for each image of the batch.
        """
        check_tracer()
        self._check(logits, image)
        if spacing is None:
            spacing = spacing_of(image) if self.spacing is None else self.spacing
        given, logits, image = logits, plain(logits), plain(image)
        if iterations is None:
            iterations = self.iterations if self.training else self.eval_iterations
        with torch.autocast(logits.device.type, enabled=False):
            guide = image.double() if logits.dtype == torch.float64 else image
            kernels = self._kernels_now(self._only_numbers())
            if spacing is not None:
                kernels = scaled(kernels, per_pixel(spacing, guide.dim() - 2))
            filters = [kernel.prepare(guide, normalization=self.normalization) for kernel in kernels]
            if not self.self_connection:
                filters = [gaussian.without_self() for gaussian in filters]
        if self.temperature != 1:
            logits = logits / self.temperature
        parameters = self.kernel_weights, self.compatibility
        refined = mean_field(logits, filters, *parameters, iterations, self.solver, took=took)
        return like(refined, given)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels with the bandwidths that they have now, in plain numbers; with a spacing in its unit."""
        return self._kernels_now(numbers=True)

    def _kernels_now(self, numbers: bool) -> tuple[Kernel, ...]:
        """Learned bandwidths as numbers, or as tensors through which their parameters get a gradient."""
        kernels = self._kernels
        if self.log_bandwidths is not None:
            learned: Any = self.log_bandwidths  # of LogBandwidths, which the type of a ModuleList does not say
            pairs = zip(learned, kernels, strict=True)
            kernels = tuple(bandwidths.kernel(kernel, numbers) for bandwidths, kernel in pairs)
        return kernels if self.factor == 1 else scaled(kernels, self.factor)

    def _only_numbers(self) -> bool:
        """Whether the bandwidths are constants in this call. A compiler must see them as the tensors that they are."""
        if self.log_bandwidths is None:
            return True
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.log_bandwidths.parameters())
        return not learns and not torch.compiler.is_compiling()

    def scaled(self, factor: float) -> "CRFRNN":
        """The same layer for pictures with `factor` times as many pixels along each axis.

        Bandwidths of position keep their share of the picture; the parameters are shared with this layer.

        >>> layer = CRFRNN(11, kernels=[Bilateral(30, 10), Spatial(1.5)])
        >>> larger = layer.scaled(2)
        >>> larger.kernels[1].theta_gamma, larger.compatibility is layer.compatibility
        (3.0, True)
        """
        if not factor > 0:
            raise ValueError(f"factor: must be positive, got {factor}")
        scaled(self._kernels, factor)  # or a ValueError
        layer = copy.copy(self)
        layer.factor = self.factor * factor
        return layer

    def parameter_groups(self, lr: float, **multipliers: float) -> list[dict[str, Any]]:
        """What an optimiser takes, each kind of parameter with a learning rate that suits it.

        Args:
            lr: the network's learning rate, for a mean cross-entropy and Adam or AdamW.
            multipliers: ``kernel_weights``, ``compatibility``, ``log_bandwidths`` and ``solver`` (a learned step),
                other than `RATE_MULTIPLIERS`.

        None of them decays. Parameters that do not require a gradient are left out.

        >>> layer = CRFRNN(21, learn_bandwidths=True)
        >>> [(group["name"], group["lr"]) for group in layer.parameter_groups(1.0, compatibility=2.0)]
        [('kernel_weights', 10.0), ('compatibility', 2.0), ('log_bandwidths', 10.0)]
        """
        groups = []
        for unknown in multipliers.keys() - RATE_MULTIPLIERS.keys():
            raise ValueError(f"{unknown}: is none of {', '.join(RATE_MULTIPLIERS)}")
        for part, multiplier in (RATE_MULTIPLIERS | multipliers).items():
            learned = [p for name, p in self.named_parameters() if name.startswith(part) and p.requires_grad]
            if learned:
                groups.append({"params": learned, "lr": lr * multiplier, "weight_decay": 0.0, "name": part})
        return groups

    def _check(self, logits: Tensor, image: Tensor) -> None:
        check_tensor("logits", logits)
        check_tensor("image", image)
        if logits.dim() < 3 or logits.shape[1] != self.num_classes:
            raise ValueError(f"logits: expected (batch, {self.num_classes}, *sizes), got {tuple(logits.shape)}")
        if image.shape[:1] != logits.shape[:1] or image.shape[2:] != logits.shape[2:]:
            raise ValueError(
                f"image: expected (batch, channels, *sizes) with the batch and sizes of the logits,"
                f" {tuple(logits.shape)}, got {tuple(image.shape)}"
            )
        if image.device != logits.device:
            raise ValueError(f"image: on {image.device}, but the logits are on {logits.device}")
        check_numbers("logits", logits.device)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, kernels={self.kernels}, T={self.iterations}/{self.eval_iterations}"

    def __prepare_scriptable__(self):
        """torch.jit.script asks every module, this one inside a network too, before it begins to compile."""
        raise NotImplementedError(NO_SCRIPT)

    def _repr_html_(self) -> str:
        """For notebooks: a row for each kernel, with the bandwidths and the weights that it has now."""
        rows = [("kernel", "bandwidths", "weights")]
        for kernel, weights in zip(self.kernels, self.kernel_weights.detach(), strict=True):
            thetas = {name: value for name, value in vars(kernel).items() if name.startswith("theta")}
            bandwidths = "; ".join(f"{name} {_text(value)}" for name, value in thetas.items())
            rows.append((type(kernel).__name__, bandwidths, _text(weights.flatten().tolist())))
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        lines = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table>{lines}</table>T = {self.iterations} in training, {self.eval_iterations} in evaluation"


def _text(numbers: float | Sequence[float]) -> str:
    """One number, a few, or from the least to the greatest of many."""
    several = list(numbers) if isinstance(numbers, Sequence) else [numbers]
    if len(several) > 6 or len(set(several)) == 1:
        several = sorted({min(several), max(several)})
        return " to ".join(f"{number:.4g}" for number in several)
    return ", ".join(f"{number:.4g}" for number in several)
