"""ilastik projects on the command line: what they are trained on, and which options they leave no room for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import forestbridge as fb
from forestbridge.cli.sources import LabelReading, Reading
from forestbridge.encoders import Encoder
from forestbridge.ilastik import is_project
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.labels import Scribbles
from forestbridge.spec import require_same_spec
from forestbridge.stores import FeatureStore


def refuse_with_projects(options: Mapping[str, Any], reading: Reading, labelling: LabelReading) -> None:
    """Refuse options about images and labels, which a project brings itself.

    Raises
    ------
    ValueError
        With the options that were given.
    """
    default = LabelReading()
    names = {"axes": "--label-axes", "ignore": "--ignore", "plane": "--slice", "merge": "--merge"}
    given = [option for option, value in options.items() if value]
    given += reading.given()
    given += [names[k] for k, value in labelling._asdict().items() if value not in (getattr(default, k), [])]
    if given:
        raise ValueError(
            f"expected ilastik projects alone, which bring images, labels and features themselves, found also {', '.join(given)}; leave "
            "it out"
        )


def training_of_projects(
    paths: Sequence[Path],
) -> tuple[list[Image | FeatureStore], list[Scribbles], Encoder]:
    """Return the labelled images of projects, their labels, and the encoder of their features.

    Raises
    ------
    ValueError
        If something else stands among the projects.
    ProjectError, SpecMismatchError
        If a project cannot be used, or they select different features.
    """
    if others := [shown(path) for path in paths if not is_project(path)]:
        raise ValueError(
            f"expected ilastik projects only, or none, found also {', '.join(others)}; train on these with --labels, or add them to a "
            "project in ilastik"
        )
    projects = [fb.read_project(path) for path in paths]
    encoder = projects[0].encoder
    for project in projects[1:]:
        require_same_spec(
            encoder.spec,
            project.encoder.spec,
            expected_by=shown(paths[0]),
            found_in=shown(project.path),
            remedy="select the same features in all projects",
        )
    pairs = [pair for project in projects for pair in project.training_pairs()]
    return [image for image, _ in pairs], [labels for _, labels in pairs], encoder
