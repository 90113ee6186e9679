"""What `crfrnn fit` can be told."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from crfrnn.commands.errors import UsageError, check_jobs


@dataclass(frozen=True)
class FitOptions:
    """Choose a CRF's parameters from labelled images.

    Temperature, bandwidths and kernel weights that raise the mean IoU of a network's predictions, and how much they
    raise it on images that they were not fitted on, or that a CRF does not help. Files of the three folders are
    matched by name: cat.jpg, cat.npz, cat.png; what lacks one of them is left out. crfrnn refine --config reads the
    result.

    Args:
        images: a folder of photographs or of volumes, such as ct.nii.gz, in which positions count in millimetres.
        predictions: a folder of .npy or .npz files, probabilities (labels, height, width) or (labels, z, y, x), without
            the labels of a binary network; or of volumes with an axis of labels.
        ground_truth: a folder of label maps: palette or grey PNGs, or volumes, with the class numbers 0, 1, 2, ...
        out: the YAML file for the parameters.
        logits: the predictions are logits.
        key: the name of the array in .npz files that hold several.
        resize: scale predictions of another size to the image's, linearly.
        void: the value of label maps that does not count (255 never counts).
        classes: a text file with the name of a class on each line, for the table.
        preset: begin with present, crfrnn, pydensecrf, deeplab-v1 or deeplab-v2; with the best of all where it is left
            out.
        folds: parts of the cross-validation.
        iterations: mean-field iterations of the result, and of the search.
        seed: of the bootstrap's draws.
        standardize: bring each channel's intensities to 0..255, where a preset's theta_beta counts, by the values that
            0.5 % are below and 0.5 % above; the file says so to refine.
        jobs: cores that work at a time; all that this process may use where it is left out.
    """

    images: str
    predictions: str
    ground_truth: str
    _: KW_ONLY
    out: str
    logits: bool = False
    key: str | None = None
    resize: bool = False
    void: int = 255
    classes: str | None = None
    preset: str | None = None
    folds: int = 2
    iterations: int = 5
    seed: int = 0
    standardize: bool = False
    jobs: int | None = None

    def __post_init__(self):
        check_jobs(self.jobs)
        if Path(self.out).suffix.lower() not in (".yaml", ".yml"):
            raise UsageError(f"out: {self.out} must end in .yaml")
