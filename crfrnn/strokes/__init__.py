"""One photo and a few strokes: pixel features, a small network and its CRF-RNN trained on them, labels at full size."""
