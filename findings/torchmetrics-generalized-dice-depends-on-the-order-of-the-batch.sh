#!/usr/bin/env bash
# torchmetrics 1.9.0: `segmentation.GeneralizedDiceScore` gives the mean over images, so how they are batched should not
# matter, and for its neighbours DiceScore and MeanIoU it does not. The weight of a class is one over its squared size in
# the image, infinite where the image has none of it. Such weights are replaced by the largest in the batch, but the
# table of these is laid out by class where the weights are laid out by image: an image gets the weight of another
# class, which one depends on its place in the batch. Seen, two images of three classes, the same predictions: 0.999 one
# by one, 0.998 as a batch, 0.567 as a batch in the other order; the first image alone is worth 0.995 or 0.135. By itself
# an image without any foreground, predicted without fault, has 0 with include_background=False, where DiceScore leaves
# it out. Classes that an image lacks are the rule with organs, lesions and 21 classes of VOC. A validation score moves
# with the batch size, the sampler and the last, smaller batch, by more than what a refinement gains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torchmetrics==1.9.0 torch==2.13.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import torch
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU


def score(metric, images, batch, **more):
    metric = metric(num_classes=3, input_format="index", **more)
    for start in range(0, len(images), batch):
        predicted, truth = zip(*images[start : start + batch], strict=True)
        metric.update(torch.stack(predicted), torch.stack(truth))
    return metric.compute().item()


halves = torch.zeros(64, 64, dtype=torch.int64)
halves[:, 32:] = 2
wrong = halves.clone()
wrong[10, :20] = 1  # 20 pixels of a class that the image has not
small = torch.zeros(64, 64, dtype=torch.int64)
small[0, :30], small[1, :40] = 1, 2
images = [(wrong, halves), (small, small)]

for metric in DiceScore, MeanIoU, GeneralizedDiceScore:
    found = score(metric, images, 1), score(metric, images, 2), score(metric, images[::-1], 2)
    print(f"{metric.__name__}: one by one {found[0]:.4f}, a batch {found[1]:.4f}, in the other order {found[2]:.4f}")
    if metric is not GeneralizedDiceScore:
        assert max(found) - min(found) < 1e-6
assert found[0] > 0.998
assert found[1] > 0.99
assert found[2] < 0.6
print(f"the first image: {2 * found[1] - 1:.4f} or {2 * found[2] - 1:.4f}")  # the other one is perfect

size = [(wrong == label).sum() + (halves == label).sum() for label in range(3)]
for place, label in enumerate((0, 2)):  # whose weight class 1 gets, at place 0 and at place 1
    largest = 1 / min((truth == label).sum() for _, truth in images) ** 2
    weights = [1 / (halves == 0).sum() ** 2, largest, 1 / (halves == 2).sum() ** 2]
    both = [((wrong == label) & (halves == label)).sum() for label in range(3)]
    shared, whole = (sum(w * n for w, n in zip(weights, counts, strict=True)) for counts in (both, size))
    by_hand = 2 * shared / whole
    print(f"at place {place}, with the weight of class {label}: {by_hand:.4f}")
    assert abs(by_hand - (2 * found[1 + place] - 1)) < 1e-4

empty = [(torch.zeros(8, 8, dtype=torch.int64),) * 2]
perfect = [score(metric, empty, 1, include_background=False) for metric in (GeneralizedDiceScore, DiceScore)]
print("perfect, no foreground: generalized", perfect[0], "DiceScore", perfect[1])
assert perfect[0] == 0
assert torch.tensor(perfect[1]).isnan()
CASE
"$folder/venv/bin/python" -W ignore "$folder/case.py"
