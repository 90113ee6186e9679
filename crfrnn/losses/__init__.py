"""Dense CRFs as losses, for training with few labels: it costs to label alike what is near and alike differently.

    L = sum_ij k_ij (1 - <S_i, S_j>),        k_ij = sum_m w_m k_m(f_i, f_j)

for probabilities S_i (L labels) and the Gaussian kernels of a CRF: the Potts energy that mean-field inference lowers,
here lowered by the network. It needs no label, so that a cross-entropy over scribbles and this loss over everything
train together. docs/scribbles.md has a training loop, weights, and what it is worth.

Sources: Tang et al., "On regularized losses for weakly-supervised CNN segmentation", ECCV 2018 (`DenseCRFLoss`); Zhang
et al., "Reliability does matter: an end-to-end weakly supervised semantic segmentation approach", AAAI 2020 (its gate,
`DenseEnergyLoss`); Obukhov et al., "Gated CRF loss for weakly supervised semantic image segmentation", 2019.
"""

from crfrnn.losses.dense_crf import DenseCRFLoss
from crfrnn.losses.dense_energy import DenseEnergyLoss
from crfrnn.losses.gated_crf import GatedCRFLoss

__all__ = ["DenseCRFLoss", "DenseEnergyLoss", "GatedCRFLoss"]
