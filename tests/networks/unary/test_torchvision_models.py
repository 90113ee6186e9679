"""torchvision's models through a stand-in, as torchvision itself cannot be installed beside every torch."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from crfrnn.networks.unary import build_unary, recipe_of


class DeepLabV3(nn.Module):
    """What torchvision's models look like from outside: a dictionary at a lower resolution, perhaps a second head."""

    def __init__(self, num_classes: int, aux_loss: bool):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.classifier = nn.Conv2d(4, num_classes, 1)
        self.aux_classifier = nn.Conv2d(4, num_classes, 1) if aux_loss else None

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(x)
        return {"out": self.classifier(features)}


def get_model(name: str, weights=None, weights_backbone=None, num_classes: int = 21, aux_loss: bool | None = None):
    if name != "deeplabv3_resnet50":
        raise ValueError(f"Unknown model {name}")
    return DeepLabV3(num_classes, aux_loss=weights is not None or bool(aux_loss))


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchvision")
    module.__dict__["models"] = SimpleNamespace(get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", module)


@pytest.mark.usefixtures("torchvision")
def test_a_model_by_name_and_again_by_its_recipe():
    network = build_unary("torchvision:deeplabv3_resnet50", 21, weights="DEFAULT").eval()
    image = torch.randn(1, 3, 45, 61)
    assert network(image).shape == (1, 21, 45, 61)
    again = build_unary(**recipe_of(network)).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(image), network(image))


@pytest.mark.usefixtures("torchvision")
def test_an_unknown_model():
    with pytest.raises(ValueError, match=r"^unary: torchvision cannot build fcn_vgg: Unknown model fcn_vgg$"):
        build_unary("torchvision:fcn_vgg", 21)


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=r"^unary: torchvision is not installed; see pytorch.org"):
        build_unary("torchvision:deeplabv3_resnet50", 21)


def test_with_a_torchvision_that_does_not_fit_torch(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("crfrnn.networks.unary.torchvision_models.importlib.import_module", broken)
    with pytest.raises(ValueError, match=r"^unary: torchvision does not work with this torch .*nms does not exist"):
        build_unary("torchvision:deeplabv3_resnet50", 21)
