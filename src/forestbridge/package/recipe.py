"""From a folder of ``model_packages`` to its zip: recipe.toml says what is trained on what, README.md and cover.png go in as they are.

[image]      source = "skimage:immunohistochemistry", or a file beside the recipe
[scribbles]  source = "forestbridge:tissue_scribbles.png", or a file beside the recipe; names = [...]; colours = [...]
[encoder]    name = "filters"; its options
[training]   preset, seed, n_trees, max_depth
[package]    name, authors, description, license, tags, cite, version, id
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from forestbridge.encoders.base import open_encoder
from forestbridge.errors import PackageError
from forestbridge.files import check_output
from forestbridge.image import Image, as_image, read_image
from forestbridge.labels import Scribbles, read_scribbles
from forestbridge.package.about import about_from_table, read_recipe
from forestbridge.package.check import CheckReport
from forestbridge.package.write import write_package
from forestbridge.train import train

TABLES = {
    "image": {"source", "axes"},
    "scribbles": {"source", "names", "colours"},
    "encoder": {"name", "selection", "compute_in_2d"},
    "training": {"preset", "seed", "n_trees", "max_depth"},
}

NEEDED = {"image": "source", "scribbles": "source", "encoder": "name"}


def build_recipe(folder: str | Path, path: str | Path, *, overwrite: bool = False) -> CheckReport:
    """Train the forest of a recipe and write its fused package; equal recipes and versions give equal bytes.

    Raises
    ------
    PackageError
        If the recipe is missing, or has keys that are not known.
    OutputExistsError, ResourceError
        If `path` exists or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    folder = Path(folder)
    recipe = read_recipe(folder)
    _check_tables(recipe, folder)
    image = _image(recipe["image"], folder)
    options = dict(recipe["encoder"])
    encoder = open_encoder(options.pop("name"), channels=image.n_channels, **options)
    forest = train([(image, _scribbles(recipe["scribbles"], folder))], encoder=encoder, **recipe["training"])
    return write_package(
        path, forest, image=image, about=about_from_table(recipe["package"], folder), overwrite=overwrite
    )


def _check_tables(recipe: dict[str, Any], folder: Path) -> None:
    expected = {*TABLES, "package"}
    if set(recipe) != expected:
        raise PackageError(
            f"expected the tables {', '.join(sorted(expected))} in {folder / 'recipe.toml'}, found "
            f"{', '.join(sorted(recipe)) or 'none'}; the module's text says what stands in each"
        )
    for table, keys in TABLES.items():
        if not isinstance(recipe[table], dict):
            raise PackageError(f"expected [{table}] to be a table in {folder / 'recipe.toml'}, found {recipe[table]!r}")
        if unknown := set(recipe[table]) - keys:
            raise PackageError(
                f"expected the keys {', '.join(sorted(keys))} in [{table}] of {folder / 'recipe.toml'}, found also "
                f"{', '.join(sorted(unknown))}; leave it out"
            )
        needed = NEEDED.get(table)
        if needed and not isinstance(recipe[table].get(needed), str):
            raise PackageError(
                f"expected {needed} = a text in [{table}] of {folder / 'recipe.toml'}, found {recipe[table].get(needed)!r}; add it"
            )


def _image(table: dict[str, Any], folder: Path) -> Image:
    source = table["source"]
    if source.startswith("skimage:"):
        return sample_image(source.removeprefix("skimage:"))
    return read_image(folder / source, axes=table.get("axes"))


def sample_image(name: str) -> Image:
    """Return an image that ships with scikit-image, e.g. "immunohistochemistry" (C, Y, X).

    Raises
    ------
    PackageError
        If it has no image of that name.
    """
    import skimage.data

    if name not in skimage.data.__all__:
        raise PackageError(f"expected the name of an image of skimage.data, found {name!r}; e.g. immunohistochemistry")
    array = getattr(skimage.data, name)()
    image = as_image(array, axes="YX" if array.ndim == 2 else "YXC")
    return Image(data=image.data, axes=image.axes, pixel_size={}, source=f"skimage.data.{name}")


def _scribbles(table: dict[str, Any], folder: Path) -> Scribbles:
    source = table["source"]
    path = data_file(source.removeprefix("forestbridge:")) if source.startswith("forestbridge:") else folder / source
    return read_scribbles(path, names=table.get("names"), colours=table.get("colours"))


def data_file(name: str) -> Path:
    """Return a file that ships with forestbridge."""
    return Path(str(files("forestbridge") / "data" / name))
