"""Segmentation from strokes: tiny photos whose answer is plain, determinism, large photos in bands, refusals."""

import numpy as np
import pytest
import torch

from crfrnn.commands.segment import stroke_training as training
from crfrnn.commands.segment.segment import segment_strokes
from crfrnn.commands.segment.stroke_features import pixel_features
from crfrnn.commands.segment.stroke_training import hidden_cells
from crfrnn.networks import photo_size

SIZE = (36, 48)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch, torch_threads):
    torch_threads(1)  # tiny photos: threads would only wait for each other
    monkeypatch.setattr(training, "NETWORK_STEPS", 40)
    monkeypatch.setattr(training, "JOINT_STEPS", 4)
    monkeypatch.setattr(training.train_network, "__defaults__", (40, lambda: None))
    monkeypatch.setattr(training.train_end_to_end, "__defaults__", (4, lambda: None))


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
    assert seen == [(done, 44) for done in range(1, 45)]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_result_and_another_does_not():
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
    crf = training.stroke_crf(2, (12, 10))
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


def test_thin_strokes_survive_the_reduced_size(monkeypatch):
    monkeypatch.setattr("crfrnn.commands.segment.segment.TRAINING_PIXELS", 100)
    photo, strokes, _ = three_fields()
    strokes[10, 9] = 5  # one pixel beside a broader stroke
    assert segment_strokes(photo, strokes).classes == (3, 5, 7, 9)


@pytest.mark.parametrize("size", [(1, 9), (7, 2), (30, 40)])
def test_features_of_any_size_are_finite(size):
    rgb = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    features = pixel_features(rgb, torch.Generator().manual_seed(0))
    assert features.shape[0] == size[0] * size[1]
    assert torch.isfinite(features).all()
    assert torch.isfinite(pixel_features(torch.zeros(1, 3, *size), torch.Generator())).all()


def test_training_together_changes_both_parts():
    photo, strokes, _ = three_fields()
    from_torch = torch.Generator().manual_seed(0)
    rgb = torch.from_numpy(photo).permute(2, 0, 1).unsqueeze(0).float()
    flat = torch.from_numpy(strokes).flatten()
    pixels = (flat >= 0).nonzero().flatten()
    targets = torch.bucketize(flat[pixels], torch.tensor([3, 7, 9]))
    given = training.Strokes(rgb, pixel_features(rgb, from_torch), pixels, targets, 3)
    torch.manual_seed(0)
    network, crf = training.PixelNetwork(given.features.shape[1], 3), training.stroke_crf(3, SIZE)
    before = [p.detach().clone() for p in (*network.parameters(), *crf.parameters())]
    training.train_end_to_end(network, crf, given, 3)
    after = [*network.parameters(), *crf.parameters()]
    assert all(not torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(after, before, strict=True))


def test_hidden_cells_hide_their_share():
    torch.manual_seed(0)
    share = torch.stack([hidden_cells((130, 170)) for _ in range(50)]).float().mean().item()
    assert abs(share - training.HIDE) < 0.05


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
