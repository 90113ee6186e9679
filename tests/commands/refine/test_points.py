"""CRFs on points: against the definition, wherever the points lie, and on a street."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.street import LABELS, ORIGIN, street
from crfrnn import Bilateral, Features, Spatial, point_kernels, refine, refine_points
from crfrnn.filtering.points import on_points
from tests.support.compare import assert_equal
from tests.support.each import each

KERNELS = [Bilateral(0.6, 4000, weight=4, method="exact"), Spatial(0.4, weight=2, method="exact")]


def cloud(points: int = 40, labels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, intensities and probabilities at random, dense enough that points have neighbours."""
    rng = np.random.default_rng(seed)
    odds = np.exp(rng.normal(0, 1, (points, labels)))
    return rng.uniform(0, 2, (points, 3)), rng.uniform(0, 65535, points), odds / odds.sum(axis=1, keepdims=True)


def by_loops(positions: np.ndarray, intensity: np.ndarray, probabilities: np.ndarray, iterations: int) -> np.ndarray:
    """Equations (4.2) to (4.6) for `KERNELS`, point by point in float64."""
    q = probabilities.copy()
    for _ in range(iterations):
        following = np.empty_like(q)
        for i, place in enumerate(positions):
            near = ((positions - place) ** 2).sum(axis=1)
            alike = (intensity - intensity[i]) ** 2
            energy = np.zeros(q.shape[1])
            for weight, k in (
                (4, np.exp(-near / 2 / 0.6**2 - alike / 2 / 4000**2)),
                (2, np.exp(-near / 2 / 0.4**2)),
            ):
                message = (k[:, None] * q).sum(axis=0) / k.sum()
                energy += weight * (message.sum() - message)
            logits = np.log(probabilities[i]) - energy
            following[i] = np.exp(logits - logits.max())
            following[i] /= following[i].sum()
        q = following
    return q


class TestMeanField:
    def test_by_loops(self):
        positions, intensity, probabilities = cloud()
        got = refine_points(positions, probabilities, attributes=intensity, kernels=KERNELS, iterations=4)
        assert_equal("marginals", Tensor(got), Tensor(by_loops(positions, intensity, probabilities, 4)), 1e-5)

    def test_on_a_grid_it_is_refine(self):
        """Pixels are points with whole positions."""
        rng = np.random.default_rng(1)
        image, logits = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8), rng.normal(0, 1, (4, 9, 11))
        kernels = [Bilateral(3, 40, method="exact"), Spatial(2, method="exact")]
        x, y = np.meshgrid(np.arange(11), np.arange(9))
        positions, attributes = np.stack([x, y], axis=-1).reshape(-1, 2), image.reshape(-1, 3)
        got = refine_points(positions, logits=logits.reshape(4, -1).T, attributes=attributes, kernels=kernels)
        expected = refine(image, logits=logits, kernels=kernels).reshape(4, -1).T
        assert_equal("marginals", Tensor(got), Tensor(expected), 1e-5)

    def test_a_bandwidth_for_each_axis(self):
        positions, intensity, probabilities = cloud()
        kernels = [Spatial((0.5, 0.5, 0.1), method="exact")]
        stretched = positions * (1, 1, 5)
        got = refine_points(positions, probabilities, kernels=kernels)
        expected = refine_points(stretched, probabilities, kernels=[Spatial(0.5, method="exact")])
        assert_equal("marginals", Tensor(got), Tensor(expected), 1e-5)
        del intensity

    def test_texts_are_kernels(self):
        positions, intensity, probabilities = cloud()
        texts = refine_points(positions, probabilities, attributes=intensity, kernels=["bilateral:0.6,4000,4"])
        assert np.array_equal(
            texts, refine_points(positions, probabilities, attributes=intensity, kernels=[Bilateral(0.6, 4000, 4)])
        )


class TestWhereThePointsLie:
    """A map's origin is a long way off, and the points are as near to each other as before."""

    @each("offset", [(412_345.0, 5_654_321.0, 112.0), (2.0**24, -(2.0**25), 0.0)])
    def test_an_offset_changes_nothing(self, offset):
        positions, intensity, probabilities = cloud(2000)
        positions = np.round(positions, 3)  # millimetres, as a scanner's file has them
        kernels = [Bilateral(0.1, 4000), Spatial(0.05)]
        near = refine_points(positions, probabilities, attributes=intensity, kernels=kernels)
        far = refine_points(positions + offset, probabilities, attributes=intensity, kernels=kernels)
        assert_equal("marginals", Tensor(far), Tensor(near), 1e-4)
        assert (near.argmax(1) != probabilities.argmax(1)).any()
        single = (positions + offset).astype(np.float32)  # what a reader that is not careful leaves
        assert np.abs(refine_points(single, probabilities, kernels=[Spatial(0.05)]) - near).max() > 0.1

    def test_bandwidths_do_not_depend_on_the_offset(self):
        scene = street(2000)
        assert point_kernels(scene.positions, scene.intensity) == point_kernels(
            scene.positions - ORIGIN, scene.intensity.astype(np.float64) + 1e6
        )

    def test_a_stray_point(self):
        positions, _, probabilities = cloud()
        positions[7] = 1e9
        with pytest.raises(ValueError, match=r"^positions: column 0 .* reaches .* is there a stray point"):
            refine_points(positions, probabilities, kernels=[Spatial(0.4)])


class TestForms:
    """What goes in comes out: shape, dtype, NumPy or torch."""

    @each("dtype", [np.float16, np.float32, np.float64])
    def test_dtypes(self, dtype):
        positions, _, probabilities = cloud()
        got = refine_points(positions, probabilities.astype(dtype), kernels=[Spatial(0.4)])
        assert (got.dtype, got.shape) == (dtype, probabilities.shape)

    def test_layouts(self):
        positions, intensity, probabilities = cloud()
        arguments = {"attributes": intensity, "kernels": KERNELS}
        rows = refine_points(positions, probabilities, **arguments)
        columns = refine_points(positions, probabilities.T, **arguments)
        assert np.array_equal(rows.T, columns)
        tensors = refine_points(
            torch.from_numpy(positions), torch.from_numpy(probabilities), attributes=torch.from_numpy(intensity),
            kernels=KERNELS,
        )  # fmt: skip
        assert isinstance(tensors, Tensor)
        assert np.array_equal(tensors.numpy(), rows)
        logits = refine_points(positions, logits=np.log(probabilities), **arguments)
        assert_equal("from logits", Tensor(logits), Tensor(rows), 1e-5)

    def test_a_foreground_alone(self):
        positions, _, probabilities = cloud(labels=2)
        both = refine_points(positions, probabilities, kernels=[Spatial(0.4)])
        for foreground in (probabilities[:, 1], probabilities[:, 1:], probabilities.T[1:]):
            got = refine_points(positions, foreground, kernels=[Spatial(0.4)])
            assert got.shape == foreground.shape
            assert_equal("foreground", Tensor(got.ravel()), Tensor(both[:, 1]), 1e-5)

    def test_nothing_given_is_changed(self):
        given = cloud()
        before = [array.copy() for array in given]
        refine_points(given[0], given[2], attributes=given[1])
        assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))

    def test_a_trace(self):
        positions, _, probabilities = cloud()
        moments = []
        refine_points(positions, probabilities, kernels=KERNELS[1:], iterations=2, trace=moments.append)
        assert [moment.t for moment in moments] == [0, 1, 2]
        assert moments[0].marginals.shape == probabilities.shape
        assert moments[2].free_energy < moments[0].free_energy


class TestDefaults:
    def test_spacing_and_noise_of_a_surface(self):
        """s of a plane with one point in each square of it, and d = 0.954 sigma of normal noise, within what a sample
        tells."""
        rng = np.random.default_rng(2)
        positions = np.concatenate([rng.uniform(0, 20, (40_000, 2)), np.zeros((40_000, 1))], axis=1)
        (kernel,) = point_kernels(positions, rng.normal(1000, 50, 40_000))
        assert isinstance(kernel, Bilateral)
        assert kernel.theta_alpha == pytest.approx(4 * 0.1, rel=0.1)
        assert kernel.theta_beta[0] == pytest.approx(1.5 * 0.954 * 50, rel=0.2)  # type: ignore[index]

    def test_they_follow_the_units(self):
        scene = street(3000)
        (metres,) = point_kernels(scene.positions, scene.intensity)
        (feet,) = point_kernels(scene.positions / 0.3048, scene.intensity / 256)
        assert feet.theta_alpha == pytest.approx(metres.theta_alpha / 0.3048, rel=0.01)  # type: ignore[union-attr]
        assert feet.theta_beta[0] == pytest.approx(metres.theta_beta[0] / 256, rel=0.01)  # type: ignore[union-attr,index]

    def test_echoes_at_one_place(self):
        scene = street(2000)
        (once,), (twice,) = point_kernels(scene.positions), point_kernels(np.repeat(scene.positions, 2, axis=0))
        ratio = twice.theta_gamma / once.theta_gamma  # type: ignore[operator, union-attr]
        assert ratio == pytest.approx(0.5**0.5, rel=0.1)  # twice as many points on the same surfaces

    def test_attributes_that_do_not_vary(self):
        positions, _, probabilities = cloud()
        (kernel,) = point_kernels(positions, np.full((40, 2), 7))
        assert kernel.theta_beta == (1.0, 1.0)  # type: ignore[union-attr]
        assert np.isfinite(refine_points(positions, probabilities, attributes=np.full(40, 7))).all()

    def test_one_place(self):
        with pytest.raises(ValueError, match=r"^positions: all points are at the same place.*kernels="):
            refine_points(np.ones((5, 3)), np.full((5, 2), 0.5))
        alone = refine_points(np.ones((1, 3)), np.array([[0.2, 0.8]]), kernels=[Spatial(1)])
        assert alone.argmax() == 1


class TestStreet:
    """Noisy predictions for ground, facades, poles and cars, as a scanner sees them, in the coordinates of a map."""

    @each("known", ["intensity", "positions"])
    def test_accuracy_goes_up(self, known):
        scene = street(40_000)
        attributes = scene.intensity if known == "intensity" else None
        refined = refine_points(scene.positions, scene.probabilities, attributes=attributes)
        before, after = scene.probabilities.argmax(1), refined.argmax(1)
        wrong = (before != scene.truth).mean()
        assert (after != scene.truth).mean() < wrong / 2
        for label, name in enumerate(LABELS):  # thin poles too
            assert iou(after, scene.truth, label) > iou(before, scene.truth, label), name

    def test_labels_are_those_of_the_exact_crf(self):
        scene = street(6000)
        (kernel,) = point_kernels(scene.positions, scene.intensity)
        assert isinstance(kernel, Bilateral)
        exact = Bilateral(kernel.theta_alpha, kernel.theta_beta, kernel.weight, method="exact")
        got, expected = (
            refine_points(scene.positions, scene.probabilities, attributes=scene.intensity, kernels=[one])
            for one in (kernel, exact)
        )
        assert (got.argmax(1) != expected.argmax(1)).mean() < 0.02
        assert (expected.argmax(1) != scene.probabilities.argmax(1)).mean() > 0.05


def iou(labels: np.ndarray, truth: np.ndarray, label: int) -> float:
    return ((labels == label) & (truth == label)).sum() / ((labels == label) | (truth == label)).sum()


class TestRefusals:
    @each(
        "what, message",
        [
            ({"positions": np.zeros((0, 3))}, r"^positions: shape \(0, 3\), .* there are no points"),
            ({"positions": np.zeros((3, 40))}, r"^positions: shape \(3, 40\), .*give positions\.T"),
            ({"positions": np.zeros((40, 4))}, r"^positions: shape \(40, 4\), .*further columns go to attributes="),
            ({"positions": np.zeros(40)}, r"^positions: shape \(40,\), expected \(points, 3\)$"),
            ({"positions": np.full((40, 3), np.nan)}, r"^positions: NaN or infinity at 40 of 40 points"),
            ({"attributes": np.zeros(39)}, r"^attributes: shape \(39, 1\), expected \(40,\) or \(40, channels\)"),
            ({"attributes": np.full(40, np.inf)}, r"^attributes: NaN or infinity at 40 of 40"),
            ({"probabilities": np.zeros((39, 3))}, r"^probabilities: shape \(39, 3\), expected \(40, labels\)"),
            ({"probabilities": np.zeros((40, 3))}, r"^probabilities: they sum to 0\.\.0"),
            ({"probabilities": None}, r"^probabilities: give either probabilities or logits"),
            ({"kernels": [Bilateral(1, 2)]}, r"^kernels: a bilateral kernel needs attributes="),
            ({"kernels": [Spatial((1, 2))]}, r"^theta_gamma: 2 bandwidths for 3 axes"),
            ({"kernels": []}, r"^kernels: give at least one"),
            ({"tolerance": 1}, r"^tolerance: "),
        ],
    )
    def test_one_line(self, what, message):
        positions, _, probabilities = cloud()
        with pytest.raises(ValueError, match=message):
            refine_points(**{"positions": positions, "probabilities": probabilities} | what)


class TestOnPoints:
    def test_columns(self):
        assert on_points(Bilateral((1, 2, 3), (4, 5)), 3, 2) == Features((1, 2, 3, 4, 5), channels=(0, 1, 2, 3, 4))
        chosen = Bilateral(1.0, 4.0, channels=(1,), accuracy=2)
        assert on_points(chosen, 3, 2) == Features((1, 1, 1, 4), accuracy=2, channels=(0, 1, 2, 4))
        assert on_points(Spatial(2.0, weight=1), 2, 5) == Features((2, 2), weight=1, channels=(0, 1))
        with pytest.raises(ValueError, match=r"^channels: 2 is none of the 2 attributes"):
            on_points(Bilateral(1.0, 4.0, channels=(2,)), 3, 2)
