"""Files by folder or by name on the hub, and every way in which that fails, without any connection."""

from pathlib import Path

import pytest
from huggingface_hub import errors

from crfrnn.networks import hub


def test_a_folder(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert hub.find_file(tmp_path, "config.json") == tmp_path / "config.json"
    with pytest.raises(ValueError, match=r"the folder holds no model\.safetensors$"):
        hub.find_file(tmp_path, "model.safetensors")


def test_a_name_is_asked_for_with_its_options(monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def download(name: str, file: str, **options: object) -> str:
        asked.update(options, name=name, file=file)
        return "/cache/config.json"

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert hub.find_file("someone/roads", "config.json", revision="main") == Path("/cache/config.json")
    assert asked == {"name": "someone/roads", "file": "config.json", "revision": "main"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.LocalEntryNotFoundError("..."), "no such folder, .*out of reach; check the connection"),
        (errors.EntryNotFoundError("404\nnone"), r"on the hub, but without config\.json"),
        (errors.HFValidationError("bad\nname"), r"neither a folder nor a name on the hub \(owner/name\)"),
        (OSError("Repository Not Found\nfor url"), r"the hub does not give it \(Repository Not Found\)"),
        (OSError(), r"the hub does not give it \(OSError\)"),
    ],
)
def test_failures_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str):
    def download(name: str, file: str) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(ValueError, match=f"^some/where: {message}$|^some/where: .*{message}") as caught:
        hub.find_file("some/where", "config.json")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_name_never_asks_the_hub():
    with pytest.raises(ValueError, match="neither a folder nor a name on the hub"):
        hub.find_file("/no/such/folder", "config.json")
