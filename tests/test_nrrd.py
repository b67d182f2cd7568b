"""NRRD files: results of forestbridge and files of other programs are read as they are; damaged and other ones are refused."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forestbridge as fb
from command_line import done
from forestbridge.errors import ImageError
from forestbridge.image import read_image
from forestbridge.image.result_facts import read_result_facts
from forestbridge.image.result_info import ResultInfo
from forestbridge.image.writers import create_result
from image_files import RGB, SERIES, STACK, assert_reads


def nrrd(
    path: Path, array: np.ndarray, *lines: str, data: bytes | None = None, ends: str = "\n", **fields: str
) -> Path:
    """Write a file of an array, its last axis the fastest; `fields` replace what is written by default."""
    names = {"u1": "uint8", "u2": "unsigned short", "f4": "float", "f8": "double", "i2": "int16"}
    header = {
        "type": names[array.dtype.str[1:]],
        "dimension": str(array.ndim),
        "sizes": " ".join(map(str, array.shape[::-1])),
        "endian": "big" if array.dtype.str[0] == ">" else "little",
        "encoding": "raw",
    }
    header |= {name.replace("_", " "): text for name, text in fields.items()}
    text = ends.join(["NRRD0004", "# by a test", *(f"{k}: {v}" for k, v in header.items() if v), *lines, "", ""])
    path.write_bytes(text.encode() + (array.tobytes() if data is None else data))
    return path


@pytest.mark.parametrize(
    ("axes", "dtype"),
    [("YX", "u1"), ("ZYX", "u2"), ("TYX", "u4"), ("TZYX", "u1"), ("CYX", "f4"), ("CZYX", "f4"), ("TCZYX", "f4")],
)
def test_results_are_read_back(tmp_path: Path, axes: str, dtype: str) -> None:
    shape = tuple({"T": 2, "C": 2, "Z": 4, "Y": 20, "X": 30}[a] for a in axes)
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    size = {"z": 2.0, "y": 0.5, "x": 0.25} if "Z" in axes else {"y": 0.5, "x": 0.25}
    classes = {"classes": (1, 7), "names": ("soil: a\\n", "Zellkern ü"), "colours": ("#112233", "#aabbcc")}
    interval = 3.0 if "T" in axes else None
    info = ResultInfo(axes, shape, np.dtype(dtype), size, interval, **classes, provenance={"encoder": "a:=b\n"})  # pyright: ignore[reportArgumentType]
    with create_result(tmp_path / "a.nrrd", info) as writer:
        writer.write(tuple(slice(0, n) for n in shape), array)
    image = assert_reads(tmp_path / "a.nrrd", array, axes)
    assert (image.pixel_size, image.frame_interval) == (size, interval)
    facts = read_result_facts(tmp_path / "a.nrrd")
    assert facts.names == {1: "soil: a\\n", 7: "Zellkern ü"} and facts.colours == {1: "#112233", 7: "#aabbcc"}
    assert facts.provenance["encoder"] == "a: =b\n"


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", "<f8"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz"])
def test_files_of_others(tmp_path: Path, dtype: str, encoding: str) -> None:
    stack = STACK.astype(dtype)
    data = stack.tobytes() if encoding == "raw" else gzip.compress(stack.tobytes())
    kinds = {"space": "left-posterior-superior", "kinds": "domain domain domain", "space_units": '"mm" "mm" "mm"'}
    directions = "(0.001,0,0) (0,0.0006,0.0008) (0,0,0.002)"
    path = nrrd(tmp_path / "a.nrrd", stack, data=data, encoding=encoding, space_directions=directions, **kinds)
    image = assert_reads(path, stack, "ZYX")
    assert image.pixel_size == pytest.approx({"x": 1.0, "y": 1.0, "z": 2.0})


def test_axes_from_kinds(tmp_path: Path) -> None:
    assert_reads(nrrd(tmp_path / "rgb.nrrd", RGB, kinds="RGB-color domain domain"), RGB.transpose(2, 0, 1), "CYX")
    nrrd(tmp_path / "v.nrrd", RGB, space_directions="none (1,0,0) (0, 1, 0)")
    assert_reads(tmp_path / "v.nrrd", RGB.transpose(2, 0, 1), "CYX")
    nrrd(tmp_path / "t.nrrd", SERIES, kinds="space space space vector time", ends="\r\n")
    assert_reads(tmp_path / "t.nrrd", SERIES, "TCZYX")
    nrrd(tmp_path / "labels.nrrd", STACK, labels='"x" "y" "t"', spacings="0.5 0.5 2", units='"µm" "µm" "s"')
    image = assert_reads(tmp_path / "labels.nrrd", STACK, "TYX")
    assert (image.pixel_size, image.frame_interval) == ({"y": 0.5, "x": 0.5}, 2.0)
    plain = nrrd(tmp_path / "plain.nrrd", STACK, spacings="1 1 1", key="value")
    with pytest.raises(ImageError, match=r"expected axes with a name, found shape \(5, 40, 50\) .* --axes ZYX"):
        read_image(plain)
    assert read_image(assert_reads(plain, STACK, "TYX", axes="TYX").source, axes="ZYX").pixel_size == {}


def test_pixels_at_the_end(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", STACK, kinds="space space space", byte_skip="-1", data=b"1234" + STACK.tobytes())
    assert_reads(path, STACK, "ZYX")
    path = nrrd(tmp_path / "b.nrrd", STACK, kinds="space space space", byte_skip="4", data=b"1234" + STACK.tobytes())
    assert_reads(path, STACK, "ZYX")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "cut off": (
        {"data": STACK.tobytes()[:-1]},
        r"expected \d+ bytes for sizes \[50, 40, 5\] of uint16, found \d+ bytes",
    ),
    "no type": ({"type": ""}, r"expected an NRRD header, found no field 'type'"),
    "block": ({"type": "block"}, r"expected pixels that are numbers, found the type 'block'"),
    "no order": ({"endian": ""}, r"found no byte order \(endian\) for the type 'unsigned short'"),
    "text": ({"encoding": "ascii"}, r"expected raw pixels or ones packed with gzip, found 'ascii'"),
    "another file": ({"data_file": "a.raw"}, r"expected .* its pixels behind the header, found the field 'data file'"),
    "six": ({"dimension": "6"}, r"expected 2 to 5 dimensions of 1 and more, found dimension 6 and sizes 50 40 5"),
    "no numbers": ({"sizes": "a b c"}, r"expected an NRRD header, found invalid literal"),
    "huge": ({"sizes": "999999999 999999999 9"}, r"the file is cut off"),
    "huge and packed": ({"sizes": "999999999 999999999 9", "encoding": "gzip"}, r"the file is cut off"),
    "skip": ({"byte_skip": "-2"}, r"found a byte skip of -2 before raw pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    fields, message = REFUSED[name]
    path = nrrd(tmp_path / "a.nrrd", STACK, **fields)
    with pytest.raises(ImageError, match=rf"a.nrrd: .*{message}"):
        read_image(path, axes="ZYX")


def test_headers_that_are_none(tmp_path: Path) -> None:
    for content, message in (
        (b"NRRD0005\ntype: float\n", r"found no empty line in the first 21 bytes"),
        (b"NRRD0005\nnonsense\n\n", r"found the line 'nonsense'"),
        (b"NRRD0005\n\xff: 1\n\n", r"found bytes that are no text"),
    ):
        (tmp_path / "a.nrrd").write_bytes(content)
        with pytest.raises(ImageError, match=message):
            read_image(tmp_path / "a.nrrd")


def test_damaged_packed_pixels(tmp_path: Path) -> None:
    packed = gzip.compress(STACK.tobytes())
    for data, message in (
        (packed[: len(packed) // 2], r"expected 20000 bytes of pixels, found \d+ after unpacking"),
        (packed[:50] + b"\0" * 50 + packed[100:], r"expected pixels packed with gzip, found damaged ones"),
    ):
        path = nrrd(tmp_path / "a.nrrd", STACK, data=data, encoding="gzip", kinds="space space space")
        image = read_image(path)
        with pytest.raises(ImageError, match=message):
            image.plane()


def test_flipped_bytes_raise_nothing_else(tmp_path: Path) -> None:
    directions = "(1,0,0) (0,1,0) (0,0,1)"
    whole = nrrd(tmp_path / "a.nrrd", STACK[:1, :4, :4], space_directions=directions, labels='"x" "y" "z"').read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(8, len(whole), 2):
            data[at] = rng.integers(0, 256)
        (tmp_path / "a.nrrd").write_bytes(data)
        try:
            read_image(tmp_path / "a.nrrd", axes="ZYX").plane()
        except ImageError:
            continue


def test_commands_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one command writes, the next one reads, with the classes' names."""
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((60, 70), np.uint8)
    labels[5:25, 5:25], labels[35:55, 40:60] = 1, 1
    fb.instances(labels, out="objects.nrrd")
    done("measure", "objects.nrrd", "-o", "a.csv")
    assert Path("a.csv").read_text(encoding="utf-8").count("\n") == 3
    assert done("info", "objects.nrrd", "--json").json()["axes"] == "YX"
