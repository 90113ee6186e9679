"""Segmentation from strokes: tiny photos whose answer is plain, determinism, large photos in bands, refusals."""

import base64
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn.commands.segment import segment as stroke_segmentation
from crfrnn.commands.segment import stroke_features
from crfrnn.commands.segment.segment import drawn_places, learn_strokes, segment_strokes
from crfrnn.commands.segment.stroke_features import photo_features, standardized
from crfrnn.commands.segment.stroke_similarity import SIMILARITY, similarity_logits
from crfrnn.data.labels import voc_palette
from crfrnn.networks import photo_size

SIZE = (36, 48)


@pytest.fixture(autouse=True)
def small(monkeypatch, torch_threads):
    torch_threads(1)  # tiny photos: threads would only wait for each other
    monkeypatch.setattr(stroke_features, "PIXELS", 30_000)
    stroke_features.feature_network.cache_clear()
    yield
    stroke_features.feature_network.cache_clear()


def three_fields(scale: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy photo of three fields of colour, their labels 3, 7 and 9, and a thin stroke on each."""
    truth = np.full(SIZE, 3)
    truth[:, 20:] = 7
    truth[22:, 20:] = 9
    strokes = np.full(SIZE, -1)
    strokes[5:30, 8], strokes[10, 25:44], strokes[30, 26:40] = 3, 7, 9
    colours = np.zeros((10, 3))
    colours[[3, 7, 9]] = (40, 90, 60), (210, 190, 60), (120, 40, 160)
    truth, strokes = (np.kron(a, np.ones((scale, scale), int)) for a in (truth, strokes))
    noise = np.random.default_rng(seed).normal(0, 8, (*truth.shape, 3))
    return (colours[truth] + noise).clip(0, 255).astype(np.uint8), strokes, truth


def test_strokes_become_labels():
    photo, strokes, truth = three_fields()
    before = torch.get_rng_state()
    seen = []
    result = segment_strokes(photo, strokes, probabilities=True, progress=lambda *step: seen.append(step))
    assert result.classes == (3, 7, 9)
    assert (result.labels == truth).mean() > 0.98
    assert (result.network_labels == truth).mean() > 0.9
    assert result.probabilities is not None
    assert result.probabilities.shape == (3, *SIZE)
    assert np.allclose(result.probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
    assert (np.array(result.classes)[result.probabilities.argmax(0)] == result.labels).mean() > 0.999  # float16
    assert seen == [(1, 2), (2, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    drawn = strokes >= 0
    assert np.array_equal(result.labels[drawn], strokes[drawn])


def test_a_notebook_shows_the_labels():
    photo, strokes, _ = three_fields()
    result = segment_strokes(photo, strokes)
    found = re.fullmatch(r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)">', result._repr_html_())
    assert found
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    for number in (3, 7, 9):
        colour = voc_palette()[number]
        both = (result.labels == number).sum() + (result.network_labels == number).sum()
        assert (picture == colour).all(-1).sum() >= both  # and its field in the legend


def test_the_same_seed_gives_the_same_result_and_another_does_not(monkeypatch):
    monkeypatch.setattr(stroke_segmentation, "PLACES", 30)
    photo, strokes, _ = three_fields()

    def marginals(seed: int) -> np.ndarray:
        kept = segment_strokes(photo, strokes, seed=seed, probabilities=True).probabilities
        assert kept is not None
        return kept

    assert np.array_equal(marginals(1), marginals(1))
    assert not np.array_equal(marginals(1), marginals(2))


def test_numbers_and_void_are_the_callers():
    photo, strokes, _ = three_fields()
    other = np.where(strokes == -1, 255, strokes).astype(np.uint8)
    result = segment_strokes(photo, other, void=255)
    assert np.array_equal(result.labels, segment_strokes(photo, strokes).labels)


def test_a_large_photo_is_labelled_in_bands(monkeypatch):
    photo, strokes, truth = three_fields(scale=4)
    whole = segment_strokes(photo, strokes)
    monkeypatch.setattr(photo_size, "CRF_VALUES", 3 * SIZE[0] * SIZE[1])
    monkeypatch.setattr(photo_size, "BAND_VALUES", 3 * 40 * photo.shape[1])
    banded = segment_strokes(photo, strokes, probabilities=True)
    assert banded.probabilities is not None
    assert not np.isnan(banded.probabilities).any()
    assert (banded.labels == truth).mean() > 0.98
    assert (banded.labels == whole.labels).mean() > 0.98


def test_bands_do_not_show(monkeypatch):
    """Of a smooth photo the marginals do not depend on where the bands end."""
    logits = torch.randn(1, 2, 12, 10, generator=torch.Generator().manual_seed(0))
    image = np.full((96, 80, 3), 90, np.uint8)
    crf = SIMILARITY.crf(2, (12, 10)).eval()
    monkeypatch.setattr(photo_size, "CRF_VALUES", 2 * 24 * 20)

    def in_bands(rows: int) -> np.ndarray:
        monkeypatch.setattr(photo_size, "BAND_VALUES", 2 * rows * 80)
        with torch.no_grad():
            return np.concatenate([q for _, q in photo_size.bands(logits, crf, image, 3)], axis=1)

    assert np.abs(in_bands(17) - in_bands(96)).max() < 0.1  # each band has its own lattice, cf. docs/accuracy.md
    with torch.no_grad():
        alone = np.concatenate([q for _, q in photo_size.bands(logits, None, image, 3)], axis=1)
    expected = torch.nn.functional.interpolate(logits, size=(96, 80), mode="bilinear").softmax(1)[0]
    assert np.allclose(alone, expected, atol=1e-5)


def test_thin_strokes_survive_the_grid(monkeypatch):
    monkeypatch.setattr(stroke_features, "PIXELS", 1000)
    photo, strokes, _ = three_fields()
    strokes[10, 9] = 5  # one pixel beside a broader stroke
    assert segment_strokes(photo, strokes).classes == (3, 5, 7, 9)


def test_places_are_those_that_strokes_cover():
    drawn = np.zeros((2, 16, 24), bool)
    drawn[0, :8, :4] = drawn[1, 8:, 20:] = True
    places, labels = drawn_places(list(drawn), (4, 6), seed=0)
    assert places.tolist() == [0, 6, 17, 23]
    assert labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("size", [(1, 9), (7, 2), (30, 40)])
def test_features_of_any_size_are_finite(size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for image in (photo, np.zeros_like(photo)):
        features = photo_features(image)
        assert features.keys() == SIMILARITY.log_weights.keys()
        assert len({values.shape[1:] for values in features.values()}) == 1
        assert all(torch.isfinite(values).all() for values in features.values())


def test_standardized_features_differ_by_one():
    values = standardized(5 + 3 * torch.randn(6, 40, 50, generator=torch.Generator().manual_seed(0))).flatten(1)
    assert math.isclose(torch.pdist(values.t()[:200]).square().mean().item(), 1, rel_tol=0.1)


def test_the_process_by_hand():
    """One feature, two strokes: the textbook's formula with numbers."""
    features = {"x": torch.tensor([[[0.0, 1.0, 3.0, 50.0]]])}
    similarity = replace(
        SIMILARITY,
        log_weights={"x": math.log(0.5)},
        log_noise=math.log(0.1),
        balance=1.0,
        log_sharpness=math.log(2),
    )
    found = similarity_logits(features, torch.tensor([0, 2]), torch.tensor([0, 1]), 2, similarity)[0, :, 0]
    between = math.exp(-4.5)
    coefficients = np.linalg.solve([[1.1, between], [between, 1.1]], [[0.5, -0.5], [-0.5, 0.5]])
    kernel = np.exp(-0.5 * np.subtract.outer([0, 1, 3, 50], [0, 3]) ** 2)
    assert np.allclose(found.numpy(), 2 * (kernel @ coefficients).T, atol=1e-5)
    assert found[:, 3].abs().max() < 1e-6  # resembles nothing that is drawn


def test_a_photo_of_one_colour_is_divided_by_place():
    _, strokes, _ = three_fields()
    labels = segment_strokes(np.full((*SIZE, 3), 90, np.uint8), np.where(strokes == 9, -1, strokes)).labels
    assert (labels[:, 8] == 3).all()
    assert (labels[8:13, 25:44] == 7).all()


def test_strokes_that_cover_everything_stay(monkeypatch):
    monkeypatch.setattr(stroke_segmentation, "PLACES", 100)
    photo, _, truth = three_fields()
    assert np.array_equal(segment_strokes(photo, truth).labels, truth)
    learned = learn_strokes(photo, truth)
    assert torch.isfinite(learned.alone).all()
    assert (np.array(learned.classes)[learned.alone[0].argmax(0).numpy()] == truth).mean() > 0.95


REFUSED = {
    "image": lambda p, s: (p.astype(float), s),
    "image: expected": lambda p, s: (p[..., 0], s),
    "strokes: 48 x 35": lambda p, s: (p, s[:-1]),
    "strokes: expected": lambda p, s: (p, s.astype(float)),
    "strokes: nothing is drawn": lambda p, s: (p, np.full_like(s, -1)),
    "strokes: only one class, 3": lambda p, s: (p, np.where(s == 3, 3, -1)),
}


@pytest.mark.parametrize("start", REFUSED)
def test_bad_input_is_one_clear_line(start):
    photo, strokes, _ = three_fields()
    with pytest.raises(ValueError, match=f"^{start}") as caught:
        segment_strokes(*REFUSED[start](photo, strokes))
    assert "\n" not in str(caught.value)


def test_iterations_must_be_a_count():
    photo, strokes, _ = three_fields()
    with pytest.raises(ValueError, match=r"^iterations"):
        segment_strokes(photo, strokes, iterations=-1)
