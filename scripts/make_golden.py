"""Freeze the result of each stage in tests/golden; nothing else writes there. Look at `git diff --stat` afterwards, and say why.

.venv/bin/python scripts/make_golden.py
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import golden_stages as stages


def main() -> None:
    """Write all cases."""
    for case in stages.CASES:
        folder = stages.FOLDER / case
        folder.mkdir(parents=True, exist_ok=True)
        picture = stages.picture(case)
        features = stages.compute_features(case, picture.image)
        forest = stages.compute_forest(case, picture.image, picture.scribbles, features)
        forest.save(stages.FOLDER / f"{case}.forest", overwrite=True)
        with TemporaryDirectory() as temporary:
            package = stages.compute_package(forest, picture.image, Path(temporary))
        results = {
            "image": picture.image,
            "labels": picture.scribbles,
            "features": features,
            "probabilities": stages.compute_probabilities(forest, features),
            "package": package,
        }
        for name, array in results.items():
            np.save(folder / f"{name}.npy", array)
            print(f"{case}/{name}.npy: {array.shape} {array.dtype}")


if __name__ == "__main__":
    main()
