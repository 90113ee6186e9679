"""Models of transformers: built small from configurations, saved into a folder, loaded from there."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch

from crfrnn.networks.unary import build_unary, recipe_of

transformers = pytest.importorskip("transformers")
NAMES = {0: "sky", 1: "tree", 2: "car"}


def small_config(kind: str):
    """The smallest sensible configuration of an architecture."""
    if kind == "segformer":
        return transformers.SegformerConfig(
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            id2label=NAMES,
        )
    return transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        id2label=NAMES,
    )


def saved(kind: str, folder: Path, processor: dict | None = None) -> str:
    model = transformers.AutoModelForSemanticSegmentation.from_config(small_config(kind))
    model.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


@pytest.mark.parametrize("kind", ["segformer", "dpt"])
def test_any_size_from_a_folder_and_again_without_it(kind: str, tmp_path: Path):
    network = build_unary(f"hf:{saved(kind, tmp_path)}", None).eval()
    assert network.class_names == ["sky", "tree", "car"]
    for size in ((64, 64), (37, 51), (5, 70)):
        assert network(torch.randn(1, 3, *size)).shape == (1, 3, *size)
    for file in tmp_path.iterdir():
        file.unlink()
    assert copy.deepcopy(network).class_names == network.class_names
    again = build_unary(**json.loads(json.dumps(recipe_of(network)))).eval()
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 37, 51)
    torch.testing.assert_close(again(image), network(image))
    assert again.class_names == network.class_names


def test_logits_are_the_models_own(tmp_path: Path):
    network = build_unary(f"hf:{saved('segformer', tmp_path)}", 3).eval()
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(tmp_path).eval()
    image = torch.randn(2, 3, 64, 96)
    own = model(pixel_values=image).logits
    torch.testing.assert_close(
        network(image), torch.nn.functional.interpolate(own, size=(64, 96), mode="bilinear", align_corners=False)
    )


def test_another_number_of_classes_gets_a_new_head_on_the_same_body(tmp_path: Path):
    name = f"hf:{saved('segformer', tmp_path)}"
    body, other = build_unary(name, 3).state_dict(), build_unary(name, 7).eval()
    assert other(torch.randn(1, 3, 32, 32)).shape == (1, 7, 32, 32)
    assert other.class_names is None
    for key, value in other.state_dict().items():
        assert key.startswith("model.decode_head.classifier") or torch.equal(value, body[key]), key


def test_the_image_processor_is_read(tmp_path: Path):
    processor = {"do_normalize": True, "image_mean": [0.5, 0.5, 0.4], "image_std": [0.5, 0.5, 0.6]}
    network = build_unary(f"hf:{saved('segformer', tmp_path / 'a', processor)}", None)
    assert (network.image_mean, network.image_std) == ([0.5, 0.5, 0.4], [0.5, 0.5, 0.6])
    plain = build_unary(f"hf:{saved('segformer', tmp_path / 'b')}", None)
    assert plain.image_mean is None
    bgr = saved("segformer", tmp_path / "c", {"do_normalize": False, "do_flip_channel_order": True})
    network = build_unary(f"hf:{bgr}", None).eval()
    assert network.image_std == [1.0, 1.0, 1.0]
    image = torch.rand(1, 3, 32, 32)
    handed = []
    network.get_submodule("model").register_forward_pre_hook(
        lambda model, inputs, named: handed.append(named), with_kwargs=True
    )
    network(image)
    assert torch.equal(handed[0]["pixel_values"], image.flip(1))
    assert recipe_of(network)["bgr"]


def test_a_model_for_something_else(tmp_path: Path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no semantic-segmentation model of transformers") as caught:
        build_unary(f"hf:{tmp_path}", 3)
    assert "\n" not in str(caught.value)


def test_a_model_whose_weights_are_broken(tmp_path: Path):
    name = saved("segformer", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"is no semantic-segmentation model of transformers \(") as caught:
        build_unary(f"hf:{name}", 3)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model(tmp_path: Path):
    with pytest.raises(ValueError, match=r"the folder holds no config\.json$"):
        build_unary(f"hf:{tmp_path}", 3)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"^unary: .* pip install 'crfrnn\[models\]'$"):
        build_unary("hf:nvidia/segformer-b0-finetuned-ade-512-512", 3)
