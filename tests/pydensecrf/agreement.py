"""Print how far `crfrnn.pydensecrf` is from pydensecrf: the table of docs/pydensecrf.md.

    pip install pydensecrf2 && python -m tests.pydensecrf.agreement

Each cell is the worse of 5 and 10 iterations: mean absolute difference of marginals, points with the same label.
"""

import importlib

import numpy as np
from skimage import data, transform

import crfrnn.pydensecrf.densecrf as ours
from tests.pydensecrf.cases import NORMALIZATIONS, PARAMETERS, agreement, marginals, problem

CROPS = {
    "astronaut 80 x 60": data.astronaut()[60:120, 150:230],
    "coffee resized to 77 x 63": np.uint8(
        255 * np.asarray(transform.resize(data.coffee(), (63, 77), anti_aliasing=True))
    ),
    "chelsea 101 x 67": data.chelsea()[60:127, 150:251],
    "astronaut 500 x 375": data.astronaut()[:375, :500],
}


def main() -> None:
    theirs = importlib.import_module("pydensecrf.densecrf")
    print(
        f"| photo | labels | parameters | {' | '.join(NORMALIZATIONS)} |\n|---|---|---|{'---|' * len(NORMALIZATIONS)}"
    )
    for name, photo in CROPS.items():
        for labels in (2, 21):
            case = problem(np.ascontiguousarray(photo), labels)
            for parameters in PARAMETERS:
                cells = []
                for kind in NORMALIZATIONS:
                    pairs = zip(
                        marginals(ours, case, parameters, kind), marginals(theirs, case, parameters, kind), strict=True
                    )
                    differences, shares = zip(*(agreement(q, p) for q, p in pairs), strict=True)
                    cells.append(f"{max(differences):.0e}, {100 * min(shares):.2f} %")
                print(f"| {name} | {labels} | {parameters} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
