"""forestbridge's default preset, grown by scikit-learn-intelex: 100 trees of depth 10, each on 1000 pixels; report included."""

from importlib.metadata import version

from training_forestbridge import answer as answer
from training_forestbridge import prepare as prepare
from training_forestbridge import train


def run(state):
    """Return the forest."""
    return train(state, "sklearnex")


def versions():
    """Return the version of scikit-learn-intelex."""
    return {"scikit-learn-intelex": version("scikit-learn-intelex")}
