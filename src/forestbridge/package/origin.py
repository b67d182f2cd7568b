"""Whose network is inside: name, authors, licence and citations of a package whose graph travels in one of ours."""

import re
from dataclasses import replace
from typing import Any

from forestbridge.archive import PackageInfo
from forestbridge.encoders.package import PackageEncoder
from forestbridge.package.about import DEFAULT_LICENSE, About

_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")

MOST_TEXT = 1024
"""Characters of a description, at most."""


def origin_facts(info: PackageInfo) -> dict[str, Any]:
    """Return what stands under ``config.forestbridge.weights``: the package, its hash, and what its authors ask for."""
    weights = info.weights_of("onnx")
    return {
        "encoder": "package",
        "sha256": weights.sha256 if weights is not None else None,
        "package": {"id": info.id, "name": info.name, "format_version": info.format_version, "sha256": info.sha256},
        "authors": list(info.authors),
        "licence": info.license,
        "citation": [dict(entry) for entry in origin_citations(info)],
    }


def origin_citations(info: PackageInfo) -> tuple[dict[str, str], ...]:
    """Return a package's citations as entries of `About.cite`: those with a text and a DOI or address."""
    found = []
    for entry in info.rdf.get("cite") or []:
        if isinstance(entry, dict):
            texts = {
                key: entry[key] for key in ("text", "doi", "url") if isinstance(entry.get(key), str) and entry[key]
            }
            if "text" in texts and len(texts) > 1:
                found.append(texts)
    return tuple(found)


def origin_text(info: PackageInfo) -> str:
    """Return the section of a README on the network inside a package."""
    weights = info.weights_of("onnx")
    entries = origin_citations(info)
    places = [f"https://doi.org/{entry['doi']}" if "doi" in entry else entry["url"] for entry in entries]
    cited = "".join(f"\n- {entry['text']} {place}" for entry, place in zip(entries, places, strict=True))
    return (
        f"## Weights of the encoder\n\nThe package holds the network of the bioimage.io package *{info.name}*"
        f"{f' (`{info.id}`)' if info.id else ''} by {', '.join(info.authors) or 'authors that it does not name'}, licence: "
        f"{info.license or 'none stated'}, unchanged but for names and opset (sha256 of its ONNX file "
        f"`{weights.sha256 if weights is not None else None}`)." + (f" Cite:\n{cited}" if cited else "")
    )


def with_origin(about: About, network: PackageEncoder) -> About:
    """Return what is said about a package with the network's name, authors and licence in it.

    Where no other licence was chosen it is that of the network.
    """
    info = network.graph.info
    if info.kind == "encoder":  # its own weights have a licence and citation that are known by its spec
        return about
    text = f"Features of the model {info.name} by {', '.join(info.authors) or 'unnamed authors'}, {info.license or 'no licence stated'}."
    before = about.description or ""
    description = f"{before[: max(0, MOST_TEXT - 1 - len(text))]} {text}"[:MOST_TEXT]
    return replace(about, description=description, license=license_over(about.license, info))


def license_over(license: str, info: PackageInfo) -> str:
    """Return the licence of a package that holds the network of another one: that of the network, unless one was chosen."""
    return info.license if license == DEFAULT_LICENSE and info.license and _SPDX.fullmatch(info.license) else license
