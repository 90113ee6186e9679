"""The layer: parameters and their initial values, T, shapes, gradients, errors."""

import copy
import math
import re

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, Bilateral, Features, Spatial, mean_field
from crfrnn.inference.recurrence import recurrence
from tests.support.compare import assert_equal
from tests.support.problems import NORMALIZATIONS, photo, potts, predictions, random_values

KERNELS = (Bilateral(6, 40), Spatial(2))
EXACT = (Bilateral(6, 40, method="exact"), Spatial(2, method="exact"))
KINDS = ["scalar", "class", "full"]


def inputs(shape: tuple[int, ...] = (9, 11), labels: int = 3, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return random_values(batch, labels, *shape), 128 + 60 * random_values(batch, 3, *shape, seed=3)


def learned(layer: CRFRNN) -> CRFRNN:
    """The layer after some training: parameters without any symmetry."""
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.add_(random_values(*parameter.shape, dtype=parameter.dtype, seed=seed), alpha=0.3)
    return layer


class TestInitialValues:
    def test_defaults_are_the_paper(self):
        layer = CRFRNN(21)
        assert layer.kernels == (Bilateral(160, 3, weight=5), Spatial(3, weight=3))
        assert (layer.iterations, layer.eval_iterations, layer.normalization) == (5, 10, "after")
        assert torch.equal(layer.kernel_weights, torch.tensor([[5.0], [3.0]]).expand(2, 21))
        assert torch.equal(layer.compatibility, 1 - torch.eye(21))

    @pytest.mark.parametrize(("kind", "shape"), [("scalar", (2, 1)), ("class", (2, 7)), ("full", (2, 7, 7))])
    def test_kernel_weights(self, kind, shape):
        layer = CRFRNN(7, kernels=(Bilateral(weight=4), Spatial(weight=0.5)), kernel_weights=kind)
        assert layer.kernel_weights.shape == shape
        expected = torch.eye(7) if kind == "full" else torch.ones(shape[1:])
        assert torch.equal(layer.kernel_weights[0], 4 * expected)
        assert torch.equal(layer.kernel_weights[1], 0.5 * expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_parameter_learns(self, kind):
        layer = CRFRNN(3, kernels=KERNELS, kernel_weights=kind)
        assert {name for name, _ in layer.named_parameters()} == {"kernel_weights", "compatibility"}
        assert all(parameter.requires_grad for parameter in layer.parameters())

    def test_kinds_start_alike(self):
        logits, image = inputs()
        outputs = [CRFRNN(3, kernels=KERNELS, kernel_weights=kind)(logits, image) for kind in KINDS]
        for kind, output in zip(KINDS[1:], outputs[1:], strict=True):
            assert_equal(f"logits with {kind} weights", output, outputs[0], 1e-5)

    def test_repr(self):
        assert "num_classes=3" in repr(CRFRNN(3))
        assert "T=5/10" in repr(CRFRNN(3))


class TestIterations:
    logits, image = inputs()

    def expected(self, layer: CRFRNN, iterations: int) -> torch.Tensor:
        filters = [kernel.prepare(self.image) for kernel in layer.kernels]
        return mean_field(self.logits, filters, layer.kernel_weights, layer.compatibility, iterations)

    def test_training_and_evaluation_differ(self):
        layer = CRFRNN(3, kernels=KERNELS, iterations=2, eval_iterations=7)
        training, evaluation = layer(self.logits, self.image), layer.eval()(self.logits, self.image)
        assert_equal("training", training, self.expected(layer, 2), 0)
        assert_equal("evaluation", evaluation, self.expected(layer, 7), 0)
        assert not torch.allclose(training, evaluation)
        assert_equal("training again", layer.train()(self.logits, self.image), training, 0)

    @pytest.mark.parametrize("iterations", [0, 1, 4])
    @pytest.mark.parametrize("training", [True, False])
    def test_override(self, iterations, training):
        layer = CRFRNN(3, kernels=KERNELS).train(training)
        for kind in (int, np.int64):
            got = layer(self.logits, self.image, iterations=kind(iterations))
            assert_equal("override", got, self.expected(layer, iterations), 0)
        assert (layer.iterations, layer.eval_iterations) == (5, 10)

    def test_numbers_of_numpy_are_kept_as_pythons(self):
        layer = CRFRNN(3, iterations=np.int64(2), eval_iterations=np.int32(3))  # type: ignore[arg-type]
        assert (type(layer.iterations), type(layer.eval_iterations)) == (int, int)
        assert layer.extra_repr().endswith("T=2/3")

    def test_none_returns_the_logits(self):
        assert torch.equal(CRFRNN(3, kernels=KERNELS)(self.logits, self.image, iterations=0), self.logits)


class TestShapes:
    @pytest.mark.parametrize("shape", [(30,), (9, 11), (4, 5, 6), (1,), (1, 1), (1, 20), (20, 1)], ids=str)
    def test_grids(self, shape):
        logits, image = inputs(shape, batch=2)
        layer = learned(CRFRNN(3, kernels=KERNELS))
        got = layer(logits, image)
        filters = [kernel.prepare(image, implementation="reference") for kernel in KERNELS]
        expected = recurrence(logits, filters, layer.kernel_weights, layer.compatibility, 5)
        assert_equal("logits", got, expected, 1e-5)

    @pytest.mark.parametrize("labels", [2, 3, 21, 150])
    @pytest.mark.parametrize("kind", KINDS)
    def test_batch_of_three_is_three_images(self, labels, kind):
        logits, image = inputs(labels=labels, batch=3)
        layer = learned(CRFRNN(labels, kernels=KERNELS, kernel_weights=kind))
        single = [layer(logits[k : k + 1], image[k : k + 1]) for k in range(3)]
        assert_equal("logits", layer(logits, image), torch.cat(single), 1e-6)

    @pytest.mark.parametrize("channels", [1, 2, 4])
    def test_guide_channels(self, channels):
        logits, _ = inputs()
        guide = random_values(1, channels, 9, 11, seed=8)
        got = CRFRNN(3, kernels=(Bilateral(5, 1.0), Features(1.0)))(logits, guide)
        assert got.shape == logits.shape
        assert torch.isfinite(got).all()

    @pytest.mark.parametrize("kernels", [(Bilateral(6, 40),), KERNELS, (*KERNELS, Features(70))], ids=["1", "2", "3"])
    def test_kernels(self, kernels):
        logits, image = inputs()
        layer = learned(CRFRNN(3, kernels=kernels))
        filters = [kernel.prepare(image, implementation="reference") for kernel in kernels]
        expected = recurrence(logits, filters, layer.kernel_weights, layer.compatibility, 5)
        assert_equal("logits", layer(logits, image), expected, 1e-5)

    def test_point_set(self):
        logits, points = random_values(2, 3, 40), random_values(2, 6, 40)
        got = CRFRNN(3, kernels=[Features(1.0)])(logits, points)
        assert got.shape == logits.shape

    def test_empty_batch(self):
        layer = CRFRNN(3, kernels=KERNELS)
        logits = torch.zeros(0, 3, 4, 5, requires_grad=True)
        got = layer(logits, torch.zeros(0, 3, 4, 5))
        assert got.shape == (0, 3, 4, 5)
        got.sum().backward()
        assert layer.kernel_weights.grad is not None
        assert not layer.kernel_weights.grad.any()

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_normalization(self, normalization):
        logits, image = inputs()
        layer = CRFRNN(3, kernels=KERNELS, normalization=normalization)
        filters = [kernel.prepare(image, normalization=normalization) for kernel in KERNELS]
        expected = mean_field(logits, filters, layer.kernel_weights, layer.compatibility, 5)
        assert_equal("logits", layer(logits, image), expected, 0)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float64, torch.float16])
    def test_images(self, dtype):
        logits, image = inputs()
        image = image.round().clamp(0, 255)
        layer = CRFRNN(3, kernels=KERNELS)
        assert_equal("logits", layer(logits, image.to(dtype)), layer(logits, image), 1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_logits(self, dtype):
        logits, image = inputs()
        layer = CRFRNN(3, kernels=KERNELS)
        got, expected = layer(logits.to(dtype), image), layer(logits.to(dtype).float(), image)
        assert_equal("logits", got, expected.to(dtype), 0)

    def test_half_layer(self):
        logits, image = inputs()
        layer = CRFRNN(3, kernels=KERNELS).to(torch.bfloat16)  # 5, 3, 0 and 1 are exact in bfloat16
        got, expected = layer(logits, image), CRFRNN(3, kernels=KERNELS)(logits, image)
        assert_equal("logits", got, expected, 0)

    def test_double(self):
        """float64 all the way: as exact as the kernels are."""
        logits, image = inputs((4, 5))
        got = CRFRNN(3, kernels=KERNELS).double()(logits.double(), image)
        filters = [kernel.prepare(image.double(), implementation="reference") for kernel in KERNELS]
        weights = torch.tensor([[5.0], [3.0]], dtype=torch.float64)
        expected = recurrence(logits.double(), filters, weights, potts(3, torch.float64), 5)
        assert_equal("logits", got, expected, 1e-12)


class TestGradients:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("kernels", [KERNELS, EXACT], ids=["lattice", "exact"])
    def test_gradcheck(self, kind, kernels):
        logits, image = inputs((2, 3), labels=2)
        layer = learned(CRFRNN(2, kernels=kernels, kernel_weights=kind, iterations=2).double())
        names = [name for name, _ in layer.named_parameters()]

        def run(u: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            values = dict(zip(names, parameters, strict=True))
            return torch.func.functional_call(layer, values, (u, image))

        parameters = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
        assert torch.autograd.gradcheck(run, (logits.double().requires_grad_(), *parameters))

    @pytest.mark.parametrize("labels", [2, 3, 21, 150])
    @pytest.mark.parametrize("kind", KINDS)
    def test_plain_autograd_through_the_reference(self, labels, kind):
        self.check(CRFRNN(labels, kernels=KERNELS, kernel_weights=kind), {"implementation": "reference"})

    @pytest.mark.parametrize("kind", KINDS)
    def test_plain_autograd_through_exact_kernels(self, kind):
        self.check(CRFRNN(3, kernels=EXACT, kernel_weights=kind), {})

    def check(self, layer: CRFRNN, implementation: dict[str, str]) -> None:
        logits, image = inputs((5, 6), labels=layer.num_classes, batch=2)
        u = logits.clone().requires_grad_()
        wanted = (u, *learned(layer).parameters())
        direction = random_values(*logits.shape, seed=11)
        gradients = torch.autograd.grad((layer(u, image) * direction).sum(), wanted)
        filters = [kernel.prepare(image, **implementation) for kernel in layer.kernels]
        y = recurrence(u, filters, layer.kernel_weights, layer.compatibility, 5)
        expected = torch.autograd.grad((y * direction).sum(), wanted)
        for quantity, got, reference in zip(("logits", "weights", "compatibility"), gradients, expected, strict=True):
            assert_equal(f"gradient of the {quantity}", got, reference, 1e-4)

    def test_the_image_gets_one_where_it_needs_it(self):
        logits, image = inputs()
        layer = CRFRNN(3, kernels=KERNELS)
        layer(logits, image).square().sum().backward()
        assert image.grad is None
        layer(logits, image.requires_grad_()).square().sum().backward()
        assert image.grad is not None
        assert image.grad.abs().min() > 0

    def test_a_step_lowers_the_loss(self):
        """A user's loop: coarse predictions of a photo, pixel cross-entropy, ten steps."""
        image, logits = photo("rocket", 36, 48), predictions("rocket", 3, 8, 36, 48)
        target = predictions("rocket", 3, 1, 36, 48).argmax(dim=1)
        layer = CRFRNN(3, kernels=(Bilateral(20, 13), Spatial(3)))
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
        losses = []
        for _ in range(10):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(logits, image), target)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


def test_inputs_stay_as_they_are():
    logits, image = inputs()
    before = logits.clone(), image.clone()
    layer = CRFRNN(3, kernels=KERNELS)
    state = copy.deepcopy(layer.state_dict())
    layer(logits, image)
    assert torch.equal(logits, before[0])
    assert torch.equal(image, before[1])
    assert all(torch.equal(layer.state_dict()[name], state[name]) for name in state)


@pytest.mark.parametrize("kernels", [KERNELS, EXACT], ids=["lattice", "exact"])
def test_inference_mode(kernels):
    logits, image = inputs()
    layer = CRFRNN(3, kernels=kernels)
    with torch.inference_mode():
        got = layer(logits, image)
    assert_equal("logits", got, layer(logits, image), 0)


def test_not_contiguous():
    logits, image = inputs((11, 9), batch=2)
    layer = CRFRNN(3, kernels=KERNELS)
    got = layer(logits.transpose(2, 3), image.transpose(2, 3))
    expected = layer(logits.transpose(2, 3).contiguous(), image.transpose(2, 3).contiguous())
    assert_equal("logits", got, expected, 0)
    channels_last = layer(*(t.contiguous(memory_format=torch.channels_last) for t in (logits, image)))
    assert_equal("logits, channels last", channels_last, layer(logits, image), 0)


class TestErrors:
    @pytest.mark.parametrize("labels", [1, 0, -3])
    def test_num_classes(self, labels):
        with pytest.raises(ValueError, match=r"^num_classes: "):
            CRFRNN(labels)

    def test_kernels(self):
        with pytest.raises(ValueError, match=r"^kernels: "):
            CRFRNN(3, kernels=())

    def test_kernel_weights(self):
        with pytest.raises(ValueError, match=r"^kernel_weights: 'pixel' is none of class, scalar, full"):
            CRFRNN(3, kernel_weights="pixel")

    def test_normalization(self):
        with pytest.raises(ValueError, match=r"^normalization: 'both' is none of"):
            CRFRNN(3, normalization="both")(*inputs())

    def test_normalization_at_once(self):
        with pytest.raises(ValueError, match=r"^normalization: "):
            CRFRNN(3, normalization="both")

    def test_iterations_at_once(self):
        with pytest.raises(ValueError, match=r"^iterations: "):
            CRFRNN(3, iterations=-1)

    def test_eval_iterations_at_once(self):
        with pytest.raises(ValueError, match=r"^eval_iterations: "):
            CRFRNN(3, eval_iterations=-1)

    @pytest.mark.parametrize("shape", [(1, 4, 9, 11), (1, 1, 9, 11), (3, 9), (3,)], ids=str)
    def test_logits(self, shape):
        with pytest.raises(ValueError, match=r"^logits: expected \(batch, 3, \*sizes\)"):
            CRFRNN(3)(torch.zeros(*shape), torch.zeros(1, 3, 9, 11))

    @pytest.mark.parametrize("shape", [(2, 3, 9, 11), (1, 3, 11, 9), (1, 3, 9), (3, 9, 11), (1, 3, 9, 11, 1)], ids=str)
    def test_image(self, shape):
        with pytest.raises(ValueError, match=r"^image: expected"):
            CRFRNN(3)(torch.zeros(1, 3, 9, 11), torch.zeros(*shape))

    def test_image_on_another_device(self):
        with pytest.raises(ValueError, match=r"^image: on meta, but the logits are on cpu"):
            CRFRNN(3)(torch.zeros(1, 3, 9, 11), torch.zeros(1, 3, 9, 11, device="meta"))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_image_not_finite(self, bad):
        image = torch.zeros(1, 3, 9, 11)
        image[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"^(image|guide|features): .*NaN or infinity"):
            CRFRNN(3)(torch.zeros(1, 3, 9, 11), image)

    @pytest.mark.parametrize("iterations", [-1, 1.5, True])
    def test_iterations(self, iterations):
        with pytest.raises(ValueError, match=r"^iterations: "):
            CRFRNN(3)(*inputs(), iterations=iterations)


class TestScaled:
    def test_it_is_the_layer_with_larger_bandwidths_and_the_same_parameters(self):
        layer = learned(CRFRNN(3, kernels=KERNELS, iterations=2))
        larger = layer.scaled(1.5)
        expected = CRFRNN(3, kernels=(Bilateral(9, 40), Spatial(3)), iterations=2)
        expected.load_state_dict(layer.state_dict())
        logits, image = inputs()
        assert torch.equal(larger(logits, image), expected(logits, image))
        larger(logits, image)[:, 0].sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
        assert layer.kernels == KERNELS

    def test_modes_are_its_own(self):
        layer = CRFRNN(3, kernels=KERNELS)
        layer.scaled(2).eval()
        assert layer.training

    def test_refusals(self):
        class Mine:
            weight = 1.0
            prepare = Spatial(3).prepare

        with pytest.raises(ValueError, match=r"^factor: must be positive, got 0"):
            CRFRNN(3).scaled(0)
        with pytest.raises(ValueError, match=r"^kernels: Mine needs a method scaled\(factor\)"):
            CRFRNN(3, kernels=[Mine()]).scaled(2)  # type: ignore[list-item]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu():
    layer = CRFRNN(3)
    logits, image = random_values(2, 3, 20, 30), 60 * random_values(2, 3, 20, 30, seed=3)
    expected = layer(logits, image)
    assert_equal("layer", layer.cuda()(logits.cuda(), image.cuda()).cpu(), expected, 1e-5)


def test_notebooks_show_the_kernels_as_they_are():
    layer = CRFRNN(30, kernels=(Bilateral((80, 40), 13, weight=2), Spatial(3, weight=1)), learn_bandwidths=True)
    with torch.no_grad():
        layer.kernel_weights[0, 7] = 5
        dict(layer.named_parameters())["log_bandwidths.1.theta_gamma"].add_(math.log(2))
    shown = re.findall(r"<tr>(.*?)</tr>", layer._repr_html_())
    assert [re.findall(r"<td>(.*?)</td>", row) for row in shown[1:]] == [
        ["Bilateral", "theta_alpha 80, 40; theta_beta 13", "2 to 5"],
        ["Spatial", "theta_gamma 6", "1"],
    ]
