"""EfficientNet-Lite0 under a small decoder: a network that begins with what ImageNet taught, and runs on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEM, HEAD = 32, 1280
# (expansion, size, stride, channels, how many), Lite's table
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
COARSEST = 32  # stride
GROUPS = 8


class EfficientNetLite0(nn.Module):
    """Features of strides 4 to 32, brought together from the coarsest to the finest; logits at stride 4 or 8.

    Batch normalisation is folded into the convolutions, as in the files that `crfrnn.load_efficientnet_lite0` reads:
    a batch of one photo is trained on as one of eight. Outputs of stride s lie exactly on the pixels 0, s, 2 s, ...;
    the original's padding puts them s - 1 further, which is the same network on a photo that has moved by that.

    Args:
        num_classes: L, number of labels.
        stride: of the logits, 4 or 8; 8 is faster, and leaves more for a CRF to do.
        width: channels of the decoder.
        dropout: share of the channels that training leaves out before the last layer.

    Shapes: normalised image (B, 3, H, W) of any size -> logits (B, L, H, W), upsampled bilinearly from `stride`.

    Initial values: He's; start from ImageNet (`crfrnn.load_efficientnet_lite0`) wherever you can.

    Source: Tan and Le, "EfficientNet", ICML 2019, in the variant Lite (no squeeze and excitation, ReLU6); a decoder
    like that of Lin et al., "Feature Pyramid Networks", CVPR 2017.

    >>> import torch
    >>> network = EfficientNetLite0(num_classes=21).eval()
    >>> network(torch.zeros(1, 3, 45, 61)).shape
    torch.Size([1, 21, 45, 61])
    """

    def __init__(self, num_classes: int, stride: int = 4, width: int = 128, dropout: float = 0.1):
        super().__init__()
        if stride not in (4, 8):
            raise ValueError(f"stride: must be 4 or 8, got {stride!r}")
        self.recipe = {"name": "efficientnet-lite0", "num_classes": num_classes, "stride": stride}
        self.recipe |= {"width": width, "dropout": dropout}
        self.finer = [finer for finer in (16, 8, 4) if finer >= stride]
        self.backbone = Backbone()
        channels = self.backbone.channels
        self.context = lateral(channels[COARSEST], width)
        self.whole = nn.Conv2d(channels[COARSEST], width, 1)
        self.lateral = nn.ModuleDict({str(s): lateral(channels[s], width) for s in self.finer})
        self.merged = nn.ModuleDict({str(s): merging(width) for s in self.finer})
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        height, width = image.shape[2:]
        # padded to 32 k + 1, the last output of every stride lies on the last pixel
        padded = functional.pad(image, (0, -(width - 1) % COARSEST, 0, -(height - 1) % COARSEST))
        x = self.decoded(self.backbone(padded))[self.finer[-1]]
        return spread(self.classifier(self.dropout(x)), padded)[:, :, :height, :width]

    def decoded(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """The decoder's maps (B, width, h, w) of strides 32, 16, 8 and perhaps 4, of the backbone's."""
        coarsest = features[COARSEST]
        x = functional.relu(self.context(coarsest) + self.whole(coarsest.mean(dim=(2, 3), keepdim=True)))
        maps = {COARSEST: x}
        for stride in self.finer:
            skip = self.lateral[str(stride)](features[stride])
            x = maps[stride] = self.merged[str(stride)](spread(x, skip) + skip)
        return maps


class Backbone(nn.Module):
    """The stem, the blocks and the head: image (B, 3, H, W) -> the last features of strides 2, 4, 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList()
        self.channels: dict[int, int] = {}  # of the last block of each stride
        self.steps: list[int] = []  # of the blocks: 2 halves height and width
        channels, at = STEM, 2
        for expansion, size, stride, wider, count in STAGES:
            for number in range(count):
                self.steps.append(stride if number == 0 else 1)
                self.blocks.append(Block(channels, wider, size, self.steps[-1], expansion))
                channels = wider
            at *= stride
            self.channels[at] = channels
        self.head = nn.Conv2d(channels, HEAD, 1)  # what ImageNet's classes were told by
        self.channels[COARSEST] = HEAD
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out" if layer.groups == 1 else "fan_in")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        image = image.contiguous(memory_format=torch.channels_last)  # 1.3 times as fast on a CPU
        x = functional.relu6(self.stem(image))
        features: dict[int, Tensor] = {}
        stride = 2
        for block, step in zip(self.blocks, self.steps, strict=True):
            stride *= step
            x = features[stride] = block(x)
        features[COARSEST] = functional.relu6(self.head(x))
        return features


class Block(nn.Module):
    """Wide and depthwise in the middle, narrow and linear at the ends, with a shortcut where it fits."""

    def __init__(self, channels: int, out_channels: int, size: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.shortcut = stride == 1 and channels == out_channels
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, size, stride, padding=size // 2, groups=wide)
        self.project = nn.Conv2d(wide, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_channels, h / stride, w / stride)."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        with torch.autocast("cpu", enabled=False):  # the gradient takes five times as long in bfloat16 there
            y = self.depthwise(y.to(self.depthwise.weight.dtype) if y.is_cpu else y)
        y = self.project(functional.relu6(y))
        return x + y if self.shortcut else y


def lateral(channels: int, width: int) -> nn.Sequential:
    """Features of one stride as the decoder takes them, normalised: the finer ones are ten times as large as it is."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(GROUPS, width))


def merging(width: int) -> nn.Sequential:
    """A 3 x 3 convolution of each channel on its own, then a 1 x 1 over them; normalised within each photo."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.GroupNorm(GROUPS, width),
        nn.ReLU(inplace=True),
    )


def spread(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, *) bilinearly onto the finer grid of `like`: the first points of both coincide, and the last ones."""
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
