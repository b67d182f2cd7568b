"""README.md of a package: what it is, how well it was trained, what was validated, and how to run it in each program."""

from collections.abc import Mapping, Sequence
from typing import Any

from forestbridge.consumers import ConsumerVerdict
from forestbridge.forest import PixelForest
from forestbridge.package.about import About
from forestbridge.package.geometry import SpatialAxis, spatial_axes
from forestbridge.spec import EncoderSpec

ROWS = {
    "store": "tile by tile, against the feature store",
    "store_edge": "the same, at the image's edge",
}
"""What the rows of the validation mean that are no weight formats."""


def package_readme(
    forest: PixelForest,
    spec: EncoderSpec,
    about: About,
    *,
    kind: str,
    file_name: str,
    channels: Sequence[str],
    axes: Sequence[SpatialAxis],
    validation: Sequence[Mapping[str, Any]],
    verdicts: Sequence[ConsumerVerdict],
    test_image: str,
    weights: str = "",
) -> str:
    """Return the README in Markdown.

    Parameters
    ----------
    validation
        One row per weight format with "format", "max_abs" and "label_flips" of "pixels" pixels.
    verdicts
        One per program; how to use the package in a program is said where it runs.
    test_image
        Where the test tensors come from.
    weights
        The section on a deep encoder's weights.
    """
    parts = [
        about.readme.rstrip() if about.readme else f"# {about.name}\n\n{about.description}",
        _classes(forest, channels),
        _input(spec, axes, kind),
        _training(forest),
        _validation(validation, test_image, kind),
        *([weights] if weights else []),
        _runs_in(verdicts),
        _usage(file_name, about, {v.name for v in verdicts if v.ok}),
        f"## Licence\n\n{about.license}. Authors: {', '.join(a['name'] for a in about.authors)}.",
    ]
    return "\n\n".join(parts) + "\n"


def encoder_readme(
    spec: EncoderSpec,
    about: About,
    *,
    file_name: str,
    outputs: Mapping[str, tuple[int, float]],
    validation: Sequence[Mapping[str, Any]],
    verdicts: Sequence[ConsumerVerdict],
    test_image: str,
    weights: str,
) -> str:
    """Return the README of an encoder package in Markdown.

    Parameters
    ----------
    outputs
        Id of each output → number of features, and pixels between its cells.
    validation, verdicts, test_image, weights
        As `package_readme`.
    """
    axes = spatial_axes(spec)
    sizes = " × ".join(f"{a.minimum} pixels along {a.id}" for a in axes)
    maps = [f"| `{name}` | {features} | {stride:g} |" for name, (features, stride) in outputs.items()]
    rows = [f"| {row['format']} | {row['max_abs']:.1e} |" for row in validation]
    return "\n".join(
        [
            about.readme.rstrip() if about.readme else f"# {about.name}\n\n{about.description}",
            "",
            "## Input and outputs",
            "",
            f"Input: {spec.channels} channel(s) of raw intensities, exactly {sizes}. The graph scales them itself: "
            f"{spec.intensity.get('low')} becomes black and {spec.intensity.get('high')} white. "
            f"Cells within {axes[0].halo} pixels of a tile's edge (the halo) see too little of their surroundings.",
            "",
            "| output | features | pixels between cells |",
            "|---|---|---|",
            *maps,
            "",
            f"Values are rounded to {spec.dtype}, as feature stores hold them.",
            "",
            "## Validation",
            "",
            f"Test tensors: {test_image}. The expected outputs were computed by the network in PyTorch; the largest difference, "
            "as a share of the largest value of a map:",
            "",
            "| weights | largest difference |",
            "|---|---|",
            *rows,
            "",
            weights,
            "",
            _runs_in(verdicts),
            "",
            "## How to use it",
            "",
            "Python only, `forestbridge.archive.onnx_session` runs the ONNX file. The same features in a store, for training:",
            f"`forestbridge extract image.tif -o image.features.ome.zarr --like {file_name}`, which takes the network's weights from the "
            "cache or from `--weights`.",
            "",
            f"## Licence\n\n{about.license}. Authors: {', '.join(a['name'] for a in about.authors)}.",
            "",
        ]
    )


def _classes(forest: PixelForest, channels: Sequence[str]) -> str:
    rows = [
        f"| {value} | {_cell(name)} | `{channel}` | {colour} |"
        for value, name, channel, colour in zip(forest.classes, forest.names, channels, forest.colours, strict=True)
    ]
    return "\n".join(
        ["## Classes", "", "| label value | class | output channel | colour |", "|---|---|---|---|", *rows]
    )


def _cell(text: str) -> str:
    """Return a class name, which may be any text, as a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def _input(spec: EncoderSpec, axes: Sequence[SpatialAxis], kind: str) -> str:
    what = (
        f"{spec.channels} channel(s) of raw intensities"
        if kind == "fused"
        else f"{spec.n_features} features of the encoder {spec}"
    )
    sizes = ", ".join(f"{a.id} {'at least' if a.step else 'exactly'} {a.minimum} pixels" for a in axes)
    reach = ", ".join(f"{a.halo} pixels along {a.id}" for a in axes)
    return (
        f"## Input and output\n\nInput: {what}, as acquired: nothing is normalised, so the pixel type and range must be those of the "
        f"training image. {sizes}. A result depends on its surroundings within {reach} (the halo); closer than that to the image's edge, "
        "programs differ from each other because they continue the image differently.\n\nOutput: the probability of each class "
        "for every pixel, float32, 0 to 1."
    )


def _training(forest: PixelForest) -> str:
    training = forest.training
    lines = [f"A random forest of {forest.n_trees} trees (depth {forest.depth()})."]
    if pixels := training.get("pixels"):
        counts = [f"{name} {pixels.get(str(c), 0)}" for c, name in zip(forest.classes, forest.names, strict=True)]
        lines.append("Labelled pixels: " + ", ".join(counts) + ".")
    if "oob_accuracy" in training:
        lines.append(
            f"Out-of-bag accuracy: {training['oob_accuracy']:.3f} of {training['oob_pixels']} pixels. Neighbouring pixels of one stroke "
            "resemble each other, so the accuracy on new images is lower."
        )
    table = []
    if confusion := training.get("oob_confusion"):
        table = [
            "",
            "| painted \\ predicted | " + " | ".join(map(_cell, forest.names)) + " |",
            "|---" * (len(forest.names) + 1) + "|",
        ]
        table += [
            f"| {_cell(name)} | " + " | ".join(map(str, row)) + " |"
            for name, row in zip(forest.names, confusion, strict=True)
        ]
    features = [f"- {name}: {share:.3f}" for name, share in training.get("importance", ())]
    if features:
        features = ["", "Most important features:", "", *features]
    return "\n".join(["## Training", "", " ".join(lines), *table, *features])


def _validation(rows: Sequence[Mapping[str, Any]], test_image: str, kind: str) -> str:
    ran_on = "the test input" if kind == "fused" else "synthetic features around the forest's thresholds"
    table = [
        f"| {ROWS.get(row['format'], row['format'])} | {row['max_abs']:.1e} | {row['label_flips']} of {row['pixels']} |"
        for row in rows
    ]
    return "\n".join(
        [
            "## Validation",
            "",
            f"Test tensors: {test_image}. The expected output was computed by forestbridge's own engine, which decides exactly as the "
            f"scikit-learn forest does. Each weight format ran on {ran_on}; the largest difference of a probability and the number "
            "of pixels with another most probable class:",
            "",
            "| weights | largest difference | other labels |",
            "|---|---|---|",
            *table,
            "",
            "A forest is a step function: where a feature lies within float rounding of a threshold, one tree may decide otherwise.",
        ]
    )


def _runs_in(verdicts: Sequence[ConsumerVerdict]) -> str:
    lines = [f"- {v.name}: " + ("yes" if v.ok else "no: " + "; ".join(v.reasons)) for v in verdicts]
    return "\n".join(["## Where it runs", "", *lines])


def _usage(file_name: str, about: About, runs_in: set[str]) -> str:
    lines = [
        "## How to use it",
        "",
        "Python:",
        "",
        "```python",
        "import forestbridge as fb",
        f'probabilities = fb.open_package("{file_name}").predict(fb.read_image("image.tif"))  # (K, Y, X)',
        "```",
        "",
        f"Command line: `forestbridge predict image.tif --package {file_name} -o probabilities.tif`",
    ]
    if not runs_in & {"ilastik", "deepImageJ", "QuPath"}:
        python = [
            "This package takes feature maps: Python only. `forestbridge.archive.onnx_session` runs its ONNX file on the features of",
            "an image, `forestbridge.features(image, encoder)`, with a batch axis in front.",
        ]
        return "\n".join([*lines[:2], *python])
    others = {
        "bioimage.io": f"Any bioimage.io tool: `bioimageio predict {file_name} --weight-format onnx` (ONNX is the faster format).",
        "ilastik": f"ilastik: *New Project* → *Neural Network Classification (Local)*, add images in *Input Data*, load `{file_name}` in "
        "*NN Prediction*, then *Live Prediction* or *Export*.",
        "deepImageJ": "deepImageJ in Fiji: *DeepImageJ Run* → *Install from file*, or as a macro: "
        f'`run("DeepImageJ Run", "model_path={about.id} input_path=image.tif output_folder=out display_output=null");`\n\n'
        "Fiji with forestbridge's commands: open the image, *Plugins* → *ForestBridge* → *FB Segment With Package*, or as a macro: "
        f'`run("FB Segment With Package", "model=[{file_name}] output=Segmentation");`',
        "QuPath": f"QuPath with the bioimage.io extension: unzip `{file_name}`, open an image, choose the `rdf.yaml` of the unzipped "
        "folder in the extension's window, and run it; the output channels become QuPath's classes.",
    }
    for program, text in others.items():
        if program in runs_in:
            lines += ["", text]
    return "\n".join(lines)
