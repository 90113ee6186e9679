"""`crfrnn segment`, here or, with --ray, on a cluster: the same work for each photograph."""

from functools import partial

from crfrnn.commands.cluster.folders import Work, check_alone, check_places, result_places, run_folder
from crfrnn.commands.cluster.images import Alone, Results
from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.tars import TAR, TarResults, TarTask
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.segment.files import image_work, segment_files
from crfrnn.commands.segment.options import SegmentOptions
from crfrnn.commands.shards import Sharing
from crfrnn.data.kinds import Photograph

WORDS = "segmenting", "segmented"


def segment_anywhere(options: SegmentOptions) -> None:
    """What the options ask for, here or on a cluster."""
    if options.ray is None:
        segment_files(options)
        return
    sharing = Sharing(options.ray, options.ray_cpus, options.ray_gpus)
    run_folder(partial(_work, options), sharing, WORDS)


def _work(options: SegmentOptions) -> Work:
    if options.strokes or len(options.image) > 1:
        raise UsageError("ray: takes one folder of photographs, and no strokes")
    folder = Place.of(options.image[0])
    places = result_places(
        out=options.out,
        overlay=options.overlay,
        probabilities=options.save_probabilities,
        compare=options.compare,
        cutout=options.cutout,
    )
    check_places([folder], places)
    names, do = Names(folder.names(besides=places.values())), image_work(options)
    if shards := names.of((TAR,)):
        check_alone(shards, names, Photograph, folder)
        task = TarTask(do, [folder], None, TarResults(places, Photograph), options.overwrite)
        return Work(task, Alone(shards), "shards")
    task = Task(do, [folder], None, Results(places, Photograph), options.overwrite)
    return Work(task, Alone(names.of(Photograph.suffixes)))
