"""From a folder of ``model_packages`` to its zip: recipe.toml says what goes in, README.md and cover.png travel as they are.

[image]      source = "skimage:immunohistochemistry", or a file beside the recipe; axes; channels = [2, 0]
[scribbles]  source = "forestbridge:tissue_scribbles.png", or a file beside the recipe; names = [...]; colours = [...]
[encoder]    name = "filters"; selection, compute_in_2d. Or name = "cellpose_cyto3:s4,s8"; tile, preprocessing, range = [0, 255]. Or
             both, "filters+cellpose_cyto3", and the keys of both; for several networks tile = { dinov2 = 448, sam2_base = 464 }
             name = "model.zip", a package beside the recipe; tile, range
[training]   preset, seed, n_trees, max_depth
[package]    name, authors, description, license, tags, cite, version, id

With all five tables a forest is trained and its fused package written; without [scribbles] and [training] a deep encoder's package.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from forestbridge.encoders.base import is_package_name, open_encoder
from forestbridge.encoders.networks import DEEP_NAMES, split_name
from forestbridge.errors import PackageError
from forestbridge.files import check_output
from forestbridge.image import Image, as_image, read_image
from forestbridge.labels import Scribbles, read_scribbles
from forestbridge.package.about import about_from_table, read_recipe
from forestbridge.package.check import CheckReport
from forestbridge.package.contents import FORMATS
from forestbridge.package.deep import require_small_network
from forestbridge.package.encoder import write_encoder_package
from forestbridge.package.write import write_package
from forestbridge.train import train

TABLES = {
    "image": {"source", "axes", "channels"},
    "scribbles": {"source", "names", "colours"},
    "training": {"preset", "seed", "n_trees", "max_depth"},
}

FILTER_KEYS = {"name", "selection", "compute_in_2d"}
NETWORK_KEYS = {"name", "tile", "range", "preprocessing"}
PACKAGE_KEYS = {"name", "tile", "range"}
"""Of the table [encoder]."""

NEEDED = {"image": "source", "scribbles": "source", "encoder": "name"}


def build_recipe(
    folder: str | Path,
    path: str | Path,
    *,
    weights: str | Path | Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
) -> CheckReport:
    """Write the package of a recipe: a fused one, whose forest is trained first, or a deep encoder alone.

    Equal recipes, weights and versions give equal bytes.

    Parameters
    ----------
    folder
        With recipe.toml.
    path
        NAME.zip.
    weights
        The user's own file for a deep encoder, or for each by its name; by default the published one, which is downloaded if it is not in
        the cache.
    overwrite
        Whether `path` may be replaced.

    Raises
    ------
    PackageError
        If the recipe is missing, has keys that are not known, or its tables make neither package.
    ValueError
        If `weights` are given for a recipe without a network.
    WeightsError, ResourceError
        If the weights are another network's, cannot be had, or are too large for a package.
    OutputExistsError, ResourceError
        If `path` exists or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    folder = Path(folder)
    recipe = load_recipe(folder)
    about = about_from_table(recipe["package"], folder)
    options = dict(recipe["encoder"])
    of_package = is_package_name(options["name"])
    networks = _networks(options["name"])
    if networks:
        require_small_network(*networks)
    elif weights is not None:
        raise ValueError(
            f"expected weights for a recipe with a deep encoder, found {options['name']!r} in {folder / 'recipe.toml'}; leave them out"
        )
    image = _image(recipe["image"], folder)
    if networks:
        options |= _intensities(options.pop("range", None), image) | {"weights": weights, "exportable": True}
    elif of_package:
        options |= _intensities(options.pop("range", None), image) | {"name": folder / options["name"]}
    else:
        options["channels"] = image.n_channels
    encoder: Any = open_encoder(options.pop("name"), **options)
    if "training" not in recipe:
        return write_encoder_package(path, encoder, image=image, about=about, overwrite=overwrite)
    forest = train([(image, _scribbles(recipe["scribbles"], folder))], encoder=encoder, **recipe["training"])
    own = encoder if networks or of_package else None
    formats = ("onnx",) if of_package else FORMATS  # a package's ONNX graph is taken over, and there is no other
    return write_package(path, forest, image=image, about=about, formats=formats, encoder=own, overwrite=overwrite)


def load_recipe(folder: Path) -> dict[str, Any]:
    """Return the tables of a recipe that makes a package.

    Raises
    ------
    PackageError
        If it is missing, has keys that are not known, or its tables make no package.
    """
    recipe = read_recipe(folder)
    _check_tables(recipe, folder / "recipe.toml")
    return recipe


def _networks(name: str) -> list[str]:
    """Return the names of the networks among the encoders with + between them, without their maps."""
    return [network for network, _ in map(split_name, name.split("+")) if network in DEEP_NAMES]


def _check_tables(recipe: dict[str, Any], path: Path) -> None:
    alone, fused = {"image", "encoder", "package"}, {*TABLES, "encoder", "package"}
    if set(recipe) not in (alone, fused):
        raise PackageError(
            f"expected the tables {', '.join(sorted(fused))} in {path}, or {', '.join(sorted(alone))} for a deep encoder alone, found "
            f"{', '.join(sorted(recipe)) or 'none'}; add what is missing, or leave out what is too much"
        )
    for table, content in recipe.items():
        if not isinstance(content, dict):
            raise PackageError(f"expected [{table}] to be a table in {path}, found {content!r}")
    for table, needed in NEEDED.items():
        if table in recipe and not isinstance(recipe[table].get(needed), str):
            raise PackageError(
                f"expected {needed} = a text in [{table}] of {path}, found {recipe[table].get(needed)!r}; add it"
            )
    name = recipe["encoder"]["name"]
    parts, networks = name.split("+"), _networks(name)
    filters, of_package = parts.count("filters"), is_package_name(name) and len(parts) == 1
    known_parts = of_package or filters + len(networks) == len(parts)
    if not known_parts or (set(recipe) == alone and (of_package or filters or len(networks) > 1)):
        others = "" if set(recipe) == alone else ", or filters, or several with + between,"
        remedy = ", or add [scribbles] and [training]" if set(recipe) == alone else ""
        raise PackageError(
            f"expected one of the deep encoders {', '.join(DEEP_NAMES)}{others} in [encoder] of {path}, found {name!r}; "
            f"choose one{remedy}"
        )
    own_keys = (NETWORK_KEYS if networks else set()) | (FILTER_KEYS if filters else set())
    known = {**TABLES, "encoder": PACKAGE_KEYS if of_package else own_keys}
    for table in recipe.keys() - {"package"}:
        if unknown := set(recipe[table]) - known[table]:
            raise PackageError(
                f"expected the keys {', '.join(sorted(known[table]))} in [{table}] of {path}, found also "
                f"{', '.join(sorted(unknown))}; leave it out"
            )
    _check_values(recipe, path)


def _check_values(recipe: dict[str, Any], path: Path) -> None:
    """Refuse values of another kind, where what takes them would say nothing of the recipe."""
    limits, tile = recipe["encoder"].get("range", [0, 1]), recipe["encoder"].get("tile", 1)
    sides = list(tile.values()) if isinstance(tile, dict) and "+" in recipe["encoder"]["name"] else [tile]
    channels = recipe["image"].get("channels", [0])
    for key, value, kind, good in (
        ("range", limits, "two numbers, low < high", _are(limits, (int, float)) and len(limits) == 2),
        ("tile", tile, "a whole number", _are(sides, int)),
        ("channels", channels, "whole numbers from 0 on", _are(channels, int) and channels and min(channels) >= 0),
    ):
        if not good:
            raise PackageError(f"expected {key} = {kind} in {path}, found {value!r}; correct it")


def _are(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def _intensities(limits: list[float] | None, image: Image) -> dict[str, Any]:
    """Return what becomes black and white, as `open_encoder` takes it: the recipe's range for each channel, or measured."""
    if limits is None:
        return {"images": [image]}
    count = image.n_channels
    return {"channels": count, "low": [limits[0]] * count, "high": [limits[1]] * count}


def _image(table: dict[str, Any], folder: Path) -> Image:
    source, channels = table["source"], table.get("channels")
    if source.startswith("skimage:"):
        return sample_image(source.removeprefix("skimage:"), channels=channels)
    return read_image(folder / source, axes=table.get("axes"), channels=channels)


def sample_image(name: str, *, channels: list[int] | None = None) -> Image:
    """Return an image that ships with scikit-image, e.g. "immunohistochemistry" (C, Y, X).

    Parameters
    ----------
    channels
        Of a colour image, counted from 0; by default all.

    Raises
    ------
    PackageError
        If it has no image of that name, or not these channels.
    """
    import skimage.data

    if name not in skimage.data.__all__:
        raise PackageError(f"expected the name of an image of skimage.data, found {name!r}; e.g. immunohistochemistry")
    array = getattr(skimage.data, name)()  # (Y, X) or (Y, X, C)
    if channels is not None:
        count = 1 if array.ndim == 2 else array.shape[-1]
        if max(channels) >= count:
            raise PackageError(
                f"expected channels of skimage.data.{name} from 0 to {count - 1}, found {channels}; correct it"
            )
        array = array if array.ndim == 2 else array[..., channels]
    image = as_image(array, axes="YX" if array.ndim == 2 else "YXC")
    return Image(data=image.data, axes=image.axes, pixel_size={}, source=f"skimage.data.{name}")


def _scribbles(table: dict[str, Any], folder: Path) -> Scribbles:
    source = table["source"]
    path = data_file(source.removeprefix("forestbridge:")) if source.startswith("forestbridge:") else folder / source
    return read_scribbles(path, names=table.get("names"), colours=table.get("colours"))


def data_file(name: str) -> Path:
    """Return a file that ships with forestbridge."""
    return Path(str(files("forestbridge") / "data" / name))
