"""Every network of the table: any size in, logits of that size out, gradients to all of it."""

import pytest
import torch
from torch import Tensor, nn

from crfrnn.networks.unary import UNARIES, build_unary, recipe_of
from crfrnn.networks.unary.deeplab import DeepLabLargeFov
from crfrnn.networks.unary.fcn8s import Fcn8s, bilinear_weights
from crfrnn.networks.unary.full_size import full_size

SMALL = {"fcn8s": {"fc_channels": 8}, "deeplab": {"fc_channels": 8}}
SIZES = [(1, 1), (1, 40), (33, 47), (64, 32)]

# The state of crfasrnn_pytorch's network besides its thirteen convolutions of VGG-16.
FCN8S_SHAPES = {
    "fc6.weight": (4096, 512, 7, 7),
    "fc6.bias": (4096,),
    "fc7.weight": (4096, 4096, 1, 1),
    "fc7.bias": (4096,),
    "score_fr.weight": (21, 4096, 1, 1),
    "score_fr.bias": (21,),
    "score_pool3.weight": (21, 256, 1, 1),
    "score_pool3.bias": (21,),
    "score_pool4.weight": (21, 512, 1, 1),
    "score_pool4.bias": (21,),
    "upscore2.weight": (21, 21, 4, 4),
    "upscore2.bias": (21,),
    "upscore8.weight": (21, 21, 16, 16),
    "upscore_pool4.weight": (21, 21, 4, 4),
}


@pytest.mark.parametrize("name", UNARIES)
@pytest.mark.parametrize("size", SIZES)
def test_any_size_gives_logits_of_that_size(name: str, size: tuple[int, int]):
    with torch.device("meta"):
        network = build_unary(name, num_classes=5).eval()
        assert network(torch.empty(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("name", UNARIES)
def test_a_training_step_reaches_every_parameter(name: str):
    torch.manual_seed(0)
    network = build_unary(name, num_classes=3, **SMALL.get(name, {})).train()
    for parameter in network.parameters():  # scores start at zero in FCN-8s, and would let nothing through
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    logits = network(torch.randn(1, 3, 40, 70))
    logits.square().mean().backward()
    assert torch.isfinite(logits).all()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", UNARIES)
def test_the_recipe_builds_the_same_network(name: str):
    with torch.device("meta"):
        network = build_unary(name, num_classes=4, **SMALL.get(name, {}))
        again = build_unary(**recipe_of(network))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_fcn8s_has_the_names_and_shapes_of_the_published_network():
    with torch.device("meta"):
        state = Fcn8s(num_classes=21).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    convolutions = {name for name in shapes if name.startswith("conv")}
    assert len(convolutions) == 26
    assert shapes["conv1_1.weight"] == (64, 3, 3, 3)
    assert shapes["conv5_3.weight"] == (512, 512, 3, 3)
    assert {name: shape for name, shape in shapes.items() if name not in convolutions} == FCN8S_SHAPES


def test_fcn8s_puts_the_scores_of_pool3_where_they_were_computed():
    """Only score_pool3 speaks, and it says where its input is bright: the logits are bright there, too."""
    network = Fcn8s(num_classes=2, fc_channels=8).eval()
    with torch.no_grad():
        for stage in ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"):
            weight = network.get_parameter(f"{stage}.weight").zero_()
            weight[0, 0, 1, 1] = 1  # channel 0 is handed on as it is
        network.score_pool3.weight[1, 0] = 1
        image = torch.zeros(1, 3, 64, 96)
        image[..., 40:48, 24:32] = 1
        logits = network(image)[0, 1]
    rows, columns = (logits.sum(axis) for axis in (1, 0))
    assert abs(centre(rows) - 43.5) < 4  # a max pooling of 8 pixels blurs by that much at most
    assert abs(centre(columns) - 27.5) < 4


def test_deeplab_lies_exactly_on_every_eighth_pixel():
    network = DeepLabLargeFov(num_classes=2, fc_channels=8).eval()
    scores = []
    network.fc8.register_forward_hook(lambda module, inputs, output: scores.append(output))
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 30, 41))
    assert scores[0].shape[2:] == (5, 6)
    torch.testing.assert_close(logits[..., ::8, ::8], scores[0][..., :4, :])


def test_bilinear_weights_interpolate_a_ramp():
    upsample = nn.ConvTranspose2d(2, 2, 16, stride=8, bias=False)
    with torch.no_grad():
        upsample.weight.copy_(bilinear_weights(2, 16))
        ramp = torch.arange(6.0).expand(1, 2, 6, 6)
        inside = upsample(ramp)[..., 16:-16, 16:-16]
    steps = inside.diff(dim=-1)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / 8))


def test_full_size_takes_what_networks_return():
    logits = torch.randn(2, 3, 4, 5)
    for output in (logits, {"out": logits, "aux": None}, {"loss": None, "logits": logits}):
        assert full_size(output, (4, 5)) is logits
        assert full_size(output, (9, 7)).shape == (2, 3, 9, 7)


@pytest.mark.parametrize("output", [torch.zeros(3, 4, 5), (torch.zeros(1, 3, 4, 5),), {"features": torch.zeros(1)}])
def test_full_size_says_what_it_cannot_read(output: object):
    with pytest.raises(ValueError, match=r"^unary: returned .* out or logits$"):
        full_size(output, (4, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet", "num_classes": 2}, "unary: 'resnet' is none of fast-scnn, fcn8s, deeplab,"),
        ({"name": "hf:", "num_classes": 2}, "unary: 'hf:' is none of"),
        ({"name": "timm:x", "num_classes": 2}, "unary: 'timm:x' is none of"),
        ({"name": "fast-scnn", "num_classes": None}, "num_classes: fast-scnn needs to know how many"),
        ({"name": "fast-scnn", "num_classes": 0}, "num_classes: must be at least 1, got 0"),
        ({"name": "fast-scnn", "num_classes": 2, "depth": 3}, "unary: fast-scnn has no such option .*'depth'"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        build_unary(**arguments)
    assert "\n" not in str(caught.value)


def centre(weights: Tensor) -> float:
    """The centre of gravity of a row of weights."""
    return float((weights * torch.arange(len(weights))).sum() / weights.sum())
