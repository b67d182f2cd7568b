"""Names that every program accepts, and what is refused of what a person says about a package."""

import keyword
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestbridge.errors import PackageError
from forestbridge.package import About
from forestbridge.package.about import about_from_table
from forestbridge.package.names import channel_identifiers, model_id, model_name


@pytest.mark.parametrize(
    "name, identifier",
    [
        ("nucleus", "nucleus"),
        ("stained membrane", "stained_membrane"),
        ("  cell -- wall!  ", "cell_wall"),
        ("Zellwände (außen)", "Zellwande_auen"),
        ("µ-domain", "domain"),
        ("2nd layer", "class_2nd_layer"),
        ("class", "class_class"),
        ("None", "class_None"),
        ("核", "class_7"),
        ("核 A", "A"),
        ("___", "class_7"),
        ("a.b.c", "a_b_c"),
    ],
)
def test_channel_identifier(name: str, identifier: str) -> None:
    assert channel_identifiers([name], [7]) == (identifier,)


@given(st.text())
def test_channel_identifiers_are_identifiers(name: str) -> None:
    [identifier] = channel_identifiers([name], [3])
    assert identifier.isascii() and identifier.isidentifier() and not keyword.iskeyword(identifier)


def test_channel_identifiers_of_foreign_scripts_stay_apart() -> None:
    assert channel_identifiers(["核", "膜", "细胞质"], [1, 2, 5]) == ("class_1", "class_2", "class_5")


@pytest.mark.parametrize(
    "names, values, identifier",
    [
        (["cell wall", "cell-wall"], [1, 2], "cell_wall"),
        (["é", "e"], [1, 2], "e"),
        (["核", "class 1"], [1, 2], "class_1"),
    ],
)
def test_names_that_become_one_are_refused(names: list[str], values: list[int], identifier: str) -> None:
    message = f"found {re.escape(str(names))}, which all become '{identifier}'; rename one class"
    with pytest.raises(PackageError, match=message):
        channel_identifiers(names, values)


@pytest.mark.parametrize(
    "text, name, id",
    [
        ("nuclei", "nuclei", "nuclei"),
        ("Nuclei (v2) + cells_1", "Nuclei (v2) + cells_1", "nuclei-v2-cells-1"),
        ("ab", "ab pixel classifier", "ab"),
        ("a", "a pixel classifier", "a-pixel-classifier"),
        ("核", "pixel classifier", "pixel-classifier"),
        ("Zellkerne: Übersicht/1", "Zellkerne- Ubersicht-1", "zellkerne-ubersicht-1"),
        ("x" * 300, "x" * 128, "x" * 128),
    ],
)
def test_model_name_and_id(text: str, name: str, id: str) -> None:
    assert (model_name(text), model_id(text)) == (name, id)


@given(st.text())
def test_model_names_are_valid_and_stay(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_+\- ()]{5,128}", model_name(text))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])", model_id(text))
    assert model_name(model_name(text)) == model_name(text) and model_id(model_id(text)) == model_id(text)


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"name": "abc"},
            r"expected a package name of 5 to 128 letters.*found 'abc'; choose another, e\.g\. 'abc pixel",
        ),
        ({"name": "n" * 129}, "expected a package name of 5 to 128"),
        ({"name": "Zellwände"}, "found 'Zellwände'; choose another, e.g. 'Zellwande'"),
        ({"name": ""}, "found ''; choose another, e.g. 'pixel classifier'"),
        ({"id": "a"}, r"expected an id of 2 to 128 lower-case letters, digits and hyphens, found 'a'"),
        ({"id": "n" * 129}, "expected an id of 2 to 128"),
        ({"id": "../../etc"}, r"found '\.\./\.\./etc'; choose another, e\.g\. 'etc'"),
        ({"authors": ()}, r"expected at least one author, each with a name, found \[\]; give --author"),
        ({"authors": ({"affiliation": "here"},)}, "expected at least one author"),
        ({"authors": ({"name": "  "},)}, "expected at least one author"),
        ({"authors": ({"name": 7},)}, "expected at least one author"),
        ({"authors": ("Ada",)}, r"found \['Ada'\]"),
        (
            {"authors": ({"name": "Ada", "phone": "1"},)},
            "expected the author's fields affiliation, email, github_user, name, orcid, found phone; leave it out",
        ),
        (
            {"cite": ({"text": "A paper"},)},
            "expected a citation with text and doi or url, found .*A paper.*; correct it",
        ),
        ({"cite": ({"doi": "10.1/1"},)}, "expected a citation with text and doi or url"),
        ({"description": "d" * 1025}, "at most 1024 characters, found 1025; put the rest into the README"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        About(**values)


def test_table_of_a_recipe(tmp_path: Path) -> None:
    table = {"name": "nuclei of cells", "authors": [{"name": "Ada"}], "tags": ["histology"], "license": "MIT"}
    about = about_from_table(table, tmp_path)
    assert (about.name, about.authors, about.tags, about.license) == (
        "nuclei of cells",
        ({"name": "Ada"},),
        ("histology",),
        "MIT",
    )
    assert about.readme is None and about.cover is None
    (tmp_path / "README.md").write_text("# Größe\n", encoding="utf-8")
    (tmp_path / "cover.png").write_bytes(b"png")
    about = about_from_table(table, tmp_path)
    assert about.readme == "# Größe\n" and about.cover == tmp_path / "cover.png"


@pytest.mark.parametrize(
    "table, message",
    [
        ({"author": "Ada"}, "expected the package keys authors, cite, description, .*, found author; leave it out"),
        ({"readme": "x"}, "found readme"),
        (
            {"authors": "Ada"},
            "expected a list of tables with a name for the package key authors, found 'Ada'; correct it",
        ),
        ({"cite": {"text": "x"}}, "expected a list of tables with text and doi for the package key cite"),
        ({"tags": [1]}, r"expected a list of texts for the package key tags, found \[1\]"),
        ({"version": 1.0}, "expected text for the package key version, found 1.0; correct it"),
    ],
)
def test_table_that_is_refused(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        about_from_table(table, tmp_path)
