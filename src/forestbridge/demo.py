"""The whole line on a real image: tissue section → store → forest → package → the same answer in four engines, with pictures."""

import html
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import labels_of
from forestbridge.consumers import format_consumer_table
from forestbridge.encoders.base import open_encoder
from forestbridge.extract import extract
from forestbridge.forest import PixelForest
from forestbridge.image import Image, write_overlay
from forestbridge.labels import Scribbles, read_scribbles
from forestbridge.package import About, CheckReport, format_check, write_package
from forestbridge.package.recipe import data_file, sample_image
from forestbridge.package.reference import core_version, run_in_core
from forestbridge.predict import predict
from forestbridge.runner import open_package
from forestbridge.train import train

NAMES = ("background", "stained membrane", "nucleus")
COLOURS = ("#e8e8e8", "#b5651d", "#2050c8")


@dataclass(frozen=True)
class Agreement:
    """How far one engine's probabilities are from forestbridge's own engine.

    Attributes
    ----------
    engine
        Program and weight format.
    inside, border
        Largest difference of a probability, farther from the image's edge than the halo, and closer to it.
    flips_inside, flips_border
        Pixels with another most probable class.
    pixels_inside, pixels_border
        Pixels compared.
    """

    engine: str
    inside: float
    flips_inside: int
    pixels_inside: int
    border: float
    flips_border: int
    pixels_border: int


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    folder: Path
    forest: PixelForest
    report: CheckReport
    agreement: tuple[Agreement, ...]

    def to_json_dict(self) -> dict:
        """Return agreement, training and check as JSON values."""
        return {
            "folder": str(self.folder),
            "agreement": [asdict(a) for a in self.agreement],
            "forest": self.forest.describe(),
            "check": self.report.to_json_dict(),
        }


def run_demo(folder: str | Path, *, say: Callable[[str], None]) -> DemoResult:
    """Run the line on scikit-image's immunohistochemistry image with the scribbles that ship with forestbridge.

    Parameters
    ----------
    folder
        Is made, or written into again; holds everything afterwards, with index.html to look at.
    say
        Told what happens.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    image = sample_image("immunohistochemistry")
    scribbles = read_scribbles(data_file("tissue_scribbles.png"), names=NAMES, colours=COLOURS, shape=image)
    say(f"image: {image}")
    say(f"scribbles: {scribbles}")
    encoder = open_encoder("filters", channels=image.n_channels)
    store = extract(image, encoder, folder / "tissue.features.ome.zarr")
    say(f"store: {store.path} with {encoder.spec.n_features} features of {encoder.spec}")
    forest = train([(store, scribbles)])
    forest.save(folder / "tissue.forest", overwrite=True)
    say(f"forest: {forest.n_trees} trees, out-of-bag accuracy {forest.training['oob_accuracy']:.4f}")
    probabilities = predict(image, forest)
    predict(image, forest, out=folder / "tissue_probabilities.ome.tif", overwrite=True)
    predict(image, forest, kind="labels", out=folder / "tissue_segmentation.tif", overwrite=True)
    say("package: writing ONNX and TorchScript, running both, checking")
    about = About(name="tissue-filters demo", authors=({"name": "The forestbridge developers"},))
    report = write_package(folder / "tissue.zip", forest, image=image, about=about, overwrite=True)
    agreement = compare_engines(folder / "tissue.zip", image, forest, probabilities)
    _draw(folder, image, scribbles, forest, probabilities)
    result = DemoResult(folder, forest, report, agreement)
    (folder / "index.html").write_text(_page(result), encoding="utf-8")
    return result


def compare_engines(
    package: Path, image: Image, forest: PixelForest, reference: NDArray[np.float32]
) -> tuple[Agreement, ...]:
    """Run a package that was just written in our runner and in bioimageio.core (each weight format by name), and compare.

    Parameters
    ----------
    reference
        (K, Y, X) float32 of forestbridge's own engine.
    """
    raw = image.region((slice(0, image.sizes["Y"]), slice(0, image.sizes["X"])))[None]
    core = f"bioimageio.core {core_version()}"
    found = {"forestbridge runner, ONNX": open_package(package).predict(image)}
    for weights, name in (("onnx", "ONNX"), ("torchscript", "TorchScript")):
        found[f"{core}, {name}"] = run_in_core(package, weights, raw, axes="yx")[0]
    assert forest.spec is not None
    inside = np.zeros(reference.shape[1:], bool)
    inside[tuple(slice(h, -h) for h in forest.spec.halo)] = True
    expected = labels_of(reference, forest.classes)
    rows = []
    for engine, probabilities in found.items():
        difference = np.abs(probabilities - reference).max(axis=0)  # (Y, X)
        flips = labels_of(probabilities, forest.classes) != expected
        rows.append(
            Agreement(
                engine,
                float(difference[inside].max()),
                int(flips[inside].sum()),
                int(inside.sum()),
                float(difference[~inside].max()),
                int(flips[~inside].sum()),
                int((~inside).sum()),
            )
        )
    return tuple(rows)


def _draw(
    folder: Path, image: Image, scribbles: Scribbles, forest: PixelForest, probabilities: NDArray[np.float32]
) -> None:
    plane = image.plane()
    colours = dict(zip(forest.classes, forest.colours, strict=True))
    labels = labels_of(probabilities, forest.classes)
    write_overlay(folder / "image.png", plane, np.zeros_like(labels), colours, overwrite=True)
    bright = dict(zip(forest.classes, ("#ff00ff", "#ffe000", "#00ffff"), strict=True))
    write_overlay(folder / "scribbles.png", plane, scribbles.at_plane(), bright, alpha=1, overwrite=True)
    write_overlay(folder / "overlay.png", plane, labels, colours, alpha=0.55, overwrite=True)
    _draw_probabilities(folder / "probabilities.png", probabilities, forest.names)


def _draw_probabilities(path: Path, probabilities: NDArray[np.float32], names: Sequence[str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(names), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for k, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), k + 1)
        shown = axes.imshow(probabilities[k], vmin=0, vmax=1, cmap="magma")
        axes.set_title(name)
        axes.set_axis_off()
    figure.colorbar(shown, ax=figure.axes, shrink=0.8, label="probability")
    figure.savefig(path, dpi=80)


def agreement_rows(agreement: Sequence[Agreement]) -> list[list[str]]:
    """Return the table's cells: engine, inside, flips, border, flips."""
    return [
        [
            a.engine,
            f"{a.inside:.1e}",
            f"{a.flips_inside} of {a.pixels_inside}",
            f"{a.border:.1e}",
            f"{a.flips_border} of {a.pixels_border}",
        ]
        for a in agreement
    ]


AGREEMENT_COLUMNS = ["against forestbridge's engine", "inside", "other labels", "border", "other labels"]


def _page(result: DemoResult) -> str:
    template = Template(files("forestbridge").joinpath("data/demo.html").read_text(encoding="utf-8"))
    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
        for row in agreement_rows(result.agreement)
    )
    return template.substitute(
        columns="".join(f"<th>{html.escape(c)}</th>" for c in AGREEMENT_COLUMNS),
        rows=cells,
        halo=max(result.forest.spec.halo) if result.forest.spec else 0,
        accuracy=f"{result.forest.training['oob_accuracy']:.4f}",
        pixels=result.forest.training["oob_pixels"],
        classes="".join(
            f'<li><span style="background:{colour}"></span>{html.escape(name)}</li>'
            for name, colour in zip(result.forest.names, result.forest.colours, strict=True)
        ),
        check=html.escape(format_check(result.report) + "\n" + format_consumer_table(result.report.consumers)),
    )
