"""Parameters in a file: written, read, used by the layer and by refine alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, Bilateral, Features, Spatial, refine
from crfrnn.cli import build_parser, make_options
from crfrnn.networks.saved import crf_config, crf_of_config
from crfrnn.parameters import CRFParameters
from tests.support.scenes import scene

PARAMETERS = CRFParameters(
    (Bilateral(31.25, 7.5, weight=2.125), Spatial(1.5, weight=0.75)),
    normalization="symmetric",
    temperature=0.625,
    iterations=4,
    class_weights=((1.0, 0.5, 2.0), (1.25, 1.0, 0.75)),
    fitted={"images": 8, "held_out_gain": [0.5, -0.25, 1.0]},
)


def test_round_trip(tmp_path):
    path = tmp_path / "crf.yaml"
    path.write_text(PARAMETERS.as_yaml())
    back = CRFParameters.from_yaml(path)
    assert back == PARAMETERS
    assert back.fitted == PARAMETERS.fitted


def test_iterations_of_numpy_can_be_written():
    parameters = replace(PARAMETERS, iterations=np.int64(4))  # type: ignore[arg-type]
    assert parameters.as_yaml() == PARAMETERS.as_yaml()


def test_class_weights_may_be_an_array():
    for rows in (np.array(PARAMETERS.class_weights), torch.tensor(PARAMETERS.class_weights)):
        assert replace(PARAMETERS, class_weights=rows) == PARAMETERS  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^class_weights: shape \(3,\), expected \(kernels, classes\)"):
        replace(PARAMETERS, class_weights=np.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["present", "crfrnn", "pydensecrf", "deeplab-v1", "deeplab-v2"])
def test_a_preset_is_refines_preset(name, tmp_path):
    path = tmp_path / "crf.yaml"
    path.write_text(CRFParameters.of_preset(name).as_yaml())
    image, logits, _ = scene(0)
    options = CRFParameters.from_yaml(path).options()
    assert np.array_equal(refine(image, logits=logits, **options), refine(image, logits=logits, preset=name))


def test_the_layer_and_refine_agree(tmp_path):
    path = tmp_path / "crf.yaml"
    path.write_text(PARAMETERS.as_yaml())
    image, logits, _ = scene(0)
    layer = CRFRNN.from_config(path).eval()
    out = layer(torch.from_numpy(logits)[None], torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = refine(image, logits=logits, tolerance=0, **PARAMETERS.options())
    assert np.abs(out[0].softmax(0).detach().numpy() - expected).max() < 1e-5
    assert crf_of_config(crf_config(layer)).temperature == 0.625  # saved with a network


@pytest.mark.parametrize(
    "text",
    [
        "kernel: ['spatial:3,3']\ntemperature: 5e-1\niterations: '7'",
        "kernel: ['spatial:3,3', 'bilateral:3e1,5']\nclass_weights: [['1', 2e0], [.5, 1e+0]]\nnormalization: null",
        "preset: deeplab-v2\nsolver: damped:0.5\nfitted: {day: 2026-01-01, share: 1e-3}",
        "kernel: ['spatial:3,3']\npreset: deeplab-v2",
    ],
)
def test_the_layer_takes_what_the_command_line_takes(tmp_path, text):
    (tmp_path / "crf.yaml").write_text(text)
    parser = build_parser()
    words = ["a.jpg", "--labels", "a.png", "--out", "b.png", "--config", str(tmp_path / "crf.yaml")]
    said = make_options(parser, parser.parse_args(["refine", *words]), "refine")
    expected = CRFParameters.of_preset(
        said.preset,
        kernels=said.kernel,
        normalization=said.normalization,
        solver=None if said.solver == "mean-field" else said.solver,
        iterations=said.iterations,
        temperature=said.temperature,
        class_weights=said.class_weights and tuple(map(tuple, said.class_weights)),
        fitted=said.fitted,
    )
    got = CRFParameters.from_yaml(tmp_path / "crf.yaml")
    assert (str(got.solver), got.fitted) == (str(expected.solver), expected.fitted)
    assert replace(got, solver=None) == replace(expected, solver=None)
    assert CRFRNN.from_config(tmp_path / "crf.yaml", num_classes=2).temperature == said.temperature


def test_temperature_divides_the_logits():
    image, logits, _ = scene(0)
    for temperature in (0.5, 3.0):
        expected = refine(image, logits=logits / temperature, preset="deeplab-v2")
        assert (
            np.abs(refine(image, logits=logits, preset="deeplab-v2", temperature=temperature) - expected).max() < 1e-5
        )
        p = torch.from_numpy(logits).softmax(0).numpy()
        assert np.abs(refine(image, p, preset="deeplab-v2", temperature=temperature) - expected).max() < 1e-4


def test_class_weights_of_one_change_nothing():
    image, logits, _ = scene(0)
    ones = np.ones((2, 3)).tolist()
    assert np.allclose(refine(image, logits=logits, class_weights=ones), refine(image, logits=logits), atol=1e-6)


def test_class_weights_when_labels_are_left_out():
    image, logits, _ = scene(0)
    logits = np.concatenate([logits[:1], np.full_like(logits[:1], -30), logits[1:]])
    weights = [[1.0, 3.0, 0.5, 2.0], [1.0, 3.0, 2.0, 0.5]]
    with_all = refine(image, logits=logits, class_weights=weights, tolerance=0)
    assert np.abs(refine(image, logits=logits, class_weights=weights) - with_all).max() < 1e-5


def test_the_layer_asks_for_the_number_of_classes(tmp_path):
    path = tmp_path / "crf.yaml"
    path.write_text("kernel: ['bilateral:30,5,2']\n")
    assert CRFRNN.from_config(path, num_classes=4).num_classes == 4
    with pytest.raises(ValueError, match="num_classes: "):
        CRFRNN.from_config(path)
    path.write_text(PARAMETERS.as_yaml())
    with pytest.raises(ValueError, match=r"num_classes: 4, but .* fitted to 3 classes"):
        CRFRNN.from_config(path, num_classes=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature: 0.5", "kernel: give at least one"),
        ("kernel: ['bilateral:3']", "kernel: 'bilateral:3' is neither"),
        ("kernel: ['spatial:3,3']\ntemperature: 0", "temperature: must be positive"),
        ("kernel: ['spatial:3,3']\ntemperature: 1e-30", "temperature: must be positive, from 1e-06"),
        ("kernel: ['spatial:3,3']\ntemperature: hot", "temperature: must be positive"),
        ("kernel: ['spatial:3,3']\niterations: 1.5", "iterations: "),
        ("kernel: ['spatial:3,3']\nnormalization: most", "normalization: 'most' is none of"),
        ("kernel: ['spatial:3,3']\nclass_weights: [[1, 2], [1, 2]]", "class_weights: 2 rows"),
        ("kernel: ['spatial:3,3']\nclass_weights: [[1, -2]]", "class_weights: must be at least 0"),
        ("kernel: ['spatial:3,3']\nclass_weights: [[1, x]]", "class_weights: must be at least 0"),
        ("kernel: ['spatial:3,3']\nclass_weights: 3", "class_weights: a list"),
        ("kernels: ['spatial:3,3']", "kernels: is none of"),
        ("kernel: spatial:3,3", "kernel: a list is expected, got 'spatial:3,3'"),
        ("preset: [a]", "preset: .* is none of present, crfrnn, "),
        ("- 3", "expected a YAML file of names and values"),
    ],
)
def test_files_that_say_something_else(tmp_path, text, message):
    path = tmp_path / "crf.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=message) as failure:
        CRFParameters.from_yaml(path)
    assert str(path) in str(failure.value)


TAKERS = {
    "parameters": lambda kernels: CRFParameters(kernels).kernels,
    "preset": lambda kernels: CRFParameters.of_preset("deeplab-v1", kernels=kernels).kernels,
    "layer": lambda kernels: CRFRNN(3, kernels=kernels).kernels,
    "layer that learns them": lambda kernels: CRFRNN(3, kernels=kernels, learn_bandwidths=True)._kernels,
    "refine": lambda kernels: refine(*scene(0)[:1], np.full((3, *scene(0)[0].shape[:2]), 1 / 3), kernels=kernels),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_kernels_as_texts_and_one_alone(taker):
    expected = TAKERS[taker]([Bilateral(30, 13, weight=4)])
    for kernels in (Bilateral(30, 13, weight=4), "bilateral:30,13,4", ["bilateral:30,13,4"], (Bilateral(30, 13, 4),)):
        assert np.array_equal(TAKERS[taker](kernels), expected)


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_kernel(taker):
    for kernels in ([None], 3, print, [print], Bilateral, [Bilateral], np.ones(2), [3.0], object()):
        with pytest.raises(ValueError, match=r"^kernels: expected kernels, such as \[Bilateral\(80, 13\), .*, got "):
            TAKERS[taker](kernels)
    for kernels in ("gauss:3", ["spatial:a"], "spatial"):
        with pytest.raises(ValueError, match=r"^kernels: '.*' is neither bilateral:"):
            TAKERS[taker](kernels)
    with pytest.raises(ValueError, match=r"^kernels: give at least one"):
        TAKERS[taker](())


def test_what_cannot_be_written():
    with pytest.raises(ValueError, match="kernel: a Features cannot"):
        CRFParameters((Features(2.0),)).as_yaml()
    with pytest.raises(ValueError, match="kernel: a bandwidth for each"):
        CRFParameters((Spatial((1.0, 2.0)),)).as_yaml()


def test_refine_names_what_does_not_fit():
    image, logits, _ = scene(0)
    with pytest.raises(ValueError, match="temperature: "):
        refine(image, logits=logits, temperature=0)
    with pytest.raises(ValueError, match="class_weights: 2 numbers in a row, but there are 3 classes"):
        refine(image, logits=logits, class_weights=[[1, 2], [1, 2]])
