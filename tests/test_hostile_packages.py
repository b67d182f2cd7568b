"""Hostile and broken packages: each is refused with a message; none runs, connects or writes anything."""

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import hostile_descriptions
import hostile_zips
from audit import nothing_runs
from forestbridge.archive import inspect_package, load_tensor, read_member
from forestbridge.consumers import consumer_report
from forestbridge.errors import PackageError
from packages import build, good_rdf, members, npy, write_zip

CASES = hostile_zips.CASES | hostile_descriptions.CASES


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    inspect_package(build(tmp_path_factory.mktemp("warm") / "a.zip"))  # imports what it needs


def test_cases_are_many() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_hostile_package_is_refused(name: str, tmp_path: Path) -> None:
    make, match = CASES[name]
    path = tmp_path / "case.zip"
    make(path)
    start = time.perf_counter()
    with nothing_runs(), pytest.raises(PackageError, match=f"(?s){match}"):
        inspect_package(path)
    assert time.perf_counter() - start < 5


def test_fault_is_not_in_the_tests() -> None:
    with pytest.raises(AssertionError), nothing_runs():
        compile("1", "a", "eval")


POISON = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    float("nan"),
    "",
    "x",
    "../x",
    "\0",
    "a" * 3000,
    [],
    [[]],
    [None],
    {},
    {"a": None},
]
POISON += [
    "http://127.0.0.1:9/x",
    "C:\\x",
    {"source": "x"},
    {"source": 1},
    ["x"],
    {"min": 0, "step": 0},
    float("inf"),
    "é",
]


def places(value: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every value."""
    if key:
        yield key
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in pairs:
        yield from places(item, (*key, name))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, insert or repeat a few bytes."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(data) + 1)
        length = rng.choice([1, 1, 1, 2, 8, 100])
        letters = bytes(rng.choices(b"\n -:[]{}&*!'abc019.", k=length))
        changes = [letters, letters, rng.randbytes(length), b"\xff" * length, b"\0" * length]  # same length
        changes += [b"", data[at : at + length] * 2, letters + data[at : at + length]]
        data = data[:at] + rng.choice(changes) + data[at + length :]
    return data


def mutate_fields(rdf: dict[str, Any], rng: random.Random) -> None:
    """Replace or remove one to three values of a description."""
    for _ in range(rng.randint(1, 3)):
        *head, last = rng.choice(list(places(rdf)))
        inner: Any = rdf
        for key in head:
            inner = inner[key]
        if rng.random() < 0.2 and isinstance(inner, dict):
            del inner[last]
        else:
            inner[last] = copy.deepcopy(rng.choice(POISON))


def old_format(rdf: dict[str, Any]) -> None:
    """Turn a good description into one of format 0.4."""
    rdf["format_version"] = "0.4.10"
    rdf["inputs"] = [
        {
            "name": "raw",
            "axes": "bcyx",
            "data_type": "float32",
            "shape": {"min": [1, 1, 64, 64], "step": [0, 0, 16, 16]},
        }
    ]
    shape = {"reference_tensor": "raw", "scale": [1, 0, 1, 1], "offset": [0, 1, 0, 0]}
    rdf["outputs"] = [{"name": "p", "axes": "bcyx", "data_type": "float32", "shape": shape, "halo": [0, 0, 16, 16]}]
    rdf |= {"test_inputs": ["test_raw.npy"], "test_outputs": ["test_probabilities.npy"]}


@pytest.mark.parametrize("kind", ["zip", "description", "fields", "fields of 0.4", "weights", "tensor"])
def test_mutated_packages_are_refused_or_read(kind: str, tmp_path: Path) -> None:
    rng = random.Random(f"0 {kind}")
    path = tmp_path / "a.zip"
    small = {"test_raw.npy": npy(np.zeros((1, 1, 2, 3), np.float32)), "cover.png": b"x"}
    files = members(**small)
    whole = write_zip(path, files).read_bytes()
    read = refused = 0
    for _ in range(100):
        match kind:
            case "zip":
                path.write_bytes(mutate_bytes(whole, rng))
            case "description":
                write_zip(path, files | {"rdf.yaml": mutate_bytes(files["rdf.yaml"], rng)})
            case "weights" | "tensor":
                name = {"weights": "weights.onnx", "tensor": "test_raw.npy"}[kind]
                build(path, files={**small, name: mutate_bytes(files[name], rng)})
            case _:
                rdf = good_rdf(files)
                if kind == "fields of 0.4":
                    old_format(rdf)
                mutate_fields(rdf, rng)
                write_zip(path, files | {"rdf.yaml": yaml.dump(rdf, Dumper=yaml.CSafeDumper).encode()})
        start = time.perf_counter()
        with nothing_runs():
            try:
                info = inspect_package(path)
                consumer_report(info)
                info.to_json_dict()
                for tensor in info.inputs:
                    if tensor.test in {member.name for member in info.files}:
                        load_tensor(info, str(tensor.test))
                read_member(info, "README.md")
                read += 1
            except PackageError:
                refused += 1
        assert time.perf_counter() - start < 5
    assert read + refused == 100
    assert refused > 10 and (read > 2 or kind == "zip")
