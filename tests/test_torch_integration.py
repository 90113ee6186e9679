"""The package inside torch: custom ops, compile, export, autocast, saving and copying."""

import copy
import io
import pickle

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from crfrnn import CRFRNN, Bilateral, Features, Spatial, gaussian_filter
from crfrnn.losses import DenseCRFLoss
from tests.support.compare import assert_approximates, assert_equal
from tests.support.problems import photo, predictions, random_features, random_values

pytestmark = pytest.mark.slow
KERNELS = (Bilateral(6, 40), Spatial(2))
NAMESPACE = "crfrnn"
Call = tuple[torch._ops.OpOverload, tuple]


def inputs(shape: tuple[int, ...] = (9, 11), labels: int = 3, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return random_values(batch, labels, *shape), 128 + 60 * random_values(batch, 3, *shape, seed=3)


class Forward(TorchFunctionMode):
    """Records the calls of our ops as the package makes them, with the inputs that need a gradient."""

    def __init__(self, calls: list[Call]):
        self.calls = calls

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if isinstance(func, torch._ops.OpOverload) and func.namespace == NAMESPACE:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


class Backward(TorchDispatchMode):
    """Records the calls of our ops that the autograd engine makes."""

    def __init__(self, calls: list[Call]):
        self.calls = calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == NAMESPACE:
            self.calls.append((func, tuple(detached(arg, keep=False) for arg in args)))
        return func(*args, **(kwargs or {}))


class Traced(torch.Tensor):
    """A tensor of another type, as tracers have them: where nothing is traced the package skips its ops."""


def recorded_calls() -> dict[str, list[Call]]:
    """Calls of every op of ours by name, from the public functions: their arguments are what the package gives."""
    calls: list[Call] = []
    layer = CRFRNN(3, kernels=KERNELS, iterations=2)
    learning = CRFRNN(3, kernels=KERNELS, iterations=1, learn_bandwidths=True)
    for dtype in (torch.float32, torch.float64):
        logits, image = (t.to(dtype) for t in inputs((4, 5), batch=2))
        with Forward(calls):
            loss = layer(logits.requires_grad_(), image).square().sum() + learning(logits, image).square().sum()
            values = logits.detach().clone().requires_grad_()
            loss = loss + gaussian_filter(values, image / 40).sum() + Spatial(2).prepare(image)(values).sum()
            loss = loss + DenseCRFLoss(KERNELS, normalization="after")(logits[..., :4].softmax(dim=1), image[..., :4])
            Bilateral(6, 40).prepare(image.as_subclass(Traced)).without_self()
        with Backward(calls):
            loss.backward()
    by_name: dict[str, list[Call]] = {}
    for func, args in calls:
        by_name.setdefault(func.name(), []).append((func, args))
    return by_name


def all_ops() -> set[str]:
    """Those with a kernel for the CPU; the others are loaded where Triton is, and checked beside their tests."""
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith(f"{NAMESPACE}::")}
    return {name for name in names if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")}


OPS = [
    "halve",
    "mean_field_backward",
    "mean_field_forward",
    "permutohedral_build",
    "permutohedral_feature_gradient",
    "permutohedral_filter",
    "permutohedral_own_weights",
    "separable_bandwidth_gradient",
    "separable_filter",
    "separable_filter_learned",
    "share_out",
]


class TestCustomOps:
    def test_all_are_listed_and_reached(self):
        """An op that is not in the list, or that no public call reaches, would escape opcheck."""
        assert set(recorded_calls()) == {f"{NAMESPACE}::{name}" for name in OPS} == all_ops()

    @pytest.mark.parametrize("op", OPS)
    def test_opcheck(self, op):
        """Schema, autograd registration, fake tensors, AOT with dynamic shapes; each kind of arguments once."""
        seen: set[str] = set()
        for func, args in recorded_calls()[f"{NAMESPACE}::{op}"]:
            flat = [item for arg in args for item in (arg if isinstance(arg, list) else [arg])]
            tensors = [item for item in flat if isinstance(item, torch.Tensor)]
            kinds = str([(tensor.dtype, tensor.requires_grad) for tensor in tensors])
            if kinds in seen:
                continue
            seen.add(kinds)
            torch.library.opcheck(func, tuple(detached(arg, keep=False) for arg in args))
            if any(tensor.requires_grad for tensor in tensors):
                torch.library.opcheck(func, tuple(detached(arg, keep=True) for arg in args))
        assert seen


def detached(argument, keep: bool):
    """The argument as a leaf, requiring a gradient where it did and `keep` says so."""
    if isinstance(argument, torch.Tensor):
        plain = argument.detach().as_subclass(torch.Tensor).clone()
        return plain.requires_grad_(keep and argument.requires_grad)
    if isinstance(argument, list):
        return [detached(item, keep) for item in argument]
    return argument


class Network(torch.nn.Module):
    """A small network with a CRF behind it, as a user has it."""

    def __init__(self, labels: int = 3):
        super().__init__()
        self.unary = torch.nn.Conv2d(3, labels, 3, padding=1)
        self.crf = CRFRNN(labels, kernels=KERNELS, iterations=2, eval_iterations=3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.crf(self.unary(image / 128 - 1), image)


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network()


class TestCompile:
    @pytest.mark.parametrize("mode", ["training", "evaluation"])
    def test_inductor(self, mode):
        """The default backend, forward and backward in one graph each."""
        module = network().train(mode == "training")
        self.check(module, torch.compile(module, fullgraph=True), inputs(batch=2)[1])

    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.parametrize("kind", ["scalar", "class", "full", "learned bandwidths"])
    def test_whole_graph(self, kind, dynamic):
        """Every kind of parameters, also with sizes that are symbols; without the C++ compiler, to be quick."""
        torch._dynamo.reset()
        module = network()
        learned = kind == "learned bandwidths"
        weights = "class" if learned else kind
        kernels = (*KERNELS, Features(70))
        module.crf = CRFRNN(3, kernels=kernels, kernel_weights=weights, iterations=2, learn_bandwidths=learned)
        compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for shape in ((9, 11), (12, 7)):
            self.check(module, compiled, inputs(shape, batch=2)[1])

    def test_filter(self):
        torch._dynamo.reset()
        compiled = torch.compile(gaussian_filter, fullgraph=True, backend="aot_eager")
        values, features = random_values(1, 2, 6, 7), random_features(1, 3, (6, 7))
        got, expected = (f(values, features) for f in (compiled, gaussian_filter))
        assert_equal("filtered values", got, expected, 1e-6)

    def check(self, module: torch.nn.Module, compiled, image: torch.Tensor) -> None:
        parameters = tuple(module.parameters())
        got, expected = compiled(image), module(image)
        assert_equal("logits", got, expected, 1e-5)
        gradients = (torch.autograd.grad(y.square().mean(), parameters) for y in (got, expected))
        for gradient, reference in zip(*gradients, strict=True):
            assert_equal("gradient", gradient, reference, 1e-4)


class TestExport:
    @pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
    def test_dynamic_height_and_width(self, grad):
        module = network().eval()
        sizes = {2: torch.export.Dim("height", min=2, max=4096), 3: torch.export.Dim("width", min=2, max=4096)}
        with torch.set_grad_enabled(grad):
            exported = torch.export.export(module, (inputs((9, 12))[1],), dynamic_shapes=(sizes,))
            for shape in ((9, 12), (12, 9), (40, 30), (2, 3), (65, 64)):
                image = inputs(shape)[1]
                assert_equal(f"logits of {shape}", exported.module()(image), module(image), 1e-5)

    def test_saved_and_loaded(self):
        """The layer alone, batch 2, as a file."""
        layer, (logits, image) = CRFRNN(3, kernels=KERNELS).eval(), inputs(batch=2)
        sizes = {2: torch.export.Dim("height", min=2, max=4096), 3: torch.export.Dim("width", min=2, max=4096)}
        with torch.no_grad():
            exported = torch.export.export(layer, (logits, image), dynamic_shapes=(sizes, sizes))
            file = io.BytesIO()
            torch.export.save(exported, file)
            file.seek(0)
            loaded = torch.export.load(file).module()
            logits, image = inputs((13, 8), batch=2)
            assert_equal("logits", loaded(logits, image), layer(logits, image), 1e-5)


class TestAutocast:
    def test_layer(self):
        """bfloat16 logits from the network, float32 inside the CRF, as near float32's as the logits themselves are."""
        module, image = network(), photo("coffee", 36, 48)
        expected = module(image)
        with torch.autocast("cpu", torch.bfloat16):
            assert module.unary(image).dtype == torch.bfloat16
            got = module(image)
        assert torch.isfinite(got).all()
        assert_approximates("marginals", got.float().softmax(dim=1), expected.softmax(dim=1), per_cent=2)

    def test_inside_equals_outside(self):
        logits, image = predictions("coffee", 4, height=36, width=48), photo("coffee", 36, 48)
        layer = CRFRNN(4)
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(logits, image)
        assert_equal("logits", got, layer(logits, image), 0)

    def test_training_step(self):
        module, image = network(), inputs(batch=2)[1]

        def step(enabled: bool) -> list[torch.Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = torch.nn.functional.cross_entropy(module(image), torch.ones(2, 9, 11, dtype=torch.int64))
            return list(torch.autograd.grad(loss, tuple(module.parameters())))

        for got, expected in zip(step(True), step(False), strict=True):
            assert_approximates("gradient", got, expected, per_cent=5)

    @pytest.mark.parametrize("method", ["permutohedral", "exact"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_filter(self, dtype, method):
        """The public filter promises float32 arithmetic, under autocast as well."""
        values, features = random_values(1, 2, 8, 9).to(dtype), random_features(1, 3, (8, 9))
        expected = gaussian_filter(values, features, method=method)
        with torch.autocast("cpu", torch.bfloat16):
            got = gaussian_filter(values, features, method=method)
        assert_equal("filtered values", got, expected, 0)


class TestSavingAndCopying:
    logits, image = inputs()

    def changed(self) -> CRFRNN:
        layer = CRFRNN(3, kernels=KERNELS, kernel_weights="full", iterations=3, eval_iterations=4)
        with torch.no_grad():
            for seed, parameter in enumerate(layer.parameters()):
                parameter.add_(random_values(*parameter.shape, seed=seed), alpha=0.3)
        return layer

    def test_state_dict(self):
        layer, other = self.changed(), CRFRNN(3, kernels=KERNELS, kernel_weights="full", iterations=3)
        assert set(layer.state_dict()) == {"kernel_weights", "compatibility"}
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert_equal("logits", other(self.logits, self.image), layer(self.logits, self.image), 0)

    @pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
    def test_whole_layer(self, how):
        layer = self.changed()
        layer(self.logits, self.image)  # whatever a call leaves behind must be copied or left out as well
        if how == "deepcopy":
            other = copy.deepcopy(layer)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(layer))
        else:
            file = io.BytesIO()
            torch.save(layer, file)
            file.seek(0)
            other = torch.load(file, weights_only=False)
        assert other.kernels == layer.kernels
        for training in (True, False):
            got, expected = (module.train(training)(self.logits, self.image) for module in (other, layer))
            assert_equal("logits", got, expected, 0)
        with torch.no_grad():
            other.compatibility.zero_()
        assert layer.compatibility.any()

    def test_parameters_move_together(self):
        layer = CRFRNN(3).to(torch.float64)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
        assert {parameter.device.type for parameter in CRFRNN(3).to("meta").parameters()} == {"meta"}
