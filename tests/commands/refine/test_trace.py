"""`refine` with another solver, its trace, the trace's files, and both from the command line."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn import refine
from crfrnn.commands.refine.trace import Trace
from crfrnn.data.drawing.chart import SMALL, Line, draw_chart
from crfrnn.inference.solvers import SOLVERS
from tests.support.command import run
from tests.support.compare import assert_equal
from tests.support.problems import photo, random_values

LABELS, HEIGHT, WIDTH = 5, 24, 32
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return photo("chelsea", HEIGHT, WIDTH)[0].permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    return (2 * random_values(LABELS, HEIGHT, WIDTH)).softmax(dim=0).numpy()


class TestSolvers:
    @pytest.mark.parametrize("name", SOLVERS)
    def test_by_name_and_by_object(self, image, probabilities, name):
        by_name = refine(image, probabilities, solver=name, iterations=3)
        assert_equal(name, refine(image, probabilities, solver=SOLVERS[name](), iterations=3), by_name, 0)
        assert_equal("sums", by_name.sum(0), np.ones((HEIGHT, WIDTH), np.float32), 1e-5)

    def test_the_default_is_mean_field(self, image, probabilities):
        assert_equal("Q", refine(image, probabilities, solver="mean-field"), refine(image, probabilities), 0)

    def test_unknown(self, image, probabilities):
        with pytest.raises(ValueError, match=r"^solver: 'newton' is none of mean-field"):
            refine(image, probabilities, solver="newton")


class TestTrace:
    @pytest.mark.parametrize("solver", [None, "damped:0.3", "euclidean-frank-wolfe"])
    def test_moments(self, image, probabilities, solver):
        """Each is what `refine` returns with as many iterations, and so is what comes back."""
        moments = []
        last = refine(image, probabilities, solver=solver, iterations=4, trace=moments.append)
        assert [moment.t for moment in moments] == [0, 1, 2, 3, 4]
        for moment in moments:
            expected = refine(image, probabilities, solver=solver, iterations=moment.t)
            assert_equal(f"Q({moment.t})", moment.marginals, expected, 1e-4)
        assert_equal("Q", last, moments[-1].marginals, 0)
        assert moments[-1].objective < moments[0].objective

    def test_like_what_was_given(self, image, probabilities):
        """Labels that are left out come back as zeros; labels last and torch stay what they are."""
        moments = []
        rare = np.concatenate([probabilities, np.full((1, HEIGHT, WIDTH), 1e-5, np.float32)])
        refine(image, rare, iterations=1, trace=moments.append)
        refine(image, np.moveaxis(rare, 0, -1), iterations=1, trace=moments.append)
        refine(image, torch.from_numpy(rare), iterations=1, trace=moments.append)
        shapes = [tuple(moment.marginals.shape) for moment in moments]
        assert shapes[::2] == [(LABELS + 1, HEIGHT, WIDTH), (HEIGHT, WIDTH, LABELS + 1), (LABELS + 1, HEIGHT, WIDTH)]
        assert isinstance(moments[-1].marginals, torch.Tensor)
        assert moments[0].marginals[-1].max() == 0

    def test_not_for_lists(self, image, probabilities):
        with pytest.raises(ValueError, match=r"^trace: follows one image"):
            refine([image], [probabilities], trace=print)

    def test_numbers_and_curve(self, image, probabilities, tmp_path):
        trace = Trace()
        refine(image, probabilities, iterations=3, trace=trace)
        trace.write(tmp_path / "t.csv", "cat & dog")
        trace.write(tmp_path / "u.json", "cat")
        with (tmp_path / "t.csv").open() as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        assert rows == json.loads((tmp_path / "u.json").read_text()) == trace.rows
        assert rows[0]["change"] == 0
        assert 0 < rows[1]["labels_changed"] < 1
        heights = drawn((tmp_path / "t.svg").read_text())[0][1]
        energies = [row["free_energy"] for row in rows]
        assert np.argsort(heights).tolist() == np.argsort(energies)[::-1].tolist()  # y points down


def drawn(svg: str) -> list[tuple[list[float], list[float]]]:
    """x and y, in pixels, of each line of a chart."""
    lines = [line.get("points", "").split() for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline")]
    pairs = [[tuple(float(number) for number in point.split(",")) for point in line] for line in lines]
    return [([x for x, _ in line], [y for _, y in line]) for line in pairs]


class TestChart:
    def test_linear(self):
        svg = draw_chart("a < b", "x", "y", [Line("one", [0, 1, 2], [5.0, 7.5, 10.0]), Line("two", [0, 2], [6.0, 6.0])])
        (x, y), (_, flat) = drawn(svg)
        assert np.diff(x).tolist() == pytest.approx([np.diff(x)[0]] * 2, abs=0.2)
        assert np.diff(y).tolist() == pytest.approx([np.diff(y)[0]] * 2, abs=0.2)
        assert np.diff(y).max() < 0
        assert flat[0] == flat[1] == pytest.approx(y[0] + 0.2 * (y[2] - y[0]), abs=0.2)
        texts = [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
        assert {"a < b", "x", "y", "one", "two", "5", "10"} <= set(texts)

    def test_logarithmic(self):
        ((_, y),) = drawn(draw_chart("", "", "", [Line("", [0, 1, 2, 3], [1.0, 10.0, 0.0, 1000.0])], log_y=True))
        assert len(y) == 3  # zero has no logarithm
        assert y[2] - y[1] == pytest.approx(2 * (y[1] - y[0]), abs=0.2)

    def test_constant(self):
        ((_, y),) = drawn(draw_chart("", "", "", [Line("", [0, 1], [3.0, 3.0])]))
        assert y[0] == y[1]

    @pytest.mark.parametrize(
        ("x", "y", "ticks"),
        [
            ([1, 2, 3], [0.0, 0.0, 0.0], ["1", "2", "3", "0", "1"]),  # nothing changes: no share is below 0
            ([1, 2, 3], [0.0, 1.0, 2.0], ["1", "2", "3", "0", "1", "2"]),  # iterations have no halves
            ([1.0, 1.5, 2.0], [0.0, 1.0, 2.0], ["1", "1.2", "1.4", "1.6", "1.8", "2", "0", "1", "2"]),
        ],
    )
    def test_ticks(self, x, y, ticks):
        svg = draw_chart("", "", "", [Line("", x, y)], frame=SMALL)
        assert [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")] == ticks

    def test_points_say_their_numbers_and_one_is_marked(self):
        svg = draw_chart("", "", "", [Line("", [1, 2, 3], [9.0, 4.5, 0.25], marked=2)], frame=SMALL)
        dots = list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))
        assert ["".join(dot.itertext()) for dot in dots] == ["1: 9", "2: 4.5", "3: 0.25"]
        assert [dot.get("class") for dot in dots] == [None, "marked", None]

    def test_nothing(self):
        with pytest.raises(ValueError, match=r"^lines: nothing to draw"):
            draw_chart("", "", "", [Line("", [0], [float("nan")])])


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch, image, probabilities) -> Path:
        monkeypatch.chdir(tmp_path)
        for folder in ("photos", "predictions"):
            Path(folder).mkdir()
        for name in ("a", "b"):
            Image.fromarray(image).save(f"photos/{name}.png")
            np.save(f"predictions/{name}.npy", probabilities)
        return tmp_path

    one = ("refine", "photos/a.png", "--probabilities", "predictions/a.npy", "--out", "a.png", "--iterations", "3")

    def test_one_photo(self, capsys, image, probabilities):
        assert run(*self.one, "--solver", "damped:0.4", "--trace", "a.json") == 0
        out = capsys.readouterr().out
        assert "wrote a.json and a.svg" in out
        rows = json.loads(Path("a.json").read_text())
        assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
        assert drawn(Path("a.svg").read_text())
        with Image.open("a.png") as written:
            expected = refine(image, probabilities, solver="damped:0.4", iterations=3).argmax(0)
            assert (np.asarray(written) == expected).all()

    def test_a_folder(self):
        command = ("refine", "photos", "--probabilities", "predictions", "--out", "labels", "--trace", "traces")
        assert run(*command, "--iterations", "2") == 0
        names = sorted(path.name for path in Path("traces").iterdir())
        assert names == ["a.csv", "a.svg", "b.csv", "b.svg"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--solver", "newton"), "solver: 'newton' is none of mean-field, damped, convergent"),
            (("--solver", "damped:1.5"), "step: must be above 0 and at most 1, got 1.5"),
            (("--solver", "entropic-frank-wolfe:0.5,0"), "lambda_: must be above 0, from 1e-6 to 1e6, got 0.0"),
            (("--trace", "a.txt"), "trace: a.txt must end in .csv or .json"),
        ],
    )
    def test_wrong_usage(self, capsys, options, message):
        assert run(*self.one, *options) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
        assert not Path("a.png").exists()
