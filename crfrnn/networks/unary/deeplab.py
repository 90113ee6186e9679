"""DeepLab-LargeFOV on VGG-16, the network of DeepLab's first paper."""

from torch import Tensor, nn
from torch.nn import functional

from crfrnn.networks.unary.vgg16 import add_convolutions, initialise, stage

STRIDE = 8


class DeepLabLargeFov(nn.Module):
    """VGG-16 at stride 8: the last two poolings do not shrink, and dilation keeps the field of view.

    Poolings are 3 x 3, so that the j-th output lies exactly on pixel 8 j; conv5 is dilated by 2, fc6 is 3 x 3 dilated
    by 12 (the large field of view). Layer names are the Caffe model's, but for fc8, there fc8_voc12. 20.5 million
    parameters for 21 classes.

    Args:
        num_classes: L, number of labels.
        fc_channels: width of fc6 and fc7.

    Shapes: normalised image (B, 3, H, W) of any size -> logits (B, L, H, W), upsampled bilinearly.

    Initial values: He's, fc8 as in the released recipe; start from VGG-16 on ImageNet
    (`crfrnn.load_vgg16`) wherever you can.

    Source: Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", ICLR 2015.

    >>> import torch
    >>> with torch.device("meta"):
    ...     network = DeepLabLargeFov(num_classes=21)
    >>> network(torch.empty(1, 3, 33, 50, device="meta")).shape
    torch.Size([1, 21, 33, 50])
    """

    def __init__(self, num_classes: int, fc_channels: int = 1024):
        super().__init__()
        self.recipe = {"name": "deeplab", "num_classes": num_classes, "fc_channels": fc_channels}
        add_convolutions(self, last_dilation=2)
        self.fc6 = nn.Conv2d(512, fc_channels, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(fc_channels, fc_channels, 1)
        self.fc8 = nn.Conv2d(fc_channels, num_classes, 1)
        for layer in (self.fc6, self.fc7):
            initialise(layer)
        initialise(self.fc8, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        height, width = image.shape[2:]
        # Outputs lie on pixels 0, 8, 16, ...: padded to 8 k + 1, the last of them lies on the last pixel.
        rest = (-(width - 1) % STRIDE, -(height - 1) % STRIDE)
        x = functional.pad(image, (0, rest[0], 0, rest[1]))
        padded = x.shape[2:]
        for number in range(1, 6):
            x = functional.max_pool2d(stage(self, number, x), 3, stride=2 if number <= 3 else 1, padding=1)
        x = functional.avg_pool2d(x, 3, stride=1, padding=1)
        x = functional.dropout(functional.relu(self.fc6(x)), training=self.training)
        x = functional.dropout(functional.relu(self.fc7(x)), training=self.training)
        scores = functional.interpolate(self.fc8(x), size=padded, mode="bilinear", align_corners=True)
        return scores[:, :, :height, :width]
