"""A network for tests: small, and with everything that training has to keep."""

import torch


class Tiny(torch.nn.Module):
    """Three convolutions with everything that has a state or draws at random: batch normalisation and dropout."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.recipe = {"name": "tiny", "num_classes": num_classes}
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Conv2d(16, num_classes, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)
