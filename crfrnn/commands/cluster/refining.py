"""`crfrnn refine`, here or, with --ray, on a cluster: the same work for each image."""

from pathlib import Path

from crfrnn.commands.cluster.folders import Work, check_alone, check_places, kind_of_names, result_places, run_folder
from crfrnn.commands.cluster.images import Alone, Pairs, Results
from crfrnn.commands.cluster.places import Names, Place
from crfrnn.commands.cluster.tars import TAR, TarResults, TarTask
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import waiting
from crfrnn.commands.refine.files import image_work, refine_files
from crfrnn.commands.refine.options import RefineOptions

WORDS = "refining", "refined"


def refine_anywhere(options: RefineOptions) -> None:
    """What the options ask for, here or on a cluster."""
    if options.ray is None:
        refine_files(options)
        return
    with waiting("listing what there is to do"):
        work = _work(options)
    run_folder(work, options.ray, options.ray_cpus, WORDS)


def _work(options: RefineOptions) -> Work:
    one = Path(options.image).exists()  # as without --ray: several have commas between them
    folders = [Place.of(text) for text in ([options.image] if one else options.image.split(","))]
    source = Place.of(options.source)
    places = result_places(
        out=options.out, overlay=options.overlay, probabilities=options.save_probabilities, trace=options.trace
    )
    check_places([*folders, source], places)
    names = [*folders[0].names(besides=places.values())]
    kind = kind_of_names(names, folders[0])
    do = image_work(options, kind)
    read = {"labels": kind.label_suffixes, "foreground": kind.foreground_suffixes}
    suffixes = read.get(options.kind, kind.prediction_suffixes)
    if shards := Names(names, (TAR,)):
        if source != folders[0] or options.kind in ("labels", "foreground"):
            raise UsageError("ray: shards (.tar) hold the probabilities or logits of their images; give them for both")
        check_alone(shards, names, kind, folders[0])
        task = TarTask(do, folders, None, TarResults(places, kind), options.overwrite, suffixes)
        return Work.left(task, Alone(shards), "shards")
    if options.kind == "labels" and kind.holds_labels and source == folders[0]:
        images: Pairs | Alone = Alone(Names(names, kind.suffixes), with_predictions=True)
    else:
        besides = [*places.values(), *folders]
        predictions = Names(source.names(besides=[place for place in besides if place != source]), suffixes)
        if not predictions:
            raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
        if source == folders[0]:
            taken = {file for files in predictions.values() for file in files}
            names = [name for name in names if name not in taken]
        images = Pairs(Names(names, kind.suffixes), predictions, folders[0])
    task = Task(do, folders, source, Results(places, kind), options.overwrite)
    return Work.left(task, images)
