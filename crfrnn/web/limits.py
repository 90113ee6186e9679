"""What one visitor, and all of them together, may ask of the server."""

from dataclasses import dataclass

MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of the demo.

    Args:
        pixels: of the picture that the CRF works on; larger photos are scaled to it.
        photo_megapixels: of a photo that is opened at all.
        upload_megabytes: of one file.
        array_megabytes: of the arrays in a .npz file, unpacked.
        at_once: requests that are computed at the same time.
        waiting: requests that wait; all others are sent away.
        memory_megabytes: of the photos and lattices that are kept for all visitors.
        disk_megabytes: of the files that visitors have sent and got, until they are deleted.
        minutes: that such a file is kept; may be a fraction.
    """

    pixels: int = 300_000
    photo_megapixels: int = 50
    upload_megabytes: int = 20
    array_megabytes: int = 400
    at_once: int = 2
    waiting: int = 32
    memory_megabytes: int = 512
    disk_megabytes: int = 2000
    minutes: float = 60

    def __post_init__(self):
        if self.minutes <= 0:
            raise ValueError(f"minutes: must be more than 0, got {self.minutes}")
        for name, value in vars(self).items():
            if value < 1 and name != "minutes":
                raise ValueError(f"{name}: must be at least 1, got {value}")
