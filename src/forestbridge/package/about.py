"""`About`: what a person says about a package. Everything has a default, so that name and author are the most one must give."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from forestbridge.errors import PackageError
from forestbridge.package.names import MAX_NAME, MIN_ID, MIN_NAME, model_id, model_name

DEFAULT_LICENSE = "CC-BY-4.0"
DEFAULT_AUTHOR = "unnamed author"

DEFAULT_CITE = (
    {
        "text": "Ouyang, W. et al. (2022) BioImage Model Zoo: A Community-Driven Resource for Accessible Deep Learning",
        "doi": "10.1101/2022.06.07.495102",
    },
    {
        "text": "Berg, S. et al. (2019) ilastik: interactive machine learning for (bio)image analysis",
        "doi": "10.1038/s41592-019-0582-9",
    },
)
"""The zoo, and the definition of the filter bank."""

_KINDS = {
    "authors": "a list of tables with a name",
    "cite": "a list of tables with text and doi",
    "tags": "a list of texts",
}


@dataclass(frozen=True)
class About:
    """What stands in a package's description besides the numbers.

    Attributes
    ----------
    name
        5 to 128 letters, digits and ``_+- ()``; made from the file name by default.
    authors
        Each with ``name`` and optionally ``affiliation``, ``orcid``, ``github_user``, ``email``.
    id
        2 to 128 lower-case letters, digits and hyphens; made from the name by default.
    description
        One or two sentences, at most 1024 characters.
    license
        SPDX identifier.
    tags
        Beside those that follow from the package.
    cite
        Each with ``text`` and ``doi`` or ``url``.
    version
        Of the package.
    readme
        Markdown that opens the package's documentation; a short text is made by default.
    cover
        PNG, JPEG or GIF below 500 KB; made from the test image by default.
    """

    name: str | None = None
    authors: tuple[dict[str, str], ...] = ({"name": DEFAULT_AUTHOR},)
    id: str | None = None
    description: str | None = None
    license: str = DEFAULT_LICENSE
    tags: tuple[str, ...] = ()
    cite: tuple[dict[str, str], ...] = DEFAULT_CITE
    version: str = "0.1.0"
    readme: str | None = None
    cover: Path | None = None

    def __post_init__(self) -> None:
        if self.name is not None and model_name(self.name) != self.name:
            raise PackageError(
                f"expected a package name of {MIN_NAME} to {MAX_NAME} letters, digits and _ + - ( ) or space, found {self.name!r}; "
                f"choose another, e.g. {model_name(self.name)!r}"
            )
        if self.id is not None and model_id(self.id) != self.id:
            raise PackageError(
                f"expected an id of {MIN_ID} to {MAX_NAME} lower-case letters, digits and hyphens, found {self.id!r}; "
                f"choose another, e.g. {model_id(self.id)!r}"
            )
        _check_authors(self.authors)
        for entry in self.cite:
            if not _is_text_table(entry) or not entry.get("text") or not (entry.get("doi") or entry.get("url")):
                raise PackageError(f"expected a citation with text and doi or url, found {entry}; correct it")
        if self.description is not None and len(self.description) > 1024:
            raise PackageError(
                f"expected a description of at most 1024 characters, found {len(self.description)}; put the rest into the README"
            )


def _check_authors(authors: tuple[dict[str, str], ...]) -> None:
    if not authors or not all(_is_text_table(a) and a.get("name", "").strip() for a in authors):
        raise PackageError(
            f"expected at least one author, each with a name, found {list(authors)}; give --author 'Ada Lovelace'"
        )
    known = {"name", "affiliation", "orcid", "github_user", "email"}
    for author in authors:
        if unknown := set(author) - known:
            raise PackageError(
                f"expected the author's fields {', '.join(sorted(known))}, found {', '.join(sorted(unknown))}; leave it out"
            )


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def about_from_table(table: dict[str, Any], folder: Path) -> About:
    """Return the `About` of a recipe's ``[package]`` table; README.md and cover.png beside the recipe are used when they exist.

    Raises
    ------
    PackageError
        If a key is not known or a value has another type.
    """
    known = {f.name for f in fields(About)} - {"readme", "cover"}
    if unknown := set(table) - known:
        raise PackageError(
            f"expected the package keys {', '.join(sorted(known))}, found {', '.join(sorted(unknown))}; leave it out"
        )
    for key, value in table.items():
        wanted = list if key in ("authors", "cite", "tags") else str
        if not isinstance(value, wanted) or (key == "tags" and not all(isinstance(v, str) for v in value)):
            raise PackageError(
                f"expected {_KINDS.get(key, 'text')} for the package key {key}, found {value!r}; correct it"
            )
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    readme, cover = folder / "README.md", folder / "cover.png"
    return About(
        **values,
        readme=readme.read_text(encoding="utf-8") if readme.is_file() else None,
        cover=cover if cover.is_file() else None,
    )


def read_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe of a folder of ``model_packages``.

    Raises
    ------
    PackageError
        If there is no recipe.toml, or it is not TOML.
    """
    path = folder / "recipe.toml"
    if not path.is_file():
        raise PackageError(
            f"expected a folder with a recipe.toml, found none at {path}; give a folder of model_packages"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PackageError(f"expected TOML in {path}, found an error: {error}; correct it") from error
