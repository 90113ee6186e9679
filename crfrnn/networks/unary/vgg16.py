"""The 13 convolutions of VGG-16, which `fcn8s` and `deeplab` share.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
configuration D. The layers have the names of the authors' Caffe model: conv1_1 to conv5_3.
"""

from torch import Tensor, nn
from torch.nn import functional

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Where a convolution stands in torchvision's `features`: each is followed by a ReLU, each stage by a pooling.
TORCHVISION = {
    "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
    "conv4_1": 17, "conv4_2": 19, "conv4_3": 21, "conv5_1": 24, "conv5_2": 26, "conv5_3": 28,
}  # fmt: skip


def add_convolutions(network: nn.Module, first_padding: int = 1, last_dilation: int = 1) -> None:
    """Give a network its layers conv1_1 to conv5_3, 3 x 3 each, with He's initial values.

    Args:
        network: the module that gets them as attributes.
        first_padding: of conv1_1; FCN pads by 100.
        last_dilation: of the three in stage 5; DeepLab dilates by 2.
    """
    channels = 3
    for stage, widths in enumerate(STAGES, 1):
        dilation = last_dilation if stage == len(STAGES) else 1
        for number, width in enumerate(widths, 1):
            padding = first_padding if stage == number == 1 else dilation
            layer = nn.Conv2d(channels, width, 3, padding=padding, dilation=dilation)
            initialise(layer)
            network.add_module(f"conv{stage}_{number}", layer)
            channels = width


def initialise(layer: nn.Conv2d, std: float | None = None) -> None:
    """Normal weights, He's for a convolution in front of a ReLU or of the given deviation, and zero biases."""
    if std is None:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def stage(network: nn.Module, number: int, x: Tensor) -> Tensor:
    """The convolutions and ReLUs of one stage, 1 to 5, without its pooling."""
    for convolution in range(1, len(STAGES[number - 1]) + 1):
        x = functional.relu(network.get_submodule(f"conv{number}_{convolution}")(x))
    return x
