"""``forestbridge encoders``: which there are, their weights, and what they cost here."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forestbridge.cli.messages import progress_bar, say
from forestbridge.cli.options import Json
from forestbridge.cli.output import print_json, print_path, print_result, print_table, print_text
from forestbridge.encoders import encoder_names
from forestbridge.encoders.catalogue import describe_encoder, fetch_weights, measure_encoder
from forestbridge.errors import PluginError
from forestbridge.weights import checkpoint_of

COLUMNS = ["name", "features", "strides", "parameters", "download", "weights", "licence of the weights", "what for"]

LIST, DOWNLOAD = "list", "download"

Action = Literal["list", "download"]


def encoders(
    action: Annotated[Action, typer.Argument(help="What to do: list, or download weights.")] = LIST,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With download: the encoder.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="With download: take the weights from this file of yours.", metavar="FILE")
    ] = None,
    measure: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compute one tile with this encoder, and say what it costs here.")
    ] = None,
    json: Json = False,
) -> None:
    """List the encoders, with advice; download the weights of one; or measure what one costs on this machine.

    Example: [bold]forestbridge encoders[/bold]
    """
    if (action == DOWNLOAD) != (name is not None) or (measure and action == DOWNLOAD):
        raise ValueError(
            "expected one of: encoders; encoders download NAME; encoders --measure NAME; found another combination"
        )
    if weights is not None and action != DOWNLOAD:
        raise ValueError("expected --weights with download NAME, found it alone; add: download NAME")
    if name is not None:
        _download(name, weights, json=json)
    elif measure is not None:
        print_result(measure_encoder(measure)._asdict(), json=json)
    else:
        _list(json=json)


def _list(*, json: bool) -> None:
    """Print all encoders."""
    found = []
    for name in encoder_names():
        try:
            found.append(describe_encoder(name))
        except PluginError as error:  # the others are listed all the same
            say(str(error))
    if json:
        print_json(found)
        return
    print_table("encoders, for images of one channel", COLUMNS, [_row(facts) for facts in found])
    print_text(
        "download weights: forestbridge encoders download NAME; cost on this machine: forestbridge encoders --measure NAME"
    )


def _row(facts: dict[str, Any]) -> list[str]:
    """Return an encoder's row of the table."""
    deep = facts["parameters"] > 0
    strides = " ".join(f"{stride:g}" for stride in sorted(set(facts["maps"].values())))
    size = f"{facts['megabytes']} MB" if deep else "-"
    parameters = f"{facts['parameters'] / 1e6:.1f} M" if deep else "-"
    state = facts["weights"].split(",")[0]
    return [facts["name"], str(facts["features"]), strides, parameters, size, state, facts["licence"], facts["advice"]]


def _download(name: str, weights: Path | None, *, json: bool) -> None:
    """Fetch weights, or take the user's own, and print where they are."""
    with progress_bar(f"{name}, MB") as progress:
        found = fetch_weights(name, weights=weights, progress=progress)
    if json:
        encoder = found.path.name.rsplit("-", 1)[0]
        licence = None if weights else checkpoint_of(encoder).licence
        print_json({"encoder": encoder, "weights": str(found.path), "sha256": found.sha256, "licence": licence})
    print_path(found.path, json=json)
