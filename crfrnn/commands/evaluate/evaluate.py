"""`crfrnn evaluate`: saved networks side by side on labelled photographs, alone and with a CRF; or label maps."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.batch import on_cores, run_all
from crfrnn.commands.device import device_of
from crfrnn.commands.errors import UsageError
from crfrnn.commands.evaluate.label_maps import evaluate_label_maps
from crfrnn.commands.evaluate.options import EvaluateOptions
from crfrnn.commands.evaluate.predictions import evaluate_predictions
from crfrnn.commands.evaluate.results import Result, as_text, by_class, draw_boundary_curves, summary, write_scores
from crfrnn.commands.metrics import Evaluation, doubts
from crfrnn.commands.progress import say, steps_bar
from crfrnn.commands.train.recipe import reach_note
from crfrnn.data.config import read_data_config
from crfrnn.data.datasets import VOID, Pair, SegmentationDataset
from crfrnn.data.images import write_image
from crfrnn.data.splits import open_split
from crfrnn.layer import CRFRNN
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.parameters import CRFParameters, parse_kernel


@on_cores
def evaluate(options: EvaluateOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where they make no CRF."""
    if options.predictions is not None:
        evaluate_predictions(options)
        return
    if options.data is None:
        evaluate_label_maps(options)
        return
    separate = _separate_crf(options)
    config = read_data_config(options.data, options.root)
    split = options.split or config.test
    dataset = open_split(config, split, partial=True)
    place = device_of(options.device)
    networks = [(name, _load(name, dataset, place)) for name in options.model]
    if "separate" in options.modes and config.size:
        height, width = dataset.read(0).mask.shape
        if note := reach_note(separate, config.size, {(width, height): 1}):
            say(f"note: {note}")
    for note in _notes(dataset):
        say(f"note: {note}", flush=True)
    results = []
    for name, network in networks:
        crfs = _crfs(network, options.modes, separate, len(dataset.classes), place)
        if crfs:
            results += measure(network, crfs, dataset, name, options.iterations)
        else:
            say(f"{name}: has no trained CRF, left out")
    if not results:
        raise ValueError(f"crf: none of the models has a {options.crf} CRF; say --crf none or --crf separate")
    names = dataset.classes.names
    say(f"{len(dataset)} images of {config.name}, {split}, on {place}\n")
    tables = [summary(results), by_class(results, names)]
    say("\n\n".join(as_text(table) for table in tables))
    if options.out is not None:
        _write(Path(options.out), results, tables, names)


def measure(
    network: SegmentationNetwork,
    crfs: dict[str, CRFRNN | None],
    dataset: SegmentationDataset,
    name: str,
    iterations: int | None = None,
) -> list[Result]:
    """Evaluate one network with several CRFs on all samples; the network runs once for each image.

    Args:
        network: in evaluation mode.
        crfs: by the name of its kind; None is the network alone.
        dataset: the samples, in the size in which they are measured.
        name: of the network in the results.
        iterations: T of all; each CRF's own where it is left out.
    """
    evaluations = {kind: Evaluation(len(dataset.classes)) for kind in crfs}
    seconds = dict.fromkeys(["network", *crfs], 0.0)
    with torch.inference_mode(), steps_bar(name) as progress:
        for index in range(-1, len(dataset)):  # the first image once more: it loads kernels, and is not counted
            sample = dataset[max(index, 0)]
            images = network.normalize(sample.image[None].to(network.mean.device))
            logits, taken = _timed(lambda images=images: network.unary_logits(images).float())
            seconds["network"] += taken * (index >= 0)
            for kind, crf in crfs.items():
                guide = network.guide(images)
                refined, taken = _timed(
                    lambda crf=crf, logits=logits, guide=guide: (
                        logits if crf is None else crf(logits, guide, iterations)
                    )
                )
                if index >= 0:
                    seconds[kind] += taken
                    evaluations[kind].add(refined[0].max(0).indices.cpu(), sample.mask)
            progress(index + 1, len(dataset))
    return [
        Result(
            model=name,
            crf=kind,
            iterations=0 if crf is None else crf.eval_iterations if iterations is None else iterations,
            scores=evaluations[kind].scores(),
            trimaps=evaluations[kind].trimaps(),
            network_seconds=seconds["network"] / len(dataset),
            crf_seconds=0.0 if crf is None else seconds[kind] / len(dataset),
        )
        for kind, crf in crfs.items()
    ]


def _notes(dataset: SegmentationDataset) -> list[str]:
    """What is to be said before anything is computed; a ValueError where a mask cannot be used."""

    def count(pair: Pair) -> np.ndarray:
        return np.bincount(dataset.class_numbers(pair.mask).ravel(), minlength=VOID + 1)

    finished = run_all(count, dataset.pairs, "reading the truth")
    for _, reason in finished.failures:
        raise ValueError(reason)
    counts, classes = np.sum(finished.results, axis=0), len(dataset.classes)
    left_out = [f"{len(dataset)} images are measured; left out: {dataset.left_out}"] * bool(dataset.left_out)
    return left_out + doubts(counts[:classes].tolist(), int(counts[VOID]), dataset.classes.names)


def _separate_crf(options: EvaluateOptions) -> CRFParameters:
    """Of a CRF that nobody trained; UsageError where the options make none."""
    try:
        kernels = [parse_kernel(text) for text in options.kernel or ()] or None
        return CRFParameters.of_preset(options.preset, kernels=kernels, normalization=options.normalization)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _load(name: str, dataset: SegmentationDataset, device: torch.device) -> SegmentationNetwork:
    network = SegmentationNetwork.from_pretrained(name, map_location=device)
    if network.num_classes not in (None, len(dataset.classes)):
        raise ValueError(f"model: {name} has {network.num_classes} classes, but the data have {len(dataset.classes)}")
    return network


def _crfs(
    network: SegmentationNetwork, modes: list[str], separate: CRFParameters, classes: int, device: torch.device
) -> dict[str, CRFRNN | None]:
    """The CRFs of these kinds that there are for a network."""
    kinds: dict[str, CRFRNN | None] = {}
    for mode in modes:
        if mode == "none":
            kinds[mode] = None
        elif mode == "separate":
            kinds[mode] = CRFRNN.of(separate, classes, kernel_weights="scalar").to(device).eval()
        elif network.crf is not None:
            kinds[mode] = network.crf
    return kinds


def _timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.perf_counter()
    result = work()
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result, time.perf_counter() - start


def _write(folder: Path, results: list[Result], tables: list[list[list[str]]], names: tuple[str, ...]) -> None:
    written = write_scores(folder, [result.as_json(names) for result in results], tables)
    write_image(folder / "boundary.png", draw_boundary_curves(results))
    say(f"\nwrote {', '.join(map(str, (*written, folder / 'boundary.png')))}")
