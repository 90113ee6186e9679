"""What `crfrnn segment` can be told."""

from dataclasses import KW_ONLY, dataclass

from crfrnn.commands.errors import UsageError, check_not_negative
from crfrnn.commands.shards import check_sharing


@dataclass(frozen=True)
class SegmentOptions:
    """Segment photographs with a trained model, or one photograph from a few strokes of colour on it.

    The model that comes with the package knows people, six kinds of animals (bird, cat, cow, dog, horse, sheep), seven
    of vehicles (aeroplane, bicycle, boat, bus, car, motorbike, train) and bottle, chair, dining table, potted plant,
    sofa and tv monitor; all else is background. --model camvid knows road scenes. Folders work too, and a second run
    does what the first one left.

    For anything else draw strokes: over a copy of the photograph's size, one colour for each thing and one for the
    background, on a transparent or plain ground. The rest gets the labels of the strokes that it resembles, and a
    CRF-RNN places the edges.

    Args:
        image: photographs, and folders of photographs.
        out: the label map, a PNG in the colours of the model or the strokes, or a folder for several; may be left
            out where there is another output.
        model: voc or camvid, which come with the package, a folder that training or save_pretrained left, or a name on
            the hub; voc where it is left out.
        strokes: instead of a model, the strokes: a PNG of the photograph's size, palette, grey or colours.
        unsure: with --strokes, the index (0) or colour (0,0,0 or "#000000") that means "nothing drawn"; without it,
            what is transparent or else covers most of the picture.
        overlay: also write the photograph tinted by the labels, with a legend where the classes have names.
        cutout: also write the photograph with everything transparent that is not of --classes, .png or .webp, at its
            full size.
        classes: what stays in the cut-out, said again for each further class: by name, or with --strokes by the
            colour or index of its strokes. Where it is left out, all but the model's background.
        save_probabilities: also write the probabilities, float16, .npz or .npy.
        compare: also write a figure: photograph, strokes, the labels without and with the CRF-RNN.
        iterations: mean-field iterations; the model's own where it is left out, 10 with --strokes. 0 leaves the CRF
            out.
        seed: with --strokes, which of very many strokes are looked at; the same seed gives the same result.
        overwrite: in folders, redo what is already there.
        jobs: cores that work at a time; all that this process may use where it is left out.
        device: what the model runs on: cpu, cuda, one of several such as cuda:1, or auto, a GPU where there is one.
        shard: in folders, do only one part of several, such as 3/16; auto: that of this SLURM array job or Kubernetes
            indexed job. crfrnn status OUT then counts what all of them did.
        ray: in folders, which may be URLs such as s3://bucket/photos, work on a cluster of Ray: auto, the one that runs
            here; HOST:PORT of its head; local, one that begins and ends with this command.
        ray_cpus: with --ray, the cores of each worker.
        ray_gpus: with --ray, the GPUs of each worker, which then works on one: 1, or a share such as 0.5.
    """

    image: list[str]
    _: KW_ONLY
    out: str | None = None
    model: str | None = None
    strokes: str | None = None
    unsure: str | int = ""
    overlay: str | None = None
    cutout: str | None = None
    classes: list[str] | None = None
    save_probabilities: str | None = None
    compare: str | None = None
    iterations: int | None = None
    seed: int = 0
    overwrite: bool = False
    jobs: int | None = None
    device: str = "cpu"
    shard: str | None = None
    ray: str | None = None
    ray_cpus: int = 1
    ray_gpus: float = 0

    def __post_init__(self):
        check_not_negative("iterations", self.iterations)
        check_sharing(self.shard, self.ray, self.ray_cpus, self.ray_gpus, self.jobs, self.device)
        if not any((self.out, self.overlay, self.cutout, self.save_probabilities, self.compare)):
            raise UsageError("out: nothing is to be written; give --out labels.png, or --cutout cat.png")
        if self.classes and not self.cutout:
            raise UsageError("classes: belong to --cutout")
        if self.strokes and self.cutout and not self.classes:
            raise UsageError("classes: with --strokes --cutout needs them, such as --classes red, a colour drawn")
        if self.strokes and self.model is not None:
            raise UsageError("model: strokes need none; give one of --model and --strokes")
        if self.strokes and self.device not in ("cpu", "auto"):
            raise UsageError(f"device: strokes are learned on CPUs, not on {self.device}; leave it out")
        if self.compare and self.iterations == 0:
            raise UsageError("compare: 0 iterations leave the CRF out, so there is nothing to compare")
        for name, said in {"unsure": self.unsure != "", "seed": self.seed != 0}.items():
            if said and not self.strokes:
                raise UsageError(f"{name}: belongs to --strokes")
