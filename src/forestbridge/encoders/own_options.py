"""Options that may differ from encoder to encoder of a combination: ``tile={"dinov2": 448, "sam2_base": 464}``."""

from collections.abc import Mapping, Sequence
from typing import Any

from forestbridge.encoders.networks import DEEP_NAMES, is_package_name, split_name

OF_EACH = ("tile", "zoom", "weights")
"""Options that may be a mapping from an encoder's name to its own value; encoders that are not in it take their default."""


def own_options(names: Sequence[str], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of each encoder, those from a mapping by its name.

    Parameters
    ----------
    names
        As `open_encoder` takes them, or those of specs.
    options
        For all of them.

    Raises
    ------
    ValueError
        If a mapping names another encoder, or one twice, or gives a package as weights; or if several networks get one file.
    """
    keys = [_key(name) for name in names]
    known = [key for key in keys if key != "filters"]
    each: list[dict[str, Any]] = [dict(options) for _ in names]
    for option in OF_EACH:
        values = options.get(option)
        if not isinstance(values, Mapping):
            continue
        if packages := [str(v) for v in values.values() if option == "weights" and is_package_name(str(v))]:
            raise ValueError(
                f"expected a file of weights for each name, found the package {packages[0]}; give a package alone: --weights {packages[0]}"
            )
        by_key = {_key(name): value for name, value in values.items()}
        if len(by_key) < len(values):
            raise ValueError(f"expected {option} once for each encoder, found {', '.join(values)}; name each once")
        if unknown := by_key.keys() - set(known):
            raise ValueError(
                f"expected {option} for encoders among {', '.join(known)}, found {', '.join(sorted(unknown))}; name one of these"
            )
        for key, own in zip(keys, each, strict=True):
            del own[option]
            own |= {option: by_key[key]} if key in by_key else {}
    networks = [key for key in keys if key in DEEP_NAMES]
    weights = options.get("weights")
    if (
        len(networks) > 1
        and weights is not None
        and not isinstance(weights, Mapping)
        and not is_package_name(str(weights))
    ):
        raise ValueError(
            f"expected a file of weights for each of {' and '.join(networks)}, found {weights} for all; give --weights "
            f"{','.join(f'{name}=FILE' for name in networks)} (weights={{{', '.join(f'{name!r}: FILE' for name in networks)}}})"
        )
    return each


def _key(name: str) -> str:
    """Return the name of an encoder without its maps; that of a package is its path."""
    return name if is_package_name(name) else split_name(name)[0]
