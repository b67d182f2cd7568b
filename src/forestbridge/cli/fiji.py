"""``forestbridge fiji``: the commands for Fiji and ImageJ, into their folder and onto update sites."""

from pathlib import Path
from typing import Annotated, Any

import typer

from forestbridge.cli.messages import say
from forestbridge.cli.options import HELP, Json, Overwrite
from forestbridge.cli.output import print_json, print_result
from forestbridge.fiji.install import Installation, read_installation, write_update_site
from forestbridge.fiji.install import install as install_commands
from forestbridge.fiji.install import uninstall as uninstall_commands

app = typer.Typer(
    name="fiji",
    help="The commands for Fiji and ImageJ: install, uninstall, status, update-site.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings=HELP,
)

Fiji = Annotated[Path, typer.Option("--fiji", help="Folder of Fiji or ImageJ, the one with plugins in it.")]


@app.command()
def install(
    fiji: Fiji,
    python: Annotated[
        Path | None, typer.Option(help="Python that forestbridge is installed in; this one by default.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Copy the commands into a Fiji or ImageJ, and tell them which Python to call; again after every update of forestbridge.

    Example: [bold]forestbridge fiji install --fiji Fiji.app[/bold]
    """
    installed = install_commands(fiji, python=python, overwrite=overwrite)
    if json:
        print_json(installed.to_json_dict())
        return
    for name in installed.files:
        print(installed.folder / name)
    say(f"restart Fiji; the commands are under Plugins > ForestBridge and call {installed.python}")


@app.command()
def uninstall(fiji: Fiji, json: Json = False) -> None:
    """Remove what install wrote. Files that were changed since stay.

    Example: [bold]forestbridge fiji uninstall --fiji Fiji.app[/bold]
    """
    before = uninstall_commands(fiji)
    removed = [name for name in before.files if name not in (*before.missing, *before.changed)]
    if json:
        print_json({"fiji": str(before.folder), "removed": removed, "kept": list(before.changed)})
        return
    for name in removed:
        print(before.folder / name)
    if before.changed:
        say(f"kept, because they were changed: {', '.join(before.changed)}")


@app.command()
def status(fiji: Fiji, json: Json = False) -> None:
    """Say which commands a Fiji or ImageJ has, from which version, and which Python they call; ends with 1 if something is wrong.

    Example: [bold]forestbridge fiji status --fiji Fiji.app[/bold]
    """
    found = read_installation(fiji)
    wrong = _what_is_wrong(found)
    print_result({**_facts(found, json=json), "wrong": wrong}, json=json)
    if wrong:
        raise typer.Exit(1)


def _facts(found: Installation, *, json: bool) -> dict[str, Any]:
    return found.to_json_dict() if json else {**found.to_json_dict(), "files": len(found.files)}


def _what_is_wrong(found: Installation) -> list[str]:
    """Return what keeps the commands from working as this version of forestbridge has them."""
    from forestbridge import __version__

    again = f"forestbridge fiji install --fiji {found.folder}"
    if found.version is None:
        return [f"no commands are installed; install them: {again}"]
    wrong = [f"{name} is missing; install again: {again}" for name in found.missing]
    wrong += [f"{name} was changed; install again with --overwrite: {again} --overwrite" for name in found.changed]
    if found.version != __version__:
        wrong.append(
            f"the commands are of version {found.version}, forestbridge is {__version__}; install again: {again}"
        )
    if found.python is not None and not Path(found.python).is_file():
        wrong.append(f"there is no Python at {found.python}; install again: {again}")
    return wrong


@app.command()
def update_site(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; an older one is brought up to date.")
    ],
    json: Json = False,
) -> None:
    """Write the folder that an ImageJ update site serves. Users of the site choose their Python with FB Configure.

    Example: [bold]forestbridge fiji update-site -o site[/bold]
    """
    new = write_update_site(output)
    if json:
        print_json({"site": str(output), "new": new})
        return
    for name in new:
        print(name)
    say(f"{len(new)} files are new in {output}")
