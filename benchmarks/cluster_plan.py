"""What ten million images on a thousand cores would take, from figures that were measured on small ones.

`python -m benchmarks.cluster_plan` prints the table of docs/cluster.md. Everything is arithmetic on the arguments,
whose defaults are those of benchmarks/results/cluster.md: nothing here was run on a thousand cores.
"""

import argparse
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Plan:
    """What is measured of one image, of one name and of one batch, and what is planned."""

    images: float = 1e7
    cores: float = 1000
    seconds: float = 0.75  # of one core for an image with its files: 187 s for 500 on two
    share: float = 0.88  # of the plain command's throughput that is left with Ray
    photo: float = 91_000  # bytes
    predictions: float = 7_540_000  # 21 labels, float16
    result: float = 2_100
    listing: float = 436  # seconds for a million names, of photos and of predictions, and for pairing them
    driver: float = 100  # bytes of the command's memory for a name, above 300 MB
    batches: float = 37  # that the command hands out in a second
    rows: float = 256  # images in a batch
    start: float = 15  # seconds until the workers work
    request: float = 0.1  # seconds for a LIST of an object store, a thousand names: assumed

    def table(self) -> list[str]:
        """Rows of quantities and values."""
        hours = self.images * self.seconds / self.share / self.cores / 3600
        seconds = hours * 3600 + self.start + self.listing * self.images / 1e6
        read, written = self.images * (self.photo + self.predictions), self.images * self.result
        needed, most = self.cores * self.share / (self.seconds * self.rows), self.batches
        cores = most * self.rows * self.seconds / self.share
        rows = {
            "the work, on all cores": f"{hours:.2f} hours",
            "with listing and start": f"{seconds / 3600:.2f} hours",
            "read": f"{read / 1e12:.1f} TB, {read / seconds / 1e9:.1f} GB a second",
            "written": f"{written / 1e9:.0f} GB in {self.images:.0e} files",
            "listing a file system": f"{self.listing * self.images / 1e6 / 60:.0f} minutes, one process",
            "listing an object store": f"{3 * self.images / 1000:,.0f} requests,"
            f" {3 * self.images / 1000 * self.request / 60:.0f} minutes",
            "memory of the command": f"{0.3 + self.driver * self.images / 1e9:.1f} GB",
            "batches to hand out": f"{needed:.1f} a second; {most:.1f} were reached, enough for {cores:,.0f} cores",
        }
        return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Plan):
        parser.add_argument(f"--{field.name}", type=float, default=field.default)
    print("\n".join(Plan(**vars(parser.parse_args())).table()))


if __name__ == "__main__":
    main()
