"""FCN-8s on VGG-16, the network in front of the CRF in Zheng et al."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from crfrnn.networks.unary.vgg16 import add_convolutions, initialise, stage


class Fcn8s(nn.Module):
    """Scores at strides 32, 16 and 8, added up by learned upsampling: coarse what, finer where.

    Layer names, shapes, padding and crops are those of the released CRF-RNN models; in the Caffe model score_fr,
    upscore2, upscore_pool4 and upscore8 are called score-fr, score2, score4 and upsample. 134 million parameters
    for 21 classes.

    Args:
        num_classes: L, number of labels.
        fc_channels: width of fc6 and fc7; the published networks have 4096, fewer save most of the memory.

    Shapes: normalised image (B, 3, H, W) of any size -> logits (B, L, H, W). conv1_1 pads by 100 pixels, so that
    even one pixel survives five poolings and the 7 x 7 kernel of fc6.

    Initial values: the convolutions He's, the scores zero, the upsampling bilinear, as in the paper; start from
    VGG-16 on ImageNet (`crfrnn.load_vgg16`) wherever you can.

    Source: Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015.

    >>> with torch.device("meta"):
    ...     network = Fcn8s(num_classes=21)
    >>> network(torch.empty(1, 3, 33, 50, device="meta")).shape
    torch.Size([1, 21, 33, 50])
    """

    def __init__(self, num_classes: int, fc_channels: int = 4096):
        super().__init__()
        self.recipe = {"name": "fcn8s", "num_classes": num_classes, "fc_channels": fc_channels}
        add_convolutions(self, first_padding=100)
        self.fc6 = nn.Conv2d(512, fc_channels, 7)
        self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
        self.score_fr = nn.Conv2d(fc_channels, num_classes, 1)
        self.score_pool4 = nn.Conv2d(512, num_classes, 1)
        self.score_pool3 = nn.Conv2d(256, num_classes, 1)
        self.upscore2 = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2)
        self.upscore_pool4 = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, bias=False)
        self.upscore8 = nn.ConvTranspose2d(num_classes, num_classes, 16, stride=8, bias=False)
        for layer in (self.fc6, self.fc7):
            initialise(layer)
        for layer in (self.score_fr, self.score_pool4, self.score_pool3):
            initialise(layer, std=0)
        for layer in (self.upscore2, self.upscore_pool4, self.upscore8):
            with torch.no_grad():
                layer.weight.copy_(bilinear_weights(num_classes, layer.kernel_size[0]))
                if layer.bias is not None:
                    layer.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        pooled = image
        pools = []
        for number in range(1, 6):
            pooled = functional.max_pool2d(stage(self, number, pooled), 2, ceil_mode=True)
            pools.append(pooled)
        pool3, pool4, pool5 = pools[2:]
        hidden = functional.dropout(functional.relu(self.fc6(pool5)), training=self.training)
        hidden = functional.dropout(functional.relu(self.fc7(hidden)), training=self.training)
        # The crops undo the padding: at stride 32 it is used up by fc6, at 16 and 8 the scores begin further in.
        score = self.upscore2(self.score_fr(hidden))
        score = self.upscore_pool4(score + crop(self.score_pool4(pool4), 5, score))
        score = self.upscore8(score + crop(self.score_pool3(pool3), 9, score))
        return crop(score, 31, image)


def crop(values: Tensor, offset: int, like: Tensor) -> Tensor:
    """The part of (B, C, h, w) that begins at row and column `offset` and has the height and width of `like`."""
    height, width = like.shape[2:]
    return values[:, :, offset : offset + height, offset : offset + width]


def bilinear_weights(channels: int, size: int) -> Tensor:
    """(channels, channels, size, size): a transposed convolution that interpolates each channel on its own.

    >>> bilinear_weights(1, 4)[0, 0, 1].tolist()
    [0.1875, 0.5625, 0.5625, 0.1875]
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    tent = 1 - (torch.arange(size, dtype=torch.float32) - centre).abs() / factor
    return torch.eye(channels)[:, :, None, None] * torch.outer(tent, tent)
