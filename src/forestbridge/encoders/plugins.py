"""Encoders of other packages: found by the entry points of the group "forestbridge.encoders", opened by their name.

An entry point names a function ``open(*, channels=1, **options) -> Encoder``. The spec of the encoder carries the same name, and in
``options`` what the function takes besides `channels`: with these two an encoder is made again from its spec.
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from forestbridge.errors import ForestbridgeError, PluginError
from forestbridge.spec import EncoderSpec, require_same_spec

log = logging.getLogger(__name__)

GROUP = "forestbridge.encoders"

NAME = re.compile("[a-z][a-z0-9_]{0,63}")
"""Of a plugin's encoder: a word in lower case, so that it can stand in names of maps, files and features."""

PASSED_ON = (ForestbridgeError, ValueError, TypeError, OSError, MemoryError)
"""What a plugin may raise to its user; everything else is a defect of it."""


def find_plugins(reserved: Collection[str]) -> dict[str, EntryPoint]:
    """Return the entry point of each plugin's encoder by name; nothing of a plugin is imported.

    A name that is reserved, no word, or taken by two packages is left out with a warning.

    Parameters
    ----------
    reserved
        Names of our own encoders.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point not in found.setdefault(point.name, []):
            found[point.name].append(point)
    usable = {}
    for name, points in sorted(found.items()):
        packages = " and ".join(sorted(map(package_of, points)))
        if name in reserved:
            log.warning(
                f"the encoder {name!r} of {packages} is not used: forestbridge has one of this name; its authors can rename it"
            )
        elif not NAME.fullmatch(name):
            log.warning(
                f"the encoder {name!r} of {packages} is not used: expected a word of a-z, 0-9 and _ as its name"
            )
        elif len(points) > 1:
            log.warning(
                f"the encoder {name!r} is not used: expected one package that has it, found {packages}; uninstall one"
            )
        else:
            usable[name] = points[0]
    return usable


def open_plugin(point: EntryPoint, options: Mapping[str, Any]) -> Any:
    """Return the encoder of an entry point.

    Parameters
    ----------
    options
        What the plugin's function takes.

    Raises
    ------
    PluginError
        If the plugin cannot be imported, fails, or returns something else than an encoder whose spec has its name.
    """
    make = _guarded(point, "be imported", point.load)
    encoder = _guarded(point, "open", lambda: make(**options), passed_on=PASSED_ON)
    spec = _guarded(point, "have a spec", lambda: encoder.spec)
    if not isinstance(spec, EncoderSpec) or spec.name != point.name or not callable(getattr(encoder, "encode", None)):
        found = f"the name {spec.name!r}" if isinstance(spec, EncoderSpec) else f"a spec that is {type(spec).__name__}"
        raise PluginError(
            f"expected an encoder with the method encode and a spec of the name {point.name!r} from {package_of(point)}, found "
            f"{type(encoder).__name__} with {found}; tell its authors"
        )
    return encoder


def plugin_from_spec(point: EntryPoint, spec: EncoderSpec) -> Any:
    """Make a plugin's encoder again from its spec.

    Raises
    ------
    PluginError
        As `open_plugin`.
    SpecMismatchError
        If it makes another encoder of that, as another version of the plugin does.
    """
    encoder = open_plugin(point, {"channels": spec.channels, **spec.options})
    require_same_spec(
        spec,
        encoder.spec,
        expected_by="the store or forest",
        found_in=f"{package_of(point)} as it is installed",
        remedy="install the version that it was made with, or extract and train again",
    )
    return encoder


def package_of(point: EntryPoint) -> str:
    """Return the distribution of an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _guarded(
    point: EntryPoint, what: str, work: Callable[[], Any], *, passed_on: tuple[type[BaseException], ...] = ()
) -> Any:
    """Return what a plugin's code returns; say whose fault it is if it fails."""
    try:
        return work()
    except passed_on:
        raise
    except Exception as error:
        raise PluginError(
            f"expected the encoder {point.name!r} of {package_of(point)} to {what}, found {type(error).__name__}: {error}; update or "
            f"uninstall {package_of(point)}, or tell its authors"
        ) from error
