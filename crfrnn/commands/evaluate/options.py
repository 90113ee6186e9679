"""What `crfrnn evaluate` can be told."""

from dataclasses import KW_ONLY, dataclass, field

from crfrnn.commands.errors import UsageError, check_jobs, check_not_negative
from crfrnn.commands.train.options import CRF_MODES


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure saved networks on labelled photographs, or predictions and label maps on their truths, side by side.

    Mean IoU over the whole set and the classes that occur in its truth, pixel accuracy, IoU of each class, mean IoU
    within 1 to 20 pixels of a boundary, and the time for each image.

    With --predictions and --truth, of anybody's predictions, without a network: mean IoU, that within 2 and 5 pixels of
    a boundary, and with --refined what refining gained, with the 95 % interval of a bootstrap over the images.

    With --ground-truth, of label maps and predictions that are there already, volumes as a rule: IoU over the whole
    set, and of each class the mean over the images of its Dice coefficient, of the distance between its surfaces and
    of their 95th percentile (HD95), in millimetres or pixels. The means over classes leave out class 0.

    Args:
        model: folders that training or save_pretrained left, or names on the hub. With --ground-truth, folders of label
            maps or predictions, or files.
        data: a YAML file with a section ``data:``, such as those in configs/.
        ground_truth: instead, a folder of label maps with class numbers, or one of them; 255 does not count.
        predictions: a folder of label maps (class numbers), probabilities or logits, or one file.
        refined: the same after refining, to be compared with --predictions.
        truth: of --predictions, a folder of label maps with class numbers, or one of them; 255 does not count.
        root: the data set's folder, in place of the file's.
        split: which split; the file's test split where it is left out.
        crf: one or several, with commas: none, the network alone; trained, with the CRF it was trained with;
            separate, with a CRF that nobody trained (--preset, --kernel).
        iterations: mean-field iterations; each CRF's own where it is left out, 10 for separate.
        preset: of the separate CRF: crfrnn, pydensecrf, deeplab-v1 or deeplab-v2.
        kernel: of the separate CRF, instead of the preset's: bilateral:THETA_ALPHA,THETA_BETA,WEIGHT or
            spatial:THETA_GAMMA,WEIGHT; say it again for each further one.
        normalization: of the separate CRF, instead of the preset's: after, symmetric, before or none.
        device: of networks: cpu, cuda, one of several such as cuda:1, or auto, a GPU where there is one.
        jobs: cores that work at a time; all that this process may use where it is left out.
        out: a folder for scores.json and table.md, of networks boundary.png too.
    """

    model: list[str] = field(default_factory=list)
    _: KW_ONLY
    data: str | None = None
    ground_truth: str | None = None
    predictions: str | None = None
    refined: str | None = None
    truth: str | None = None
    root: str | None = None
    split: str | None = None
    crf: str = "none,trained"
    iterations: int | None = None
    preset: str = "crfrnn"
    kernel: list[str] | None = None
    normalization: str | None = None
    device: str = "auto"
    jobs: int | None = None
    out: str | None = None

    def __post_init__(self):
        if [self.data, self.ground_truth, self.predictions].count(None) != 2:
            raise UsageError("data: give one of --data for networks, --predictions, and --ground-truth for label maps")
        if (self.predictions is None) != (self.truth is None):
            raise UsageError("truth: --predictions and --truth belong together")
        if self.refined is not None and self.predictions is None:
            raise UsageError("refined: belongs to --predictions, which it is compared with")
        if bool(self.model) != (self.predictions is None):
            needed = "needs no model: give --predictions alone" if self.model else "give networks, or folders of labels"
            raise UsageError(f"model: {needed}")
        for mode in self.modes:
            if mode not in CRF_MODES:
                raise UsageError(f"crf: {mode!r} is none of {', '.join(CRF_MODES)}")
        check_not_negative("iterations", self.iterations)
        check_jobs(self.jobs)
        if "separate" not in self.modes and (self.kernel or self.normalization or self.preset != "crfrnn"):
            raise UsageError("preset, kernel and normalization belong to --crf separate")

    @property
    def modes(self) -> list[str]:
        """The kinds of CRF, each once."""
        return list(dict.fromkeys(mode.strip() for mode in self.crf.split(",")))
