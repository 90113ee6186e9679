"""`crfrnn refine`, here or, with --ray, on a cluster: the same work for each image."""

from functools import partial
from pathlib import Path

from crfrnn.commands.cluster.folders import Work, check_alone, check_places, kind_of_names, result_places, run_folder
from crfrnn.commands.cluster.images import Alone, Pairs, Results
from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.tars import TAR, TarResults, TarTask
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.refine.files import image_work, refine_files
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.shards import Sharing

WORDS = "refining", "refined"


def refine_anywhere(options: RefineOptions) -> None:
    """What the options ask for, here or on a cluster."""
    if options.ray is None:
        refine_files(options)
        return
    sharing = Sharing(options.ray, options.ray_cpus, options.ray_gpus)
    run_folder(partial(_work, options), sharing, WORDS)


def _work(options: RefineOptions) -> Work:
    one = Path(options.image).exists()  # as without --ray: several have commas between them
    folders = [Place.of(text) for text in ([options.image] if one else options.image.split(","))]
    source = Place.of(options.source)
    places = result_places(
        out=options.out, overlay=options.overlay, probabilities=options.save_probabilities, trace=options.trace
    )
    check_places([*folders, source], places)
    together = source == folders[0]
    names = Names(folders[0].names(besides=[*places.values()] if together else [*places.values(), source]))
    kind = kind_of_names(names, folders[0])
    do = image_work(options, kind)
    read = {"labels": kind.label_suffixes, "foreground": kind.foreground_suffixes}
    suffixes = read.get(options.kind, kind.prediction_suffixes)
    if shards := names.of((TAR,)):
        if not together or options.kind in ("labels", "foreground"):
            raise UsageError("ray: shards (.tar) hold the probabilities or logits of their images; give them for both")
        check_alone(shards, names, kind, folders[0])
        task = TarTask(do, folders, None, TarResults(places, kind), options.overwrite, suffixes)
        return Work(task, Alone(shards), "shards")
    task = Task(do, folders, source, Results(places, kind), options.overwrite)
    if options.kind == "labels" and kind.holds_labels and together:
        return Work(task, Alone(names.of(kind.suffixes), with_predictions=True))
    if together:
        predictions, of_images = names.of(suffixes), [suffix for suffix in kind.suffixes if suffix not in suffixes]
    else:
        predictions = Names(source.names(besides=[*places.values(), *folders])).of(suffixes)
        of_images = kind.suffixes
    if not predictions:
        raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
    return Work(task, Pairs(names.of(of_images), predictions, folders[0]))
