"""The server without a browser: its API, its gate, its bounds, and how it starts and stops."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from crfrnn import CRFRNN, Bilateral, SegmentationNetwork, Spatial, build_unary, refine
from crfrnn.cli import main
from crfrnn.data.labels import LabelStyle
from crfrnn.networks.models import load_model
from crfrnn.parameters import PRESETS, CRFParameters, parse_kernel
from crfrnn.web.downloads import found, settings_yaml
from crfrnn.web.explore import Exploration, Settings
from crfrnn.web.gate import alias
from crfrnn.web.limits import Limits
from crfrnn.web.studio import Studio
from crfrnn.web.wording import Refusal
from crfrnn.web.workspaces import Workspace, Workspaces
from tests.support.places import ROOT
from tests.support.server import missing, serving, status

with_gradio = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def studio() -> Studio:
    network, name = load_model("camvid")  # the faster one
    return Studio(network, name, Limits(pixels=6000))


def edge_colours(pixels: np.ndarray, inside: np.ndarray) -> float:
    """The mean difference of colour across the edge of a region (H, W)."""
    across = inside[:, 1:] != inside[:, :-1]
    return float(np.abs(np.diff(pixels.astype(int), axis=1)).sum(axis=2)[across].mean())


@pytest.fixture
def photo(tmp_path) -> str:
    path = tmp_path / "photo.png"
    Image.fromarray(data.chelsea()[40:140, 60:210]).save(path)
    return str(path)


class TestStudio:
    def test_a_photo(self, studio, photo, tmp_path):
        view = studio.segment(photo, "en")
        assert view.before.shape == view.after.shape == (63, 95, 3)
        assert "150 × 100" in view.summary
        labels, overlay, probabilities, settings, cutout = studio.files(view.key, tmp_path)
        with Image.open(labels) as image:
            assert image.size == (150, 100)
        with np.load(probabilities) as saved:
            assert saved["probabilities"].shape == (11, 63, 95)
        assert "a learned one" in settings.read_text()
        assert overlay.exists()
        assert cutout.exists()

    def test_downloads_have_the_photos_size_and_pixels(self, studio, tmp_path):
        """As `crfrnn segment` would cut it out, and not a smaller copy enlarged."""
        pixels = data.chelsea()
        path = tmp_path / "photo.png"
        Image.fromarray(pixels).save(path)
        key = studio.segment(str(path), "en").key
        workspace = studio.workspaces.find(key)
        chosen = [found(workspace)[0][1]]
        files = {file.name: file for file in studio.files(key, tmp_path, chosen)}
        with Image.open(files["cutout.png"]) as image, Image.open(files["labels.png"]) as labels:
            assert (image.mode, image.size, labels.size) == ("RGBA", (451, 300), (451, 300))
            cutout, inside = np.asarray(image), np.isin(np.asarray(labels), chosen)
        opaque = cutout[..., 3] > 0
        np.testing.assert_array_equal(cutout[opaque][:, :3], pixels[opaque])
        assert (inside == (cutout[..., 3] > 127)).mean() > 0.99  # several labels may share what is left
        settling = workspace.settling
        assert settling is not None
        enlarged = Image.fromarray(settling.labels[-1]).resize((451, 300), Image.Resampling.NEAREST)
        assert edge_colours(pixels, inside) > edge_colours(pixels, np.isin(np.asarray(enlarged), chosen))
        assert "cutout.png" not in {file.name for file in studio.files(key, tmp_path, [])}
        with pytest.raises(Refusal, match="outside of their range"):
            studio.files(key, tmp_path, ["1"])
        path.unlink()
        with pytest.raises(Refusal, match="start again with the photo"):
            studio.files(key, tmp_path)

    @pytest.mark.parametrize(("name", "known"), [("chelsea", True), ("astronaut", True), ("rocket", False)])
    def test_what_the_model_does_not_know_is_said(self, name, known, tmp_path):
        studio = Studio(*load_model("voc"), Limits())
        Image.fromarray(getattr(data, name)()).save(tmp_path / "photo.png")
        said = studio.segment(str(tmp_path / "photo.png"), "en").summary
        assert ("paint strokes on the photo" in said) is not known

    def test_the_learned_crf_is_the_models_own(self, studio):
        pixels = data.chelsea()  # larger than what the network sees
        exploration = Exploration(pixels, studio.network.photo_logits(pixels), studio.network.crf)
        expected = studio.network.probabilities(pixels)
        assert exploration.learned is not None
        got = exploration.run(exploration.learned)
        assert np.abs(got.marginals - expected[got.occurring]).max() < 0.02  # labels below the tolerance are left out
        assert (got.labels[-1] == expected.argmax(0)).mean() > 0.995

    def test_settings_are_those_of_refine(self, studio, photo):
        key = studio.segment(photo, "en").key
        view = studio.start_from(key, "deeplab-v1", "en")
        workspace = studio.workspaces.find(key)
        settling, exploration = workspace.settling, workspace.exploration
        logits = exploration.logits[0].numpy()
        expected = refine(exploration.photo, logits=logits, preset="deeplab-v1", tolerance=0)
        np.testing.assert_allclose(settling.marginals, expected, atol=1e-5)
        assert len(settling.change) == view.settings.iterations == 10
        # the file on the photo as it came: bandwidths grow with it
        options = yaml.safe_load(settings_yaml(workspace))
        bilateral, spatial = (parse_kernel(text) for text in options["kernel"])
        assert isinstance(bilateral, Bilateral)
        assert isinstance(spatial, Spatial)
        assert bilateral.theta_alpha == pytest.approx(49 * (150 * 100 / (63 * 95)) ** 0.5, rel=1e-4)
        assert (bilateral.theta_beta, bilateral.weight, spatial.weight) == (5, 4, 3)

    def test_settings_of_a_learned_crf_have_its_weights_for_each_class(self, studio, photo, tmp_path):
        workspace = studio.workspaces.find(studio.segment(photo, "en").key)
        (tmp_path / "settings.yaml").write_text(settings_yaml(workspace))
        parameters = CRFParameters.from_yaml(tmp_path / "settings.yaml")
        means = np.array([[kernel.weight] for kernel in parameters.kernels])
        learned = studio.network.crf.kernel_weights.detach().numpy()
        np.testing.assert_allclose(means * np.array(parameters.class_weights), learned, rtol=1e-4)

    def test_without_iterations_the_crf_changed_nothing(self, studio, photo):
        key = studio.segment(photo, "en").key
        settings = vars(studio.workspaces.find(key).exploration.learned)
        assert "Placing the edges changed" in studio.change(key, settings | {"iterations": 1}, "learned", "en").summary
        summary = studio.change(key, settings | {"iterations": 0}, "learned", "en").summary
        assert "changed" not in summary
        assert "No steps" in summary

    def test_the_lattice_is_kept_until_a_bandwidth_changes(self, studio, photo, monkeypatch):
        key = studio.segment(photo, "en").key
        exploration = studio.workspaces.find(key).exploration
        settings = exploration.learned
        before = list(exploration._lattices)
        studio.change(key, vars(settings) | {"bilateral_weight": 5.0, "iterations": 2}, "learned", "en")
        assert list(exploration._lattices) == before
        studio.change(key, vars(settings) | {"theta_beta": 20.0}, "learned", "en")
        assert len(exploration._lattices) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"theta_alpha": float("nan")},
            {"theta_beta": 0},
            {"iterations": 1000},
            {"iterations": -1},
            {"bilateral_weight": 1e9},
            {"normalization": "best"},
            {"theta_gamma": "x"},
            {"unknown": 1},
        ],
        ids=str,
    )
    def test_settings_by_hand_are_refused(self, studio, photo, change):
        key = studio.segment(photo, "en").key
        with pytest.raises(Refusal) as caught:
            studio.change(key, vars(Settings.of(PRESETS["crfrnn"])) | change, "crfrnn", "en")
        assert caught.value.key == "wrong_settings"

    def test_a_visitor_cannot_guess_anothers_picture(self, studio, photo):
        key = studio.segment(photo, "en").key
        for other in ("", "0", key[:-1], key + "A"):
            with pytest.raises(Refusal):
                studio.view(other, 0, "en")

    def test_other_kernels_are_refused_at_the_start(self):
        network = SegmentationNetwork(build_unary("fast-scnn", num_classes=3), CRFRNN(3, kernels=[Spatial(3)]))
        with pytest.raises(ValueError, match=r"^kernels: expected one Bilateral and one Spatial"):
            Studio(network, "mine", Limits())


def test_workspaces_are_bounded():
    def workspace() -> Workspace:
        exploration = Exploration(np.zeros((200, 200, 3), np.uint8), torch.randn(1, 3, 200, 200))
        made = Workspace("photo", exploration, np.zeros((200, 200), np.uint8), (200, 200), LabelStyle.voc(3))
        made.settling = exploration.run(Settings.of(PRESETS["crfrnn"]))
        return made

    one = workspace()
    whole, _ = one.nbytes, one.exploration.forget()
    kept = Workspaces(megabytes=1)
    kept.most = whole + 2 * one.nbytes
    keys = [kept.add(workspace()) for _ in range(8)]
    assert 1 < len(kept) < 8
    assert kept.nbytes <= kept.most
    kept.find(keys[-1])
    with pytest.raises(Refusal):
        kept.find(keys[0])
    replaced = kept.add(workspace(), instead=keys[-1])
    with pytest.raises(Refusal):
        kept.find(keys[-1])
    assert kept.find(replaced)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple]:
    if missing():
        pytest.skip(missing())
    limits = Limits(pixels=6000, upload_megabytes=1)
    with serving(limits) as running:
        yield running


class TestGate:
    def test_the_page_names_no_other_host_and_no_path(self, server):
        address, _, folder = server
        code, body, headers = status(address + "/")
        assert code == 200
        assert b"https://" not in b"".join(re.findall(rb"<(?:link|script|meta)\b[^>]*>", body))
        assert str(folder).encode() not in body
        assert str(ROOT).encode() not in body
        assert "default-src 'self'" in headers["content-security-policy"]

    def test_config_has_no_path_of_the_server(self, server):
        address, _, folder = server
        for place in ("/config", "/gradio_api/info", "/theme.css"):
            code, body, _ = status(address + place)
            assert code == 200
            assert str(folder).encode() not in body, place
            assert b"site-packages" not in body

    def test_closed_doors(self, server):
        doors = ("/monitoring", "/docs", "/openapi.json/../docs", "/login", "/gradio_api/deep_link", "/pwa_icon/9")
        below = (
            "proxy=https://example.com/",
            "process_recording",
            "runs",
            "vibe-code",
            "stream/a",
            "run/segment",
            "user",
        )
        for place in (*doors, *(f"/gradio_api/{name}" for name in below)):
            assert status(server[0] + place)[0] in (404, 403), place

    def test_other_files_are_not_served(self, server):
        for path in ("/etc/passwd", str(ROOT / "pyproject.toml"), "../../../etc/passwd"):
            code, body, _ = status(f"{server[0]}/gradio_api/file={path}")
            assert code in (403, 404)
            assert b"root:" not in body
            assert b"build-system" not in body

    def test_large_requests_are_refused(self, server):
        for place, claimed in (("queue/join", 3_000_000), ("upload", 4_000_000), ("component_server", 10**12)):
            connection = http.client.HTTPConnection(urlsplit(server[0]).netloc, timeout=60)
            connection.putrequest("POST", f"/gradio_api/{place}")
            connection.putheader("Content-Length", str(claimed))
            connection.endheaders()
            assert connection.getresponse().status == 413
            connection.close()

    def test_an_alias_has_the_length_of_the_path(self):
        for path in (Path("/tmp/crfrnn-serve-abcd1234"), Path("/var/tmp/x/crfrnn-serve-q")):
            assert len(alias(path)) == len(str(path))


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server[0], verbose=False)


class TestAPI:
    def test_refine(self, client, photo, tmp_path, server):
        from gradio_client import handle_file

        scores = np.random.default_rng(0).random((3, 100, 150)).astype(np.float32)
        np.save(tmp_path / "p.npy", scores / scores.sum(0))
        found = client.predict(
            handle_file(photo), handle_file(str(tmp_path / "p.npy")), "pydensecrf", api_name="/refine"
        )
        names = [Path(path).name for path in found]
        assert names == ["labels.png", "overlay.jpg", "probabilities.npz", "settings.yaml", "cutout.png"]
        with Image.open(found[0]) as labels:
            assert labels.size == (150, 100)
        assert "normalization: symmetric" in Path(found[3]).read_text()
        assert len(server[1].workspaces) == 0

    def test_segment_and_strokes(self, client, photo, tmp_path):
        from gradio_client import handle_file

        assert len(client.predict(handle_file(photo), api_name="/segment")) in (4, 5)
        empty = tmp_path / "none.png"
        Image.new("RGBA", (150, 100)).save(empty)
        with pytest.raises(Exception, match="Nothing is drawn"):
            client.predict(handle_file(photo), handle_file(str(empty)), api_name="/segment_strokes")

    def test_what_fails_is_said_in_a_sentence(self, client, tmp_path):
        from gradio_client import handle_file

        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no picture")
        with pytest.raises(Exception, match="not a picture that can be read") as caught:
            client.predict(handle_file(str(broken)), api_name="/segment")
        assert "Traceback" not in str(caught.value)

    def test_files_of_the_server_are_no_input(self, server):
        for path in (ROOT / "docs" / "demo.png", Path("/etc/passwd"), server[2] / "cat.jpg"):
            file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
            place = f"{server[0]}/gradio_api/call/segment"
            sent = {"content-type": "application/json"}
            code, body, _ = status(place, json.dumps({"data": [file]}).encode(), **sent)
            if path.name == "cat.jpg":  # what makes the others fail is that they lie elsewhere
                assert code == 200
                assert b"event: complete" in status(f"{place}/{json.loads(body)['event_id']}")[1]
            elif code == 200:
                answer = status(f"{place}/{json.loads(body)['event_id']}")[1]
                assert b"event: error" in answer
                assert str(ROOT).encode() not in answer

    def test_only_these_are_offered(self, client):
        assert sorted(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == [
            "/refine",
            "/segment",
            "/segment_strokes",
        ]


def test_wrong_usage(capsys):
    for arguments, word in (
        (["--port", "99999"], "port"),
        (["--pixels", "0"], "pixels"),
        (["--at-once", "0"], "at_once"),
    ):
        assert main(["serve", *arguments]) == 2
        assert f"crfrnn serve: {word}: must" in capsys.readouterr().err
    assert main(["serve", "--model", "/no/such/model"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# heeds Ctrl-C also where the tests run in the background of a shell, which makes its jobs ignore it
HEEDING = """import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("crfrnn", run_name="__main__")"""


@with_gradio
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_stops_it_cleanly(tmp_path, name):
    command = [sys.executable, "-c", HEEDING, "serve", "--port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving voc on http://127.0.0.1:"), line
            assert any(tmp_path.glob("crfrnn-serve-*"))
            process.send_signal(getattr(signal, name))
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "deleted" in out
    assert "Traceback" not in err
    assert err.count("note: the model voc is for research and other non-commercial use") == 1
    assert not list(tmp_path.glob("crfrnn-serve-*"))


def test_the_space_needs_what_the_package_needs():
    text = (ROOT / "pyproject.toml").read_text()
    wanted = set((ROOT / "demo" / "requirements.txt").read_text().split())
    for requirement in wanted:
        assert f'"{requirement}"' in text
    block = text.split("dependencies = [")[1].split("\n]")[0]
    assert {line.strip().strip('",') for line in block.splitlines() if line.strip()} <= wanted
    card = yaml.safe_load((ROOT / "demo" / "README.md").read_text().split("---")[1])
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py")
    assert f"gradio=={card['sdk_version']}" in (ROOT / "constraints.txt").read_text().split()
