"""`crfrnn refine` on files of points: the classes change, all else is kept; what is wrong is one line."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.street import street
from crfrnn import refine_points
from crfrnn.cli import main
from crfrnn.data.kinds import Cloud
from tests.support import command
from tests.support.clouds import write_las, write_npz, write_ply

WRITERS = {".las": write_las, ".laz": write_las, ".npz": write_npz, ".ply": write_ply}
POINTS = 800
SCENE = street(POINTS)
COARSE = np.array([2, 6, 17, 20])[SCENE.probabilities.argmax(1)]
run = partial(command.run, "refine")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with street.npz and its predictions p.npy."""
    monkeypatch.chdir(tmp_path)
    write_npz(Path("street.npz"), SCENE, COARSE)
    np.save("p.npy", SCENE.probabilities)
    return tmp_path


def classes(path: str | Path) -> np.ndarray:
    cloud = Cloud.open([Path(path)]).content
    return np.asarray(cloud.values[str(cloud.label_name)])


EXPECTED = refine_points(SCENE.positions, SCENE.probabilities, attributes=SCENE.intensity).argmax(1)


@pytest.mark.parametrize("suffix", Cloud.suffixes)
class TestEveryFormat:
    def test_probabilities(self, suffix, capsys):
        WRITERS[suffix](Path(f"cloud{suffix}"), SCENE, COARSE)
        outputs = ("--out", f"out{suffix}", "--save-probabilities=q.npy", "--classes=2,6,17,20")
        assert run(f"cloud{suffix}", "--probabilities=p.npy", *outputs) == 0
        out = capsys.readouterr().out
        assert "800 points), 4 labels (2, 6, 17, 20)" in out
        assert "attributes: intensity; bilateral of " in out
        positions = Cloud.open([Path(f"cloud{suffix}")]).positions  # .las and .laz round to millimetres
        expected = refine_points(positions, SCENE.probabilities, attributes=SCENE.intensity)
        assert np.array_equal(classes(f"out{suffix}"), np.array([2, 6, 17, 20])[expected.argmax(1)])
        assert np.array_equal(np.load("q.npy"), expected.astype(np.float16))

    def test_the_labels_in_the_cloud(self, suffix):
        """Its own classes are refined; those that mean nothing get one."""
        coarse = COARSE.copy()
        coarse[::5] = 0
        WRITERS[suffix](Path(f"cloud{suffix}"), SCENE, coarse)
        arguments = (f"cloud{suffix}", "--labels", f"cloud{suffix}", "--unsure=0", "--confidence=0.8")
        assert run(*arguments, "--out", f"out{suffix}") == 0
        refined = classes(f"out{suffix}")
        assert {*np.unique(refined)} <= {2, 6, 17, 20}
        truth = np.array([2, 6, 17, 20])[SCENE.truth]
        assert (refined == truth).mean() > (truth == COARSE).mean()
        assert np.array_equal(classes(f"cloud{suffix}"), coarse)  # the file that came in is as it was


class TestPredictions:
    def test_a_trace(self, capsys):
        assert run("street.npz", "--probabilities=p.npy", "--out=out.npz", "--trace=t.json", "--iterations=3") == 0
        assert "wrote t.json and t.svg" in capsys.readouterr().out
        energies = [row["free_energy"] for row in json.loads(Path("t.json").read_text())]
        assert len(energies) == 4
        assert energies[-1] < energies[0]

    def test_layouts_and_logits(self):
        np.save("columns.npy", SCENE.probabilities.T)
        np.savez("logits.npz", x=np.log(SCENE.probabilities))
        for option, source in (("--probabilities", "columns.npy"), ("--logits", "logits.npz")):
            assert run("street.npz", option, source, "--out=out.npz", "--save-probabilities=q.npy") == 0
            assert (classes("out.npz") == EXPECTED).mean() > 0.995
        assert run("street.npz", "--probabilities=columns.npy", "--out=out.npz", "--save-probabilities=q.npy") == 0
        assert np.load("q.npy").shape == (4, POINTS)

    def test_a_foreground_alone(self):
        np.save("ground.npy", SCENE.probabilities[:, 0])
        assert run("street.npz", "--probabilities=ground.npy", "--out=out.npz", "--save-probabilities=q.npy") == 0
        expected = refine_points(SCENE.positions, SCENE.probabilities[:, 0], attributes=SCENE.intensity)
        assert np.array_equal(classes("out.npz"), expected > 0.5)
        assert np.load("q.npy").shape == (POINTS,)

    def test_labels_as_an_array(self):
        np.save("labels.npy", COARSE)
        assert run("street.npz", "--labels=labels.npy", "--out=one.npz") == 0
        assert run("street.npz", "--labels=street.npz", "--out=two.npz") == 0
        assert np.array_equal(classes("one.npz"), classes("two.npz"))

    def test_one_label(self):
        np.save("labels.npy", np.full(POINTS, 9))
        assert run("street.npz", "--labels=labels.npy", "--out=out.npz") == 0
        assert (classes("out.npz") == 9).all()


class TestKernels:
    def test_ones_own(self, capsys):
        options = ("--kernel=bilateral:0.7,4000,5", "--kernel=spatial:0.3,2", "--normalization=symmetric")
        assert run("street.npz", "--probabilities=p.npy", "--out=out.npz", *options) == 0
        assert (
            "bilateral of 0.7 in position and 4000 in attributes, weight 5, spatial of 0.3" in capsys.readouterr().out
        )
        kernels = ["bilateral:0.7,4000,5", "spatial:0.3,2"]
        q = refine_points(
            SCENE.positions, SCENE.probabilities, attributes=SCENE.intensity, kernels=kernels, normalization="symmetric"
        )
        assert np.array_equal(classes("out.npz"), q.argmax(1))

    def test_no_attributes(self, capsys):
        assert run("street.npz", "--probabilities=p.npy", "--out=out.npz", "--attributes=none") == 0
        assert "attributes: none; spatial of " in capsys.readouterr().out
        assert np.array_equal(classes("out.npz"), refine_points(SCENE.positions, SCENE.probabilities).argmax(1))


class TestFolders:
    def test_by_name_and_a_second_run(self, capsys):
        for name in ("a/one", "two"):
            Path("clouds", name).parent.mkdir(parents=True, exist_ok=True)
            Path("predictions", name).parent.mkdir(parents=True, exist_ok=True)
            write_ply(Path("clouds", f"{name}.ply"), SCENE, COARSE)
            np.save(Path("predictions", f"{name}.npy"), SCENE.probabilities)
        write_ply(Path("clouds", "broken.ply"), SCENE, COARSE)
        np.save("predictions/broken.npy", SCENE.probabilities[:-1])
        arguments = ("clouds", "--probabilities=predictions", "--out=refined")
        assert run(*arguments) == 1
        captured = capsys.readouterr()
        assert "1 of 3 failed" in captured.err
        assert "clouds/broken.ply has 800 points, but there are predictions for 799" in captured.err
        assert sorted(p.name for p in Path("refined").rglob("*.*")) == ["one.ply", "two.ply"]
        assert np.array_equal(classes("refined/a/one.ply"), EXPECTED)
        np.save("predictions/broken.npy", SCENE.probabilities)
        assert run(*arguments) == 0
        assert "skipped 2 that were done" in capsys.readouterr().out

    def test_clouds_with_labels(self):
        Path("clouds").mkdir()
        write_ply(Path("clouds/one.ply"), SCENE, COARSE)
        assert run("clouds", "--labels=clouds", "--out=refined") == 0
        assert {*classes("refined/one.ply")} <= {2, 6, 17, 20}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "status", "message"),
        [
            (("--out=out.png",), 2, "out: labels of clouds of points are written as .npz, and out.png ends otherwise"),
            (("--out=out.laz",), 2, "out: labels of clouds of points are written as .npz, and out.laz ends otherwise"),
            (("--out=street.npz",), 2, "would be overwritten"),
            (("--out=out.npz", "--overlay=o.png"), 2, "overlay: there is no picture"),
            (("--out=out.npz", "--resize"), 2, "resize: clouds of points have no size"),
            (("--out=out.npz", "--preset=crfrnn"), 2, "preset: its bandwidths count in pixels"),
            (("--out=out.npz", "--classes=1,x"), 2, "classes: expected numbers such as 2,5,6"),
            (("--out=out.npz", "--classes=1,1,2,3"), 2, "classes: 1,1,2,3 has one twice"),
            (("--out=out.npz", "--classes=1,2"), 1, "classes: 2 of them, but there are 4 labels"),
            (("--out=out.npz", "--attributes=nir"), 1, "attributes: street.npz has no 'nir'"),
            (
                ("--out=out.npz", "--kernel=bilateral:1,1", "--attributes=none"),
                1,
                "a bilateral kernel needs attributes",
            ),
        ],
    )
    def test_one_line(self, options, status, message, capsys):
        before = sorted(Path().iterdir())
        assert run("street.npz", "--probabilities=p.npy", *options) == status
        captured = capsys.readouterr().err
        assert message in captured
        assert captured.count("\n") == 1
        assert sorted(Path().iterdir()) == before

    def test_a_colour_for_no_label(self, capsys):
        assert run("street.npz", "--labels=street.npz", "--out=out.npz", "--unsure=white") == 1
        assert "unsure: street.npz holds numbers" in capsys.readouterr().err

    def test_several_files(self, capsys):
        """As of the modalities of a volume."""
        write_npz(Path("other.npz"), SCENE, COARSE)
        assert run("street.npz,other.npz", "--probabilities=p.npy", "--out=out.npz") == 1
        assert "street.npz, other.npz: a cloud of points has all its values in one file" in capsys.readouterr().err

    def test_labels_of_another_cloud(self, capsys):
        other = street(POINTS, seed=1)
        write_npz(Path("other.npz"), other, COARSE)
        write_npz(Path("fewer.npz"), street(100), COARSE[:100])
        for name, message in (
            ("other", "its points lie elsewhere than those of street.npz, or in another order"),
            ("fewer", "street.npz has 800 points, but there are predictions for 100"),
        ):
            assert run("street.npz", f"--labels={name}.npz", "--out=out.npz") == 1
            assert message in capsys.readouterr().err

    def test_options_of_points_for_a_photograph(self, capsys):
        Path("cat.png").write_bytes(b"")
        assert run("cat.png", "--probabilities=p.npy", "--out=out.png", "--classes=1,2") == 2
        assert "classes: is for clouds of points" in capsys.readouterr().err

    def test_verbs_that_know_no_clouds(self, capsys):
        for name in ("clouds", "predictions"):
            Path(name).mkdir()
        write_ply(Path("clouds/one.ply"), SCENE, COARSE)
        for verb in (
            ("fit", "clouds", "predictions", "clouds", "--out=crf.yaml"),
            ("evaluate", "predictions", "--ground-truth=clouds"),
        ):
            assert main(verb) == 1
            assert capsys.readouterr().err.strip().endswith("clouds: holds clouds of points, which only refine takes")
