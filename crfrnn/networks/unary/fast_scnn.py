"""Fast-SCNN, the small network: 1.1 million parameters, quick to train from nothing on a CPU.

Why this one: `crfrnn train` on a CPU pays for every second. Forward and backward of eight 240 x 180 photographs on
one thread took 0.22 s, of DABNet 0.97 s, of ERFNet's encoder 1.2 s; after 110 s of training from scratch on
CamVid, 240 x 180, validation mIoU was 41 % against DABNet's 34 %. Its output has stride 8, coarse enough for a CRF
to matter.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FastScnn(nn.Module):
    """Two branches that share their first layers: details at stride 8, context at stride 32, then added.

    Args:
        num_classes: L, number of labels.
        dropout: share of the channels' values that training leaves out before the last layer.

    Shapes: normalised image (B, 3, H, W) of any size -> logits (B, L, H, W), upsampled bilinearly from stride 8.

    Source: Poudel, Liwicki and Cipolla, "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019. The pooled
    branches of the pyramid have biases in place of batch normalisation, so that a batch of one photo can be trained on.

    >>> network = FastScnn(num_classes=11).eval()
    >>> network(torch.zeros(1, 3, 45, 61)).shape
    torch.Size([1, 11, 45, 61])
    """

    def __init__(self, num_classes: int, dropout: float = 0.1):
        super().__init__()
        self.recipe = {"name": "fast-scnn", "num_classes": num_classes, "dropout": dropout}
        self.downsample = nn.Sequential(convolution(3, 32, 3, stride=2), separable(32, 48, 2), separable(48, 64, 2))
        self.context = nn.Sequential(
            *bottlenecks(64, 64, count=3, stride=2),
            *bottlenecks(64, 96, count=3, stride=2),
            *bottlenecks(96, 128, count=3, stride=1),
            PyramidPooling(128, 128),
        )
        self.fuse_context = nn.Sequential(
            convolution(128, 128, 3, groups=128), convolution(128, 128, 1, activation=False)
        )
        self.fuse_details = convolution(64, 128, 1, activation=False)
        self.classifier = nn.Sequential(
            separable(128, 128), separable(128, 128), nn.Dropout(dropout), nn.Conv2d(128, num_classes, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        details = self.downsample(image)
        context = scaled_to(self.context(details), details)
        fused = functional.relu(self.fuse_context(context) + self.fuse_details(details))
        return scaled_to(self.classifier(fused), image)


class PyramidPooling(nn.Module):
    """Means over the whole map and over its 2 x 2, 3 x 3 and 6 x 6 parts, beside the map itself."""

    def __init__(self, channels: int, out_channels: int, parts: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        self.parts = parts
        width = channels // len(parts)
        self.branches = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in parts)
        self.merge = convolution(channels + width * len(parts), out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h, w)."""
        pooled = (functional.adaptive_avg_pool2d(x, part) for part in self.parts)
        branches = [functional.relu(branch(mean)) for branch, mean in zip(self.branches, pooled, strict=True)]
        return self.merge(torch.cat([x, *(scaled_to(branch, x) for branch in branches)], dim=1))


class Bottleneck(nn.Module):
    """Wide and depthwise in the middle, narrow and linear at the ends (MobileNetV2), with a shortcut where it fits."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int = 6):
        super().__init__()
        width = channels * expansion
        self.shortcut = stride == 1 and channels == out_channels
        self.layers = nn.Sequential(
            convolution(channels, width, 1),
            convolution(width, width, 3, stride=stride, groups=width),
            convolution(width, out_channels, 1, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h / stride, w / stride)."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


def bottlenecks(channels: int, out_channels: int, count: int, stride: int) -> list[Bottleneck]:
    """`count` in a row; the first one changes width and stride."""
    rest = (Bottleneck(out_channels, out_channels, stride=1) for _ in range(count - 1))
    return [Bottleneck(channels, out_channels, stride), *rest]


def convolution(
    channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, if wanted, ReLU."""
    layer = nn.Conv2d(channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels), *([nn.ReLU(inplace=True)] if activation else []))


def separable(channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution of each channel on its own, then a 1 x 1 over the channels."""
    return nn.Sequential(
        convolution(channels, channels, 3, stride=stride, groups=channels), convolution(channels, out_channels, 1)
    )


def scaled_to(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, *) bilinearly at the height and width of `like`."""
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
