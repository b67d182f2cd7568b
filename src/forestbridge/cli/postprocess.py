"""``forestbridge postprocess``: from labels or probabilities to cleaner labels."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import forestbridge as fb
from forestbridge.cli.batch import check_present, end, for_each
from forestbridge.cli.messages import progress_bar
from forestbridge.cli.object_options import Background, ChosenClasses, Match, ObjectOutput, PlaneByPlane, Segmentations
from forestbridge.cli.options import Axes, Channels, DryRun, Format, Json, Overwrite, Scene
from forestbridge.cli.output import print_json, print_path
from forestbridge.cli.places import files_of, made_folder, result_places
from forestbridge.image import Image
from forestbridge.image.source import shown
from forestbridge.objects import open_segmentation
from forestbridge.objects.agreement import check_same_size
from forestbridge.objects.postprocess import Cleaning, Mode, check_merge
from forestbridge.objects.sam import Sam, SamModel, open_sam


class SamChoice(NamedTuple):
    """The options --sam-boxes, --sam-auto, --iou, --sam-weights, --sam-model, --image, --channels and --device."""

    boxes: bool
    auto: bool
    iou: float | None
    weights: Path | None
    model: SamModel | None
    image: Path | None
    channels: list[int] | None
    device: str | None

    def check(self) -> None:
        """Refuse options that lack the one they belong to.

        Raises
        ------
        ValueError
            With what is missing, or superfluous.
        """
        wanted = {"--image": self.image, "--sam-weights": self.weights}
        others = {
            **wanted,
            "--iou": self.iou,
            "--sam-model": self.model,
            "--channels": self.channels,
            "--device": self.device,
        }
        if not self.boxes and not self.auto:
            if given := [name for name, value in others.items() if value is not None]:
                raise ValueError(
                    f"expected {', '.join(given)} with --sam-boxes or --sam-auto, found neither; add one or leave it out"
                )
        elif self.boxes and self.auto:
            raise ValueError("expected --sam-boxes or --sam-auto, found both; choose one")
        elif missing := [name for name, value in wanted.items() if value is None]:
            raise ValueError(
                f"expected {' and '.join(missing)} for Segment Anything, found none; give the image and a file of weights"
            )
        elif self.iou is not None and not self.auto:
            raise ValueError("expected --iou with --sam-auto only, found --sam-boxes; leave it out")

    def picture(self) -> Image | None:
        """Open the image that the model looks at, if there is one."""
        return None if self.image is None else fb.read_image(self.image, channels=self.channels)

    def open(self) -> Sam | None:
        """Open the model, if one is asked for."""
        picture = self.picture()
        if picture is None or self.weights is None:
            return None
        return open_sam(
            self.weights,
            picture,
            model=self.model or "sam2_base",
            prompts="auto" if self.auto else "boxes",
            iou=0.35 if self.iou is None else self.iou,
            device=self.device or "cpu",
        )


class Question(NamedTuple):
    """What is asked of each file: how it is read, what is done, and with what the result is merged."""

    axes: str | None
    scene: int | None
    background: str | None
    classes: list[str] | None
    cleaning: Cleaning
    merge: dict[str, Any]
    sam: SamChoice

    def check(self, path: Path) -> fb.Segmentation:
        """Open a file and refuse what cannot be done with it."""
        self.cleaning.check()
        found = open_segmentation(path, axes=self.axes, scene=self.scene, background=self.background)
        found.chosen(self.classes)
        m = self.merge
        older = None if m["into"] is None else open_segmentation(m["into"], axes=self.axes)
        check_merge(found, older, m["mode"], m["slices"], preserve=m["preserve"])
        if (picture := self.sam.picture()) is not None:
            check_same_size(picture, found.image)
        return found


def postprocess(
    sources: Segmentations = None,
    output: ObjectOutput = None,
    smooth: Annotated[int, typer.Option(min=0, help="Iterations of mean curvature smoothing; 0 leaves it out.")] = 25,
    min_area: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Smallest region that stays: 50 (pixels), 2% (of the largest), 10um2, 10um3."
        ),
    ] = "50",
    max_area: Annotated[str | None, typer.Option(metavar="SIZE", help="Largest region that stays.")] = None,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill background that a class encloses.")] = False,
    max_hole: Annotated[
        str | None, typer.Option(metavar="SIZE", help="With --fill-holes: largest hole that is filled.")
    ] = None,
    majority: Annotated[
        int, typer.Option(min=0, metavar="RADIUS", help="Radius of a majority filter before all else.")
    ] = 0,
    classes: ChosenClasses = None,
    background: Background = None,
    plane_by_plane: PlaneByPlane = False,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|N-N ...", help="Planes to work on, from 0: --slices 3 7-9; the others stay as they are."
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="replace what was there, or add: only objects are laid over --into.")
    ] = "replace",
    into: Annotated[Path | None, typer.Option(help="An older result to merge with; it is not changed itself.")] = None,
    preserve: Annotated[bool, typer.Option("--preserve-labels", help="With add: objects of --into stay.")] = False,
    sam_boxes: Annotated[
        bool,
        typer.Option("--sam-boxes", help="In the end Segment Anything finds each region anew in the box around it."),
    ] = False,
    sam_auto: Annotated[
        bool,
        typer.Option("--sam-auto", help="In the end each region becomes the mask of Segment Anything that fits it."),
    ] = False,
    iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --sam-auto: how well a mask must fit; 0.35 by default.")
    ] = None,
    sam_weights: Annotated[Path | None, typer.Option(help="Checkpoint of the model (.pt, .pth).")] = None,
    sam_model: Annotated[SamModel | None, typer.Option(help="Which model it is; sam2_base by default.")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="The image that Segment Anything looks at.")
    ] = None,
    channels: Channels = None,
    device: Annotated[str | None, typer.Option(help="For Segment Anything: cpu, cuda, cuda:1 or auto.")] = None,
    suffix: Annotated[str, typer.Option(help="For several sources: what follows their names.")] = "_clean.tif",
    match: Match = None,
    format: Format = None,
    axes: Axes = None,
    scene: Scene = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Clean labels: smooth borders, drop regions by their size, fill holes.

    Give the sources first: an option shown with ... takes all values up to the next option.

    Example: [bold]forestbridge postprocess b_segmentation.tif -o b_clean.tif[/bold]
    """
    if not sources or output is None:
        missing = "labels or probabilities" if not sources else "an output"
        raise ValueError(
            f"expected {missing}, found none; write: forestbridge postprocess b_segmentation.tif -o b_clean.tif"
        )
    files = files_of(sources, match)
    check_present([*files, *(p for p in (into, image, sam_weights) if p)])
    choice = SamChoice(sam_boxes, sam_auto, iou, sam_weights, sam_model, image, channels, device)
    choice.check()
    if (into is not None or image is not None) and len(files) > 1:
        raise ValueError(
            f"expected one source for --into and --image, found {len(files)}; merge or refine them one by one"
        )
    beside = [p for p in (into, image) if p]
    places = result_places(
        files, output, suffix, in_folder=files != sources, format=format, overwrite=overwrite, beside=beside
    )
    cleaning = Cleaning(smooth, min_area, max_area, fill_holes, max_hole, majority)
    merge = {"mode": mode, "into": into, "preserve": preserve, "slices": slices_of(slices)}
    question = Question(axes, scene, background, classes, cleaning, merge, choice)
    pairs = list(zip(files, places.paths, strict=True))
    if dry_run:
        found, failures = for_each(pairs, partial(_plan, question=question, json=json))
    else:
        writing = {"overwrite": overwrite, "format": format, "plane_by_plane": plane_by_plane}
        with made_folder(places.folder):
            found, failures = for_each(pairs, partial(_clean, question=question, writing=writing, json=json))
    if json:
        failed = [failure.to_json_dict() for failure in failures]
        print_json({"dry_run": dry_run, "outputs": [str(o) for o in found], "done": cleaning.text(), "failed": failed})
    end(len(files), failures)


def slices_of(texts: Sequence[str] | None) -> list[int] | None:
    """Return the numbers of "3" and "7-9", ascending; None for nothing.

    Raises
    ------
    ValueError
        If a text is neither.
    """
    if texts is None:
        return None
    numbers: set[int] = set()
    for text in texts:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last - first > 10**6:
            raise ValueError(f"expected slices such as 3 or 7-9, counted from 0, found {text!r}; write one of these")
        numbers |= set(range(first, last + 1))
    return sorted(numbers)


def _plan(path: Path, output: Path, *, question: Question, json: bool) -> Path:
    question.check(path)
    if not json:
        print(f"would write the labels of {shown(path)}, after {question.cleaning.text()}, to {shown(output)}")
    return output


def _clean(path: Path, output: Path, *, question: Question, writing: dict[str, Any], json: bool) -> Path:
    """Write the cleaner labels of one file."""
    found = question.check(path)
    with progress_bar(f"postprocess {path.name}") as progress:
        fb.postprocess(
            found,
            **vars(question.cleaning),
            **question.merge,
            **writing,
            classes=question.classes,
            sam=question.sam.open(),
            axes=question.axes,
            out=output,
            progress=progress,
        )
    print_path(output, json=json)
    return output
