"""Three lines for each verb that can be copied: what `crfrnn VERB --help` shows first."""

EXAMPLES = {
    "data check": (
        "data check configs/camvid.yaml --root ~/data/camvid",
        "data check data.yaml",
        "data check --help all",
    ),
    "demo": ("demo", "demo --out pictures/", "demo --help all"),
    "evaluate": (
        "evaluate --predictions p/ --truth t/",
        "evaluate --predictions p/ --refined r/ --truth t/ --out scores/",
        "evaluate runs/mine/model --data configs/camvid.yaml --root ~/data/camvid --crf none,trained",
    ),
    "fit": (
        "fit photos/ predictions/ truth/ --out crf.yaml",
        "fit photos/ logits/ truth/ --logits --resize --out crf.yaml",
        "fit scans/ predictions/ truth/ --standardize --out crf.yaml",
    ),
    "refine": (
        "refine photo.jpg --probabilities p.npy --out labels.png",
        "refine photos/ --labels coarse/ --out refined/ --overlay looks/",
        "refine photos/ --logits l/ --out refined/ --config crf.yaml",
    ),
    "segment": (
        "segment photo.jpg --out labels.png --overlay look.jpg",
        "segment photo.jpg --cutout cat.png --classes cat",
        "segment photo.jpg --strokes strokes.png --out labels.png",
    ),
    "serve": ("serve", "serve --host 0.0.0.0 --port 8080", "serve --model camvid"),
    "status": ("status labels/", "status segmented/", "status --help all"),
    "train": (
        "train --config configs/camvid.yaml --data.root ~/data/camvid --out runs/camvid",
        "train --config recipe.yaml --out runs/mine --hardware.precision bf16-mixed",
        "train --config configs/camvid.yaml --seed 1 --out runs/camvid-1",
    ),
}
