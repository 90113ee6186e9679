"""What takes functions apart: `torch.func` gives the gradients that autograd gives, and what cannot work says so."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from crfrnn import CRFRNN, Bilateral, Features, Spatial, gaussian_filter, mean_field
from crfrnn.inference.solvers import DampedMeanField
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import potts, random_values

KERNELS = (Bilateral(6, 40), Spatial(2))
LOGITS, IMAGE = random_values(2, 3, 5, 6), 128 + 60 * random_values(2, 3, 5, 6, seed=3)
Function = Callable[[Tensor], Tensor]


def layer(**options: Any) -> CRFRNN:
    return CRFRNN(3, KERNELS, **{"iterations": 2, **options})


def functions() -> dict[str, Function]:
    """Of values or logits (B, 3, 5, 6), B at most 2."""

    def prepared(u: Tensor):
        return [kernel.prepare(IMAGE[: len(u)]) for kernel in KERNELS]

    def inferred(u: Tensor) -> Tensor:
        return mean_field(u, prepared(u), torch.tensor([[3.0], [2.0]]), potts(3), 2)

    return {
        "gaussian_filter": lambda u: gaussian_filter(u, IMAGE[: len(u)] / 40),
        "exact": lambda u: gaussian_filter(u, IMAGE[: len(u)] / 40, method="exact"),
        "prepared": lambda u: prepared(u)[1](prepared(u)[0].transpose(u)),
        "mean_field": inferred,
        "layer": lambda u: layer()(u, IMAGE[: len(u)]),
        "bandwidths": lambda u: layer(learn_bandwidths=True)(u, IMAGE[: len(u)]),
        "solver": lambda u: layer(solver=DampedMeanField(0.5))(u, IMAGE[: len(u)]),
        "without self": lambda u: layer(self_connection=False)(u, IMAGE[: len(u)]),
    }


FUNCTIONS = functions()
OURS = {name: function for name, function in FUNCTIONS.items() if name != "exact"}  # not in plain torch


def by_autograd(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(function(*leaves).square().sum(), leaves)


class TestFunc:
    @each("name", FUNCTIONS)
    def test_grad(self, name):
        function = FUNCTIONS[name]
        (expected,) = by_autograd(function, LOGITS)
        assert_equal("grad", torch.func.grad(lambda u: function(u).square().sum())(LOGITS), expected, 1e-6)
        value, pull, *_ = torch.func.vjp(function, LOGITS)
        assert_equal("value", value, function(LOGITS), 1e-6)
        assert_equal("vjp", pull(2 * value.detach())[0], expected, 1e-6)  # pyright: ignore[reportCallIssue]

    def test_grad_of_parameters(self):
        """As meta-learning does it, all parameters and the guide."""
        crf = CRFRNN(3, (*KERNELS, Features(70.0)), iterations=2, learn_bandwidths=True)
        names = [name for name, _ in crf.named_parameters()]

        def loss(image: Tensor, *parameters: Tensor) -> Tensor:
            return torch.func.functional_call(crf, dict(zip(names, parameters, strict=True)), (LOGITS, image))

        inputs = IMAGE, *(parameter.detach() for parameter in crf.parameters())
        gradient_of: Callable[..., tuple[Tensor, ...]] = torch.func.grad(
            lambda *inputs: loss(*inputs).square().sum(), argnums=tuple(range(len(inputs)))
        )
        got = gradient_of(*inputs)
        for gradient, expected in zip(got, by_autograd(loss, *inputs), strict=True):
            assert_equal("gradient", gradient, expected, 1e-5)

    def test_grad_of_features(self):
        features = IMAGE / 40
        got = torch.func.grad(lambda f: gaussian_filter(LOGITS, f).square().sum())(features)
        assert_equal("gradient", got, by_autograd(lambda f: gaussian_filter(LOGITS, f), features)[0], 1e-6)

    @each("name", FUNCTIONS)
    def test_vmap(self, name):
        """Over several values for the same images; a sample is a batch itself."""
        several = torch.stack([LOGITS, 2 * LOGITS, LOGITS.flip(3)])
        expected = torch.stack([FUNCTIONS[name](values) for values in several])
        assert_equal("vmap", torch.func.vmap(FUNCTIONS[name])(several), expected, 1e-5)

    def test_gradients_of_each_sample(self):
        crf = layer()
        parameters = {name: parameter.detach() for name, parameter in crf.named_parameters()}

        def loss(parameters: dict[str, Tensor], u: Tensor, image: Tensor) -> Tensor:
            return torch.func.functional_call(crf, parameters, (u[None], image[None])).square().sum()

        got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, LOGITS, IMAGE)
        for number in range(2):
            expected = torch.func.grad(loss)(parameters, LOGITS[number], IMAGE[number])
            for name, gradient in expected.items():
                assert_equal(name, got[name][number], gradient, 1e-5)

    def test_backward_through_vmap(self):
        crf = layer()
        together = torch.func.vmap(lambda u, image: crf(u[None], image[None])[0])(LOGITS, IMAGE)
        got = torch.autograd.grad(together.square().sum(), list(crf.parameters()))
        expected = torch.autograd.grad(crf(LOGITS, IMAGE).square().sum(), list(crf.parameters()))
        for gradient, reference in zip(got, expected, strict=True):
            assert_equal("gradient", gradient, reference, 1e-5)

    @each("name", ["gaussian_filter", "mean_field", "layer"])
    def test_jacrev(self, name):
        def sums(u: Tensor) -> Tensor:
            return FUNCTIONS[name](u).square().sum(dim=(1, 2, 3))

        got = torch.func.jacrev(sums)(LOGITS)
        assert_equal("sum over the rows", got.sum(dim=0), by_autograd(FUNCTIONS[name], LOGITS)[0], 1e-5)


class TestForwardMode:
    """In a custom op of torch tangents vanish without a word: a derivative would be 0."""

    @each("name", OURS)
    def test_refused(self, name):
        with pytest.raises(NotImplementedError, match=r"^forward-mode derivatives .* use torch\.func\.grad"):
            torch.func.jvp(OURS[name], (LOGITS,), (LOGITS,))

    @each("name", ["gaussian_filter", "prepared", "mean_field", "layer"])
    def test_dual_numbers_are_refused(self, name):
        with (
            forward_ad.dual_level(),
            pytest.raises(NotImplementedError, match=r"^forward-mode derivatives "),
        ):
            OURS[name](forward_ad.make_dual(LOGITS, LOGITS))

    def test_what_has_no_tangent_is_filtered(self):
        with forward_ad.dual_level():
            got = layer()(LOGITS, IMAGE)
        assert_equal("logits", got, layer()(LOGITS, IMAGE), 1e-6)

    def test_exact(self):
        """Plain torch knows it, and the filter is linear."""
        value, tangent, *_ = torch.func.jvp(FUNCTIONS["exact"], (LOGITS,), (LOGITS,))
        assert_equal("tangent", tangent, value, 1e-6)

    def test_second_derivatives_are_refused(self):
        def gradient(u: Tensor) -> Tensor:
            return torch.func.grad(lambda u: layer()(u, IMAGE).square().sum())(u).square().sum()

        with pytest.raises(NotImplementedError, match=r"^second derivatives: "):
            torch.func.grad(gradient)(LOGITS)


class TestTracers:
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
    @each("grad", [False, True])
    @each("name", FUNCTIONS)
    def test_jit_trace(self, name, grad):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(
                NotImplementedError, match=r"^torch\.jit\.trace: .* torch\.compile and torch\.export\.export"
            ),
        ):
            torch.jit.trace(FUNCTIONS[name], (LOGITS,))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_jit_script(self):
        """The layer, and a network that has one in it; others are none of ours."""
        for module in (layer(), torch.nn.Sequential(torch.nn.ReLU(), layer())):
            with pytest.raises(NotImplementedError, match=r"^torch\.jit\.script: .* torch\.compile and torch\.export"):
                torch.jit.script(module)
        assert torch.jit.script(torch.nn.Sequential(torch.nn.ReLU()))(torch.tensor(-1.0)) == 0

    def test_onnx(self, tmp_path):
        pytest.importorskip("onnxscript")
        with pytest.raises(torch.onnx.OnnxExporterError, match=r"torch\.onnx\.export: ONNX has no such filters"):
            torch.onnx.export(layer().eval(), (LOGITS, IMAGE), tmp_path / "crf.onnx", dynamo=True)

    @pytest.mark.parametrize("strict", [False, True])
    def test_onnx_exporter_at_work(self, strict, monkeypatch):
        """What `torch.onnx.export` does first, without the packages that it needs afterwards."""
        flags = SimpleNamespace(_is_onnx_exporting=True)
        monkeypatch.setitem(sys.modules, "torch.onnx._internal.exporter._flags", flags)
        with pytest.raises(Exception, match=r"torch\.onnx\.export: ONNX has no such filters") as raised:
            torch.export.export(layer().eval(), (LOGITS, IMAGE), strict=strict)
        assert isinstance(raised.value, NotImplementedError)

    @each("name", OURS)
    def test_fake_tensors(self, name):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            got = OURS[name](mode.from_tensor(LOGITS))
        assert got.shape == LOGITS.shape

    def test_the_meta_device(self):
        logits, image = LOGITS.to("meta"), IMAGE.to("meta")
        message = r"^{}: on the meta device, .* torch\.export\.export"
        with pytest.raises(ValueError, match=message.format("logits")):
            layer().to("meta")(logits, image)
        for method in ("exact", "permutohedral"):
            with pytest.raises(ValueError, match=message.format("features")):
                gaussian_filter(logits, image, method=method)
        with pytest.raises(ValueError, match=message.format("guide")):
            Spatial(2).prepare(image)

    def test_a_layer_made_without_memory(self):
        with torch.device("meta"):
            crf = CRFRNN(3, KERNELS, iterations=2, learn_bandwidths=True)
        crf = crf.to_empty(device="cpu")
        crf.load_state_dict(layer(learn_bandwidths=True).state_dict())
        assert_equal("logits", crf(LOGITS, IMAGE), layer(learn_bandwidths=True)(LOGITS, IMAGE), 0)
