"""What `crfrnn refine` can be told."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from crfrnn.commands.errors import UsageError, check_not_negative
from crfrnn.commands.shards import check_sharing

KINDS = ("probabilities", "logits", "labels", "foreground")


@dataclass(frozen=True)
class RefineOptions:
    """Sharpen rough predictions along the edges of a photograph or of a volume.

    Give the image and one of --probabilities, --logits, --labels and --foreground. Folders work too: predictions are
    matched to images by name (cat.npz to cat.jpg), and a second run does what the first one left. In volumes, such as
    ct.nii.gz, positions count in millimetres. Rasters, TIFFs that say where they are, may have any bands, and be larger
    than memory. Of clouds of points (.las, .laz, .ply, .npz) predictions are (points,
    labels), and a copy of the cloud with refined classes comes out.

    Args:
        image: the photograph or the volume, or a folder of them; several modalities of a volume with commas.
        out: the refined label map, a PNG of a photograph and .nii.gz of a volume, or a folder for them.
        probabilities: (labels, height, width) or (labels, z, y, x) in a .npy or .npz file, a volume with an axis of
            labels, or a folder of such files; without that axis the foreground's of a binary network.
        logits: the same, before the softmax, or before the sigmoid of a binary network.
        labels: a coarse label map instead: a palette, grey or colour-coded PNG, a volume, or a folder of them.
        foreground: a soft mask instead: a grey PNG, the whiter the more probable the foreground, or a folder of them.
        key: the name of the array in .npz files that hold several.
        confidence: with --labels, the probability that a given label is right.
        many_labels: with --labels, more than 32 levels of grey are labels all the same, and no soft mask.
        unsure: with --labels, the index (255) or colour (0,0,0 or "#000000") that means "no label here".
        preset: bandwidths and weights: present, crfrnn, pydensecrf, deeplab-v1 or deeplab-v2.
        iterations: mean-field iterations; settled, as many as it takes until no probability moves by more than
            --tolerance, at most 100.
        kernel: instead of the preset's kernels, bilateral:THETA_ALPHA,THETA_BETA,WEIGHT or
            spatial:THETA_GAMMA,WEIGHT; say it again for each further one.
        normalization: instead of the preset's: after, symmetric, before or none.
        accuracy: 1 to 3: how close to the exact CRF the bilateral filter comes, for how much time.
        tolerance: leave out labels that hold together, at every pixel, at most this share of the best one's
            probability; 0 leaves none out.
        solver: what an iteration does: mean-field, damped:STEP, convergent, entropic-frank-wolfe:STEP,LAMBDA or
            euclidean-frank-wolfe:STEP,LAMBDA.
        temperature: divides the logits (the logarithms of the probabilities); below 1 the network counts for more.
        class_weights: for each kernel, a factor of its weight for each class, as crfrnn fit finds them.
        standardize: bring each channel's intensities to 0..255, where a preset's theta_beta counts, by the values that
            0.5 % are below and 0.5 % above.
        fitted: what a file of crfrnn fit says of itself; nothing is done with it.
        bands: of a raster, those that are used, such as 4,3,2, from 1 on; left out, all.
        metres: of a raster, bandwidths of positions count in metres, by its transform, instead of in pixels.
        memory: of a raster, what may be taken, such as 2GB or 900MB; what is larger is worked on in windows.
        attributes: of points, what is used besides positions: names such as intensity or red,green,blue, or none; left
            out, colours or else the intensity where they vary.
        classes: of points, the class that each label is written as, such as 2,5,6; left out, 0,1,2 and so on.
        resize: scale predictions of another size to the image's, linearly.
        overlay: also write the photograph, or a slice of the volume, tinted by the refined labels.
        save_probabilities: also write the refined probabilities, .npz or .npy, float16, in the form of what came in, or
            a volume.
        trace: also write the energies of every iteration, .csv or .json, and beside them their curve, .svg.
        overwrite: in folders, redo what is already there.
        jobs: cores that work at a time; all that this process may use where it is left out.
        device: what the CRF runs on: cpu, cuda, one of several such as cuda:1, or auto, a GPU where there is one.
        shard: in folders, do only one part of several, such as 3/16; auto: that of this SLURM array job or Kubernetes
            indexed job. crfrnn status OUT then counts what all of them did.
        ray: in folders, which may be URLs such as s3://bucket/photos, work on a cluster of Ray: auto, the one that runs
            here; HOST:PORT of its head; local, one that begins and ends with this command.
        ray_cpus: with --ray, the cores of each worker.
        ray_gpus: with --ray, the GPUs of each worker, which then works on one: 1, or a share such as 0.5.
    """

    image: str
    _: KW_ONLY
    out: str
    probabilities: str | None = None
    logits: str | None = None
    labels: str | None = None
    foreground: str | None = None
    key: str | None = None
    confidence: float = 0.7
    many_labels: bool = False
    unsure: str | int = ""
    preset: str = "present"
    iterations: int | Literal["settled"] = 10
    kernel: list[str] | None = None
    normalization: str | None = None
    accuracy: int = 1
    tolerance: float = 1e-3
    solver: str = "mean-field"
    temperature: float = 1.0
    class_weights: list[list[float]] | None = None
    standardize: bool = False
    fitted: dict[str, Any] | None = None
    bands: str | None = None
    metres: bool = False
    memory: str = "2GB"
    attributes: str | None = None
    classes: str | None = None
    resize: bool = False
    overlay: str | None = None
    save_probabilities: str | None = None
    trace: str | None = None
    overwrite: bool = False
    jobs: int | None = None
    device: str = "cpu"
    shard: str | None = None
    ray: str | None = None
    ray_cpus: int = 1
    ray_gpus: float = 0

    def __post_init__(self):
        kinds = [kind for kind in KINDS if getattr(self, kind)]
        if len(kinds) != 1:
            several = ", not several" if kinds else ""
            raise UsageError(f"give one of {', '.join(f'--{kind}' for kind in KINDS[:-1])} and --{KINDS[-1]}{several}")
        check_sharing(self.shard, self.ray, self.ray_cpus, self.ray_gpus, self.jobs, self.device)
        if self.kind != "labels" and self.unsure != "":
            raise UsageError("unsure: belongs to --labels")
        if self.iterations != "settled":
            check_not_negative("iterations", self.iterations)
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence: must lie between 0 and 1, got {self.confidence}")

    @property
    def kind(self) -> str:
        """What the predictions are: ``probabilities``, ``logits``, ``labels`` or ``foreground``."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @property
    def source(self) -> str:
        """Where the predictions are."""
        return getattr(self, self.kind)
