"""Choose the parameters of a dense CRF from labelled images: what `crfrnn.fit` and ``crfrnn fit`` are made of."""
