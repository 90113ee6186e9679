"""Labels that leave a run after its first iteration, against the run with all of them."""

from math import exp

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import Bilateral, Spatial, refine
from crfrnn.inference.fused import vanishing_cpu
from crfrnn.inference.fused.passing_cpu import MessagePassing
from crfrnn.inference.recurrence import marginals
from crfrnn.pydensecrf import densecrf, utils
from crfrnn.runtime import threads
from tests.support.problems import potts, random_values, voc2012, voc2012_image

small = pytest.mark.unjitted
LABELS, SHAPE, TOLERANCE = 20, (9, 14), 1e-3
SPREAD = {2: 8.0, 7: 8.0, 11: 8.0}  # labels that hold some pixels; the others are a little probable here and there


def logits(shape: tuple[int, ...] = SHAPE, batch: int = 1) -> Tensor:
    """Smooth regions of three labels, and noise of the others that no neighbour shares."""
    noise = 0.5 * random_values(batch, LABELS, *shape)
    rows = torch.arange(shape[0]).view(-1, *(1,) * (len(shape) - 1)).expand(shape)
    for number, (label, height) in enumerate(SPREAD.items()):
        noise[:, label] += height * ((3 * rows // shape[0]) == number)
    return noise


def filters(shape: tuple[int, ...] = SHAPE, batch: int = 1, normalization: str = "after") -> list:
    guide = 60 * random_values(batch, 3, *shape, seed=3)
    kernels = Bilateral(6, 60), Spatial(2)
    return [kernel.prepare(guide, normalization=normalization) for kernel in kernels]


def run(u: Tensor, *arguments, tolerance: float = TOLERANCE, iterations: int = 6) -> Tensor:
    return marginals(u, *arguments, iterations=iterations, tolerance=tolerance)


def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many labels the recurrences that follow are told of, one after the other."""
    found: list[int] = []
    begin = MessagePassing.__init__

    def noted(self, image, kernels, labels, transposed=False):
        found.append(labels)
        begin(self, image, kernels, labels, transposed)

    monkeypatch.setattr(MessagePassing, "__init__", noted)
    return found


@small
@pytest.mark.parametrize("normalization", ["after", "symmetric", "before"])
@pytest.mark.parametrize("weights", [torch.full((2, 1), 3.0), 2 + random_values(2, LABELS, seed=5).abs()])
def test_as_with_all_labels(weights: Tensor, normalization: str, monkeypatch):
    told = widths(monkeypatch)
    arguments = filters(normalization=normalization), weights, potts(LABELS)
    found, expected = run(logits(), *arguments), run(logits(), *arguments, tolerance=0.0)
    assert told[:2] == [LABELS, len(SPREAD) + 1], "the others left"
    assert (found - expected).abs().sum(dim=1).max() <= TOLERANCE
    assert (found[:, [0, 1, 3]] == 0).any(), "where there is nearly nothing of a label, there is nothing"
    torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]))


def test_the_bound(monkeypatch):
    """One more iteration moves all marginals together by at most r (exp(w r) - 1), r being what the rest held."""
    monkeypatch.setattr(vanishing_cpu, "FEWEST_ITERATIONS", 2)
    monkeypatch.setattr(vanishing_cpu, "NOTHING", 0.0)
    u, arguments = 0.8 * logits(), (filters(), torch.full((2, 1), 4.0), potts(LABELS))
    once = run(u, *arguments, tolerance=0.0, iterations=1)
    rest = float(1 - once[:, list(SPREAD)].sum(dim=1).min())
    found, expected = (run(u, *arguments, tolerance=t, iterations=2) for t in (1e-2, 0.0))
    moved = float((found - expected).abs().sum(dim=1).max())
    assert 1e-6 < moved <= rest * (exp(8 * rest) - 1)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(40,), (9, 14), (5, 6, 7)])
def test_shapes(shape: tuple[int, ...], batch: int):
    arguments = filters(shape, batch), torch.full((2, 1), 3.0), potts(LABELS)
    found, expected = (run(logits(shape, batch), *arguments, tolerance=t) for t in (TOLERANCE, 0.0))
    assert (found - expected).abs().max() <= TOLERANCE


def test_probabilities_and_logits():
    arguments = filters(), torch.full((2, 1), 3.0), potts(LABELS)
    p = logits().softmax(dim=1)
    found = marginals(p, *arguments, 6, floor=1e-10, tolerance=TOLERANCE)
    torch.testing.assert_close(found, run(p.log(), *arguments), rtol=1e-4, atol=1e-6)


def test_impossible_labels():
    """Minus infinity among those that stay, and among those that leave."""
    u = logits()
    u[0, 2, :2], u[0, 5, 4:] = -torch.inf, -torch.inf
    arguments = filters(), torch.full((2, 1), 3.0), potts(LABELS)
    found, expected = (run(u, *arguments, tolerance=t) for t in (TOLERANCE, 0.0))
    assert (found - expected).abs().max() <= TOLERANCE
    assert (found[0, 2, :2] < 1e-20).all()


@small
def test_what_is_left_out_forgets_nothing():
    """U of the rest, against the sum that it stands for; where the labels that stay are impossible, too."""
    u = logits()
    u[0, list(SPREAD), 0, 0] = -torch.inf
    u[0, 0, 1, :] = -torch.inf
    kept = np.array([2, 7, 11])
    gone = [label for label in range(LABELS) if label not in kept]
    rows = torch.nn.functional.pad(u.clamp(min=-1e30).flatten(2)[0].T, (0, 4), value=-1e30).contiguous().numpy()
    q = torch.from_numpy(rows).softmax(dim=1).numpy()
    few = np.empty((len(rows), 8), np.float32)
    vanishing_cpu.pixels.leave_out_rows(rows, q, kept, few)
    expected = torch.from_numpy(rows)[:, gone].double().logsumexp(dim=1)
    torch.testing.assert_close(torch.from_numpy(few[:, 3]).double(), expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(few[:, :3], rows[:, kept])
    assert (few[:, 4:] <= -1e29).all()


def test_a_label_that_would_come_back(monkeypatch):
    """Then the run is done again with all labels, and nobody can tell."""
    told = widths(monkeypatch)
    monkeypatch.setattr(vanishing_cpu, "GROWN", 0.0)
    arguments = filters(), torch.full((2, 1), 3.0), potts(LABELS)
    assert torch.equal(run(logits(), *arguments), run(logits(), *arguments, tolerance=0.0))
    assert told[:3] == [LABELS, len(SPREAD) + 1, LABELS]


def test_a_label_that_really_comes_back(monkeypatch):
    """Label 5 at one pixel, outvoted by a band of label 1 that is outvoted itself later, and then there at the end."""
    u = random_values(1, LABELS, 1, 80) - 30
    u[0, 0], u[0, 1, 0, 36:45] = 0, 0.2
    u[0, 0, 0, 40] = -30
    u[0, [1, 5], 0, 40] = torch.tensor([0.0, 1.0])
    arguments = [Spatial(3).prepare(torch.zeros(1, 3, 1, 80))], torch.full((1, 1), 20.0), potts(LABELS)
    share = [float(run(u, *arguments, tolerance=0.0, iterations=t)[0, 5, 0, 40]) for t in (1, 12)]
    assert share[0] < 5e-3
    assert share[1] > 0.9
    told = widths(monkeypatch)
    found = run(u, *arguments, iterations=12)
    assert told == [LABELS, 3, LABELS], "it left"
    assert torch.equal(found, run(u, *arguments, tolerance=0.0, iterations=12))


def test_flat_labels_all_stay():
    """1,203 labels that are hardly told apart: none is much less probable than the best."""
    u = 0.01 * random_values(1, 1203, 4, 5)
    found = run(u, filters((4, 5)), torch.full((2, 1), 0.1), potts(1203))
    assert (found > 0).all()


@pytest.mark.parametrize(
    "arguments",
    [
        (filters(normalization="none"), torch.full((2, 1), 0.01), potts(LABELS)),
        (filters(), torch.full((2, 1), -0.1), potts(LABELS)),
        (filters(), torch.full((2, 1), 3.0), potts(LABELS) + 0.1 * torch.eye(LABELS)),
        (filters(), torch.eye(LABELS).expand(2, -1, -1), potts(LABELS)),
    ],
    ids=["not normalised", "negative", "not Potts", "matrices"],
)
def test_where_the_bound_does_not_hold_all_take_part(arguments):
    assert torch.equal(run(logits(), *arguments), run(logits(), *arguments, tolerance=0.0))


def test_few_iterations_and_few_labels_are_as_they_were():
    arguments = filters(), torch.full((2, 1), 3.0), potts(LABELS)
    for iterations in (0, 1, 2):
        both = [run(logits(), *arguments, tolerance=t, iterations=iterations) for t in (TOLERANCE, 0.0)]
        assert torch.equal(*both)
    u, weights = logits()[:, :8], torch.full((2, 1), 3.0)
    assert torch.equal(*(run(u, filters(), weights, potts(8), tolerance=t) for t in (TOLERANCE, 0.0)))


def test_every_number_of_threads(torch_threads):
    """Bit-equal, with as many strips as there can be."""
    shape = (300, 300)
    arguments = filters(shape), torch.full((2, 1), 3.0), potts(LABELS)
    u, results = logits(shape), []
    for count in (1, 2, 3):
        torch_threads(count)
        assert threads.count() == count
        results.append(run(u, *arguments, iterations=4))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_whoever_is_left_is_sorted_and_at_least_one():
    peaks = np.array([1.0, 1e-3, 0.2, 4e-3, 6e-3], np.float32)
    assert vanishing_cpu._left(peaks, 1e-2).tolist() == [0, 2, 4]
    assert vanishing_cpu._left(peaks, 0.0).tolist() == [0, 1, 2, 3, 4]
    assert vanishing_cpu._left(np.zeros(3, np.float32), 1.0).tolist() == [2]


def test_refine_and_the_drop_in():
    """Both leave labels out, and with a tolerance of 0 neither does."""
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    p = logits().softmax(dim=1)[0].numpy()
    some, every = (refine(image, p, preset="pydensecrf", iterations=5, tolerance=t) for t in (TOLERANCE, 0))
    assert np.abs(some - every).max() <= TOLERANCE
    crf = densecrf.DenseCRF2D(SHAPE[1], SHAPE[0], LABELS)
    crf.setUnaryEnergy(utils.unary_from_softmax(p))
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    some = crf.inference(5)
    crf.tolerance = 0
    every = crf.inference(5)
    assert (some == 0).any()
    assert not (every == 0).any()
    assert np.abs(some - every).max() <= TOLERANCE


@pytest.mark.slow
def test_photographs():
    """Real outputs: the labels of at least 99.99 % of the pixels."""
    for name in sorted(path.stem for path in (voc2012() / "unaries").glob("*.npz"))[:3]:
        photo, scores = voc2012_image(name)
        for kernels in ((Bilateral(80, 13, 10), Spatial(3, 3)), (Bilateral(160, 3, 5), Spatial(3, 3))):
            prepared = [kernel.prepare(photo, normalization="symmetric") for kernel in kernels]
            arguments = prepared, torch.tensor([[k.weight] for k in kernels]), potts(scores.shape[1])
            found, expected = (run(scores, *arguments, tolerance=t, iterations=10) for t in (TOLERANCE, 0.0))
            assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999
            assert (found - expected).abs().mean() <= 1e-4
