"""A guide that the bilateral kernel cannot see is noticed: once, with the repair, wherever it comes in."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, Bilateral, CRFParameters, Spatial, mean_field, refine
from crfrnn.filtering import guide_units
from crfrnn.networks.network import IMAGENET_MEAN, IMAGENET_STD
from tests.support.each import each
from tests.support.problems import photo, potts, random_values

PHOTO = photo("coffee", 12, 16)
UNIT = PHOTO / 255
MEAN, STD = (torch.tensor(values).view(-1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
NORMALISED = (UNIT - MEAN) / STD
LOGITS = random_values(1, 3, 12, 16)
WEIGHTS = torch.tensor([[5.0], [3.0]])

TAKERS: dict[str, Any] = {
    "layer": lambda guide: CRFRNN(3)(LOGITS, guide),
    "layer that learns its bandwidths": lambda guide: CRFRNN(3, learn_bandwidths=True)(LOGITS, guide),
    "mean_field": lambda guide: mean_field(LOGITS, CRFParameters.of_preset("crfrnn").prepare(guide), WEIGHTS, potts(3)),
    "refine": lambda guide: refine(guide[0], logits=LOGITS[0], kernels=[Bilateral(160, 3), Spatial(3)]),
}
CROPS = (250 + PHOTO % 2, PHOTO % 2, 6 + UNIT, UNIT - 9)  # overexposed, dark, of 0..255 minus a mean
WARNING = r"^guide: its values .* are all alike for theta_beta = 3.*multiply colours in 0..1 by 255"


@pytest.fixture(autouse=True)
def nothing_noticed_yet(monkeypatch):
    monkeypatch.setattr(guide_units, "_warned", set())
    monkeypatch.setattr(guide_units, "_asked", set())


@pytest.mark.parametrize("guide", [UNIT, NORMALISED, NORMALISED.double(), UNIT.half()], ids=["0..1", "std", "64", "16"])
@pytest.mark.parametrize("taker", TAKERS)
def test_noticed_once(taker, guide):
    with pytest.warns(UserWarning, match=WARNING):
        TAKERS[taker](guide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TAKERS[taker](guide)


@pytest.mark.parametrize("taker", TAKERS)
def test_no_word_of_pictures(taker):
    """In 0..255, of one colour, dark, of whole numbers, or with a bandwidth in their own units."""
    plain = torch.full_like(PHOTO, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for guide in (PHOTO, PHOTO.byte(), plain, torch.zeros_like(PHOTO), PHOTO / 10, (PHOTO > 99).byte(), *CROPS):
            TAKERS[taker](guide)
        CRFRNN(3, kernels=[Bilateral(160, 0.2)])(LOGITS, UNIT)
        CRFRNN(3, kernels=[Bilateral(160, (0.5, 0.5, 0.4))])(LOGITS, NORMALISED)
        CRFRNN(3, kernels=[Spatial(3)])(LOGITS, UNIT)


def test_each_bandwidth_is_warned_of():
    for theta in (3, 13, (3, 3, 2)):
        with pytest.warns(UserWarning, match=r"^guide: "):
            Bilateral(80, theta).prepare(UNIT)


def test_not_while_compiling_or_exporting():
    layer = CRFRNN(3).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="guide: ")
        torch.export.export(layer, (LOGITS, UNIT), strict=False)
    assert not guide_units._warned


@each("guide", [UNIT, PHOTO])
def test_another_device_is_asked_once(guide, monkeypatch):
    """As the host would wait for it; here the CPU plays the GPU, so that what is asked can be seen."""

    class Elsewhere:
        type = "cuda"

    class Guide:
        device = Elsewhere()

        def __getattr__(self, name):
            return getattr(guide, name)

    monkeypatch.setattr(guide_units, "readable", lambda _: True)
    monkeypatch.setattr(guide_units, "_warned", set())
    monkeypatch.setattr(guide_units, "_asked", set())
    asked = []
    colours = guide / 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, "aminmax", lambda tensor: asked.append(1) or torch.aminmax(tensor))
                guide_units.notice_other_units(Guide(), colours, 3.0)  # type: ignore[arg-type]
    assert 1 <= len(asked) <= 2  # the second for what the warning says


def test_the_labels_were_those_of_a_black_picture():
    """Why: the bilateral kernel's filter of such a guide is that of no guide at all."""
    with pytest.warns(UserWarning, match=WARNING):
        blind = CRFRNN(3)(LOGITS, UNIT).softmax(dim=1)
    black = CRFRNN(3)(LOGITS, torch.zeros_like(UNIT)).softmax(dim=1)
    seeing = CRFRNN(3)(LOGITS, PHOTO).softmax(dim=1)
    assert (blind - black).abs().max() < 0.1 * (seeing - black).abs().max()


def test_numpy_images_of_refine():
    image = np.moveaxis(UNIT[0].numpy(), 0, -1)
    with pytest.raises(ValueError, match=r"^image: values 0.*theta_beta of a preset counts in 0..255"):
        refine(image, logits=LOGITS[0].numpy())
    with pytest.warns(UserWarning, match=r"^guide: "):
        refine(image, logits=LOGITS[0].numpy(), kernels=[Bilateral(80, 13)])
