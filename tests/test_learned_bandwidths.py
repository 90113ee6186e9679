"""A layer that learns its bandwidths, or the features that its kernel is on."""

import copy
import math
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crfrnn import CRFRNN, Bilateral, Features, SegmentationNetwork, Spatial, build_unary
from crfrnn.commands.train.options import CRFConfig, StageConfig
from crfrnn.commands.train.recipe import build_crf
from crfrnn.commands.train.recipe import parameter_groups as groups_of_stage
from crfrnn.inference.solvers import DampedMeanField
from crfrnn.layer import RATE_MULTIPLIERS
from crfrnn.networks.saved import crf_config, crf_of_config, fill
from tests.support.compare import assert_equal
from tests.support.problems import NORMALIZATIONS, generator, random_values

pytestmark = pytest.mark.slow
KERNELS = (Bilateral(6, (40, 30, 20)), Spatial((2, 1.5)))
NAMES = ["log_bandwidths.0.theta_alpha", "log_bandwidths.0.theta_beta", "log_bandwidths.1.theta_gamma"]


def inputs(shape: tuple[int, ...] = (9, 11), labels: int = 3) -> tuple[Tensor, Tensor]:
    return random_values(1, labels, *shape), 128 + 60 * random_values(1, 3, *shape, seed=3)


def layer(**settings) -> CRFRNN:
    return CRFRNN(3, **{"kernels": KERNELS, "iterations": 2, "learn_bandwidths": True, **settings})


def changed(crf: CRFRNN) -> CRFRNN:
    with torch.no_grad():
        for seed, parameter in enumerate(crf.parameters()):
            noise = random_values(*parameter.shape, 1, dtype=parameter.dtype, seed=seed).squeeze(-1)
            parameter.add_(noise, alpha=0.3)
    return crf


class TestParameters:
    def test_names_shapes_and_values(self):
        state = layer().state_dict()
        assert list(state) == ["kernel_weights", "compatibility", *NAMES]
        expected = [math.log(6), [math.log(t) for t in (40, 30, 20)], [math.log(2), math.log(1.5)]]
        for name, logarithms in zip(NAMES, expected, strict=True):
            assert_equal(name, state[name], torch.tensor(logarithms), 1e-6)

    def test_none_without(self):
        assert list(layer(learn_bandwidths=False).state_dict()) == ["kernel_weights", "compatibility"]

    def test_kernels_are_what_they_are_now(self):
        crf = layer()
        with torch.no_grad():
            for name in NAMES:
                crf.get_parameter(name).fill_(0.0)
        assert crf.kernels == (Bilateral(1.0, (1.0, 1.0, 1.0)), Spatial((1.0, 1.0)))
        assert "theta_gamma=(1.0, 1.0)" in repr(crf)

    def test_starts_as_the_fixed_layer(self):
        assert_equal("logits", layer()(*inputs()), layer(learn_bandwidths=False)(*inputs()), 1e-4)

    def test_numbers_and_tensors_are_one_layer(self):
        """Without gradients the fast path has the bandwidths as numbers."""
        crf = changed(layer())
        with torch.no_grad():
            plain = crf(*inputs())
        assert_equal("logits", crf(*inputs()), plain, 1e-4)

    def test_frozen_bandwidths_get_nothing(self):
        crf = changed(layer())
        assert crf.log_bandwidths is not None
        crf.log_bandwidths.requires_grad_(False)
        crf(*inputs()).square().sum().backward()
        assert crf.kernel_weights.grad is not None
        assert all(parameter.grad is None for parameter in crf.log_bandwidths.parameters())

    def test_any_value_is_a_bandwidth(self):
        crf = layer()
        with torch.no_grad():
            for name in NAMES:
                crf.get_parameter(name).sub_(5.0)
        assert torch.isfinite(crf(*inputs())).all()

    def test_scaled(self):
        crf = changed(layer())
        larger = crf.scaled(2).scaled(1.5)
        for kernel, grown in zip(crf.kernels, larger.kernels, strict=True):
            assert grown == kernel.scaled(3.0)
        larger(*inputs()).square().sum().backward()
        assert all(parameter.grad is not None for parameter in crf.parameters())


class TestGradients:
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_gradcheck_of_the_exact_layer(self, normalization):
        """Through T iterations: logits, guide, and all parameters."""
        kernels = (Bilateral(2, (40, 30, 20), method="exact"), Spatial((2, 1.5), method="exact"))
        crf = changed(layer(kernels=kernels, normalization=normalization).double())
        names = [name for name, _ in crf.named_parameters()]

        def run(u: Tensor, guide: Tensor, *parameters: Tensor) -> Tensor:
            return torch.func.functional_call(crf, dict(zip(names, parameters, strict=True)), (u, guide))

        wanted = [tensor.double().requires_grad_() for tensor in inputs((2, 2))]
        assert torch.autograd.gradcheck(run, (*wanted, *crf.parameters()))

    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_fast_equals_reference(self, normalization, monkeypatch):
        """The implementations that are chosen, and the references, to everything there is."""
        crf, (logits, image) = changed(layer(normalization=normalization).double()), inputs()
        gradients = []
        for reference in (False, True):
            if reference:
                for kind in (Bilateral, Spatial):
                    of_kind = kind.prepare
                    monkeypatch.setattr(
                        kind, "prepare", lambda k, g, f=of_kind, **how: f(k, g, implementation="reference", **how)
                    )
            leaves = [logits.double().requires_grad_(), image.double().requires_grad_()]
            loss = (crf(*leaves) * random_values(1, 3, 9, 11, seed=8)).sum()
            gradients.append(torch.autograd.grad(loss, [*leaves, *crf.parameters()]))
        for got, expected in zip(*gradients, strict=True):
            assert_equal("gradient", got, expected, 1e-7)

    def test_empty_batch(self):
        crf = layer()
        crf(torch.zeros(0, 3, 4, 5), torch.zeros(0, 3, 4, 5)).sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in crf.parameters())


class TestSaving:
    @pytest.mark.parametrize("how", ["deepcopy", "pickle", "config"])
    def test_copies(self, how):
        crf = changed(layer())
        if how == "deepcopy":
            other = copy.deepcopy(crf)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(crf))
        else:
            other = crf_of_config(crf_config(crf))
            fill(other, crf.state_dict(), "test")
        assert other.kernels == crf.kernels
        assert_equal("logits", other(*inputs()), crf(*inputs()), 0)

    def test_pretrained(self, tmp_path):
        network = SegmentationNetwork(build_unary("fast-scnn", num_classes=3), changed(layer()))
        network.save_pretrained(tmp_path)
        loaded = SegmentationNetwork.from_pretrained(tmp_path)
        assert network.crf is not None
        assert loaded.crf is not None
        assert loaded.crf.kernels == network.crf.kernels
        assert loaded.crf.get_parameter(NAMES[0]).requires_grad

    def test_a_scaled_layer_is_not_saved(self):
        with pytest.raises(ValueError, match=r"^crf: made by scaled"):
            crf_config(layer().scaled(2))


class TestParameterGroups:
    def test_of_a_layer(self):
        crf = layer(solver=DampedMeanField(0.5, learn_step=True))
        groups = crf.parameter_groups(0.01, compatibility=0.5)
        rates = {group["name"]: group["lr"] for group in groups}
        expected = RATE_MULTIPLIERS | {"compatibility": 0.5}
        assert rates == {name: pytest.approx(0.01 * multiplier) for name, multiplier in expected.items()}
        assert [len(group["params"]) for group in groups] == [1, 1, 3, 1]
        torch.optim.AdamW(groups, weight_decay=0.1)

    def test_without_what_does_not_learn(self):
        crf = layer(learn_bandwidths=False)
        crf.compatibility.requires_grad_(False)
        assert [group["name"] for group in crf.parameter_groups(0.1)] == ["kernel_weights"]

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"^bandwidth: is none of kernel_weights, compatibility, log_bandwidths"):
            layer().parameter_groups(0.1, bandwidth=3.0)

    def test_of_a_recipe(self):
        """`crfrnn train` has the same, and learning_rates wins."""
        network = nn.Module()
        network.unary, network.crf = nn.Conv2d(3, 3, 1), build_crf(CRFConfig(learn_bandwidths=True), 3)
        stage = StageConfig("s", 1, learning_rate=0.1, learning_rates={"crf.comp": 7.0}, crf_multipliers=True)
        rates = {id(p): group["lr"] for group in groups_of_stage(network, stage) for p in group["params"]}
        named = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
        assert named["unary.weight"] == 0.1
        assert named["crf.compatibility"] == 7.0
        assert named["crf.log_bandwidths.1.theta_gamma"] == pytest.approx(0.1 * RATE_MULTIPLIERS["log_bandwidths"])


class TestErrors:
    @pytest.mark.parametrize("bad", [0.0, -2.0, float("nan"), (3.0, float("inf"))], ids=str)
    def test_bandwidths(self, bad):
        with pytest.raises(ValueError, match=r"^theta_gamma: a bandwidth must be positive and finite, got"):
            CRFRNN(3, kernels=[Spatial(bad)], learn_bandwidths=True)

    def test_bandwidths_that_diverged(self):
        crf = layer()
        with torch.no_grad():
            crf.get_parameter(NAMES[0]).fill_(float("nan"))
        with pytest.raises(ValueError, match=r"^theta_alpha: a bandwidth must be positive and finite, got nan"):
            crf(*inputs())

    def test_a_guide_with_other_channels(self):
        logits, image = inputs()
        with pytest.raises(
            ValueError, match=r"^theta_beta: shape \(3,\), expected one number or \(2,\) for 2 channels"
        ):
            layer()(logits, image[:, :2])

    def test_kernels_of_ones_own(self):
        class Mine:
            weight = 1.0
            prepare = Spatial(3).prepare

        with pytest.raises(ValueError, match=r"^kernels: Mine has no bandwidths that could be learned"):
            CRFRNN(3, kernels=[Mine()], learn_bandwidths=True)  # type: ignore[list-item]

    def test_kernels_of_ones_own_that_can(self):
        @dataclass(frozen=True)
        class Mine:
            theta: float
            weight: float = 1.0
            bandwidths: ClassVar[tuple[str, ...]] = ("theta",)

            def prepare(self, guide: Tensor, **how):
                return Features(self.theta).prepare(guide, **how)

        crf = CRFRNN(3, kernels=[Mine(50.0)], learn_bandwidths=True)  # type: ignore[list-item]
        crf(*inputs()).square().sum().backward()
        assert crf.get_parameter("log_bandwidths.0.theta").grad


def striped(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Guides of four channels in one of which, hidden under the noise of the others, two regions differ.

    Returns guides (B, 4, 20, 24), noisy logits (B, 2, 20, 24) and labels (B, 20, 24).
    """
    noise = torch.rand(count, 4, 20, 24, generator=generator(1)) * 2 - 1
    labels = torch.zeros(count, 20, 24, dtype=torch.int64)
    labels[:, 5:15, 6:18] = 1
    hidden = labels.float() * 1.5
    guides = 3 * noise
    guides[:, 0] = hidden + guides[:, 1] + 0.1 * noise[:, 0]
    wrong = torch.rand(labels.shape, generator=generator(2)) < 0.35
    seen = torch.where(wrong, 1 - labels, labels)
    return guides, nn.functional.one_hot(seen, 2).movedim(-1, 1).float(), labels


def trained(crf: CRFRNN, features: nn.Module, updates: int = 40) -> float:
    """Share of the pixels of another set of images that are right, after training."""
    guides, logits, labels = striped(4)
    parameters = [*crf.parameters(), *features.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(updates):
        optimiser.zero_grad()
        cross_entropy(crf(logits[:2], features(guides[:2])), labels[:2]).backward()
        optimiser.step()
    with torch.no_grad():
        return float((crf(logits[2:], features(guides[2:])).argmax(1) == labels[2:]).float().mean())


def test_learned_features_beat_fixed_ones():
    """A kernel on a convolution's output, trained end to end: it finds the direction that tells the regions apart."""
    torch.manual_seed(0)
    kernels = [Features(1.0, weight=2.0)]
    fixed = trained(CRFRNN(2, kernels, iterations=3, kernel_weights="scalar"), nn.Identity())
    learned = trained(CRFRNN(2, kernels, iterations=3, kernel_weights="scalar"), nn.Conv2d(4, 2, 1))
    assert learned > 0.95
    assert fixed < 0.85


def test_learned_bandwidths_beat_fixed_ones():
    """The widths that are given are wrong for this guide; the right ones are learned."""
    torch.manual_seed(0)
    guides, logits, labels = striped(2)
    guide = guides[:, :1] - guides[:, 1:2]
    losses = {}
    for learn in (False, True):
        crf = CRFRNN(2, [Bilateral(2.0, 20.0)], iterations=3, kernel_weights="scalar", learn_bandwidths=learn)
        optimiser = torch.optim.Adam(crf.parameter_groups(0.01))
        for _ in range(30):
            optimiser.zero_grad()
            loss = cross_entropy(crf(logits, guide), labels)
            loss.backward()
            optimiser.step()
        losses[learn] = loss.item()
    assert losses[True] < 0.7 * losses[False]
