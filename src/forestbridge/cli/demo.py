"""The demo: the whole line on a real image."""

from pathlib import Path
from typing import Annotated

import typer

from forestbridge.cli.messages import say
from forestbridge.cli.options import Json, Overwrite
from forestbridge.cli.output import print_json, print_path, print_table, print_text, tell
from forestbridge.cli.places import made_folder
from forestbridge.consumers import format_consumer_table
from forestbridge.demo import AGREEMENT_COLUMNS, DemoResult, agreement_rows, run_demo
from forestbridge.example import EXAMPLES, write_example
from forestbridge.image.source import shown


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    json: Json = False,
) -> None:
    """Run the whole line on a real tissue image, and compare four engines.

    Example: [bold]forestbridge demo[/bold]
    """
    result = run_demo(output, say=say)
    if json:
        print_json(result.to_json_dict())
    else:
        _print_demo(result, shown(output))


def example(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(EXAMPLES)}.")] = "tissue",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write into; made if it is not there.")
    ] = Path("example"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write an image and scribbles to try things on: NAME.tif and NAME_labels.tif.

    Example: [bold]forestbridge example tissue -o example[/bold]
    """
    with made_folder(output):
        image, labels = write_example(name, output, overwrite=overwrite)
    tell(image=image, labels=labels)
    if json:
        print_json({"image": str(image), "labels": str(labels)})
    for path in (image, labels):
        print_path(path, json=json)


def _print_demo(result: DemoResult, folder: str) -> None:
    print_table("largest difference of a probability", AGREEMENT_COLUMNS, agreement_rows(result.agreement))
    print_text(format_consumer_table(result.report.consumers))
    print(f"\nLook at {folder}/index.html. Then try:")
    print(f"  ff-package inspect {folder}/tissue.zip")
    print(f"  forestbridge predict YOUR_IMAGE.tif --package {folder}/tissue.zip -o labels.png")
    print("  forestbridge labels new YOUR_IMAGE.tif -o YOUR_LABELS.tif")
