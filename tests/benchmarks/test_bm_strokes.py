"""The strokes' benchmark: its rule, its scores, and its table on three photos that come with scikit-image."""

import json

import numpy as np
import pytest

from benchmarks import bm_strokes
from benchmarks.ruled_strokes import EDGE, NOTHING, SHARE, VOID, interval, ruled_strokes, score, without_small


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> bm_strokes.Results:
    file = tmp_path_factory.mktemp("strokes") / "results.json"
    bm_strokes.main(["--results", str(file), "--out", str(file.with_suffix(".md"))])
    table = file.with_suffix(".md").read_text()
    assert all(f"| {name} |" in table for name in bm_strokes.METHODS)
    return json.loads(file.read_text())


@pytest.mark.slow
def test_ours_leads_on_three_photos(results: bm_strokes.Results):
    rows = results["photos of scikit-image"].values()
    assert len(rows) == 3
    ours, walker = (np.array([row[name][0] for row in rows]) for name in ("with its CRF", "random walker"))
    assert ours.mean() > walker.mean() + 3
    assert ours.min() > 60


@pytest.mark.slow
def test_ours_leads_both_starts_of_grab_cut(results: bm_strokes.Results):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    row = results["photos of scikit-image"]["chelsea, whole"]
    grab_cut = [values[0] for name, values in row.items() if name.startswith("grabCut")]
    assert len(grab_cut) == 2
    assert row["with its CRF"][0] > max(grab_cut)


def test_the_rule():
    truth = np.zeros((150, 200), np.int32)
    truth[30:120, 60:140], truth[60:64, 150:190], truth[:2, :2] = 5, 7, 9
    truth[:, 138:142] = VOID
    truth = without_small(truth)
    assert (truth[:2, :2] == VOID).all()  # too small for a stroke
    strokes = ruled_strokes(truth, seed=3)
    drawn = strokes != NOTHING
    assert np.array_equal(strokes[drawn], truth[drawn])
    assert set(np.unique(strokes)) == {NOTHING, 0, 5, 7}  # narrow things, too
    assert 0.3 * SHARE < drawn.mean() < 1.5 * SHARE
    assert (strokes[30 : 30 + EDGE - 2, 60:138] == NOTHING).all()
    assert np.array_equal(strokes, ruled_strokes(truth, seed=3))
    assert not np.array_equal(strokes, ruled_strokes(truth, seed=4))


def test_scores_where_nothing_is_drawn():
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, VOID]])
    strokes = np.array([[0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, 1, NOTHING]])
    labels = np.array([[1, 0, 0, 1, 1, 1, 0, 0]])
    assert score(labels, truth, strokes)[0] == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)


def test_the_interval_holds_the_mean():
    low, high = interval(np.arange(50.0))
    assert low < 24.5 < high
    assert (high - low) / 4 == pytest.approx(np.arange(50.0).std() / np.sqrt(50), rel=0.05)
