"""Trained models that come with the package, and those that it finds elsewhere."""

from pathlib import Path

from crfrnn.networks.network import CONFIG, WEIGHTS, SegmentationNetwork

MODELS = {name: Path(__file__).with_name(name) for name in ("voc", "camvid")}  # each has a model card, README.md
DEFAULT = "voc"


def load_model(name: str | None = None) -> tuple[SegmentationNetwork, str]:
    """A trained network for photographs, and its name.

    Args:
        name: of `MODELS` (no network connection is needed), a folder that training or ``save_pretrained`` left, or a
            name on the hub; `DEFAULT` where it is left out. A folder in the current one that happens to be called
            like one of `MODELS` is meant by ``./name``.

    Raises ValueError, one line, where there is no such model, where it does not load, or where it takes no photographs.

    >>> network, name = load_model()
    >>> name, network.class_names[:3]
    ('voc', ['background', 'aeroplane', 'bicycle'])
    """
    name = name if name is not None else DEFAULT
    source = MODELS.get(name, name)
    run = Path(source)
    if name in MODELS and not (run / WEIGHTS).is_file():
        raise ValueError(
            f"model: this build of crfrnn comes without the weights of {name} (CRFRNN_WITHOUT_MODELS); install one with"
            " them, or name a model of your own"
        )
    if run.is_dir() and not (run / CONFIG).is_file():
        inside = [folder for folder in (run / "model", run / "best") if (folder / CONFIG).is_file()]
        hint = f"; {inside[0]} does" if inside else "; a model is what crfrnn train or save_pretrained left"
        raise ValueError(f"model: {name} holds no {CONFIG}{hint}")
    try:
        network = SegmentationNetwork.from_pretrained(source)
    except ValueError as error:
        hint = "" if run.exists() or "/" in name else f"; with the package comes {', '.join(MODELS)}"
        raise ValueError(f"model: {error}{hint}") from None
    if len(network.mean) != 3:
        raise ValueError(f"model: {name} takes images of {len(network.mean)} channels, a photograph has 3")
    return network, name
