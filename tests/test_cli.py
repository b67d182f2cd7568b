"""What commands print and write: results on stdout, messages on stderr, the same numbers as the functions they call."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer

import forestbridge as fb
from command_line import CELLS, SCALES, call, done, tree, write_line
from forestbridge.cli.app import run
from forestbridge.cli.messages import messages_on_stderr
from forestbridge.cli.parsing import repeat_options

COMMANDS = ["demo", "info", "encoders", "extract", "labels", "labels stats", "labels new", "train", "predict", "verify"]
COMMANDS += ["qc", "package", *(f"package {c}" for c in ("fused", "forest", "inspect", "check", "build"))]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, scribbles, a store and a forest."""
    path = tmp_path_factory.mktemp("line")
    write_line(path)
    return path


@pytest.fixture(autouse=True)
def there(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, which has the line's files under ``line``."""
    monkeypatch.chdir(tmp_path)
    Path("line").symlink_to(line)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    text = done(*command.split(), "--help").out
    assert f"Usage: forestbridge {command} [OPTIONS]" in text
    assert done(*command.split(), "-h").out == text
    if command not in ("labels", "package"):
        assert re.search(rf"Example: (forestbridge|ff-package) {command.removeprefix('package ')}", text)
    if "..." in text.split("Options")[1] and "metavar" not in text:
        assert "takes all" in text


def test_version_and_no_arguments() -> None:
    for program in ("forestbridge", "ff-package"):
        assert done("--version", program=program).out == f"forestbridge {fb.__version__}\n"
        ended = call(program=program)
        assert ended.code == 2
        assert f"Usage: {program} [OPTIONS] COMMAND" in ended.out + ended.err
    assert done("--help", program="ff-package").out.replace("ff-package", "") != ""


@pytest.mark.parametrize(
    "typed, read",
    [
        ("a.tif --names x y -o out", "a.tif --names x --names y -o out"),
        ("a.tif -n x y", "a.tif -n x -n y"),
        ("--names x --names y", "--names x --names y"),
        ("--names=x y", "--names=x --names y"),
        ("--names x -o out a.tif", "--names x -o out a.tif"),
        ("--names x y --3d a.tif", "--names x --names y --3d a.tif"),
        ("--ignore -1 255 -2.5 -o out", "--ignore -1 --ignore 255 --ignore -2.5 -o out"),
        ("--names x -- a.tif -b.tif --names c", "--names x -- a.tif -b.tif --names c"),
        ("--names x - y", "--names x --names - --names y"),
        ("--nan -1 --names x y", "--nan -1 --names x --names y"),
        ("--names", "--names"),
        ("", ""),
    ],
)
def test_several_values(typed: str, read: str) -> None:
    assert repeat_options(typed.split(), {"--names", "-n", "--ignore"}) == read.split()


def test_several_values_in_a_command() -> None:
    line = "train line/a.tif -l line/a_labels.tif -o {}.forest --n-trees 2 {}"
    spellings = ["-n a b", "--names a b", "--names a --names b", "--names=a b", "--ignore -1 7 -n a b --nan -1"]
    for n, names in enumerate(spellings):
        done(*line.format(n, names).split())
        assert fb.load_forest(f"{n}.forest").names == ("a", "b")
    done("train", "-l", "line/a_labels.tif", "-o", "x.forest", "--n-trees", "2", "--", "line/a.tif")
    assert Path("x.forest").is_file()


def test_info_knows_what_a_file_is() -> None:
    image = done("info", "line/a.tif", "--json").json()
    assert (image["kind"], image["axes"], image["shape"]) == ("image", "YX", [96, 112])
    store = done("info", "line/a.features.ome.zarr", "--json").json()
    assert (store["kind"], store["done"], store["encoder"]["features"]) == ("store", True, 8)
    forest = done("info", "line/a.forest", "--json").json()
    assert (forest["kind"], forest["trees"], forest["classes"][1]["name"]) == ("forest", 10, "cell")
    text = done("info", "line/a.forest").out
    assert "trees: 10\n" in text
    assert "classes:\n  - value: 1\n    name: background\n" in text
    assert "subsample: yes\n" in text


def test_encoders_and_verify() -> None:
    entry = done("encoders", "--json").json()[0]
    assert (entry["name"], entry["features"], entry["halo"]) == ("filters", 49, [38, 38])
    assert len(entry["fingerprint"]) == 16
    report = done("verify", "line/a.features.ome.zarr", "--json").json()
    assert (report["ok"], report["shards"], report["problems"]) == (True, 1, [])


def test_extract_says_what_was_there() -> None:
    first = done("extract", "line/a.tif", "-o", "s.features.ome.zarr", *SCALES, "--compress")
    assert first.out == "s.features.ome.zarr\n"
    assert "0 of 1 shards were there" in first.err
    again = done("extract", "line/a.tif", "-o", "s.features.ome.zarr", *SCALES, "--json", "--repair", "--jobs", "2")
    assert "1 of 1 shards were there" in again.err
    assert again.json()["stores"] == ["s.features.ome.zarr"]
    expected = fb.features(CELLS.image, fb.open_encoder("filters", selection={name: [1.0] for name in _features()}))
    region = fb.open_store("s.features.ome.zarr").read_map("filters", spatial=(slice(0, 96), slice(0, 112)))
    np.testing.assert_array_equal(region, expected)


def _features() -> tuple[str, ...]:
    from forestbridge.encoders.filter_kernels import FEATURE_NAMES

    return FEATURE_NAMES


def test_extract_like() -> None:
    for like in ("line/a.features.ome.zarr", "line/a.forest"):
        done("extract", "line/b.tif", "-o", "like.features.ome.zarr", "--like", like)
    assert fb.open_store("like.features.ome.zarr").spec == fb.load_forest("line/a.forest").spec
    done("predict", "like.features.ome.zarr", "--forest", "line/a.forest", "-o", "from_store.npy")
    done("predict", "line/b.tif", "--forest", "line/a.forest", "-o", "from_image.npy")
    np.testing.assert_array_equal(np.load("from_store.npy"), np.load("from_image.npy"))


def test_extract_channels_axes_nan_3d() -> None:
    done("extract", "line/rgb.tif", "-o", "rgb.features.ome.zarr", *SCALES, "--channels", "0", "2")
    assert fb.open_store("rgb.features.ome.zarr").spec.channels == 2
    done("extract", "line/stack.tif", "-o", "t.features.ome.zarr", *SCALES, "--axes", "TYX")
    assert fb.open_store("t.features.ome.zarr").image.axes == "TYX"
    done("extract", "line/stack.tif", "-o", "z.features.ome.zarr", *SCALES, "--3d")
    assert fb.open_store("z.features.ome.zarr").spec.axes == "zyx"
    pixels = CELLS.image.astype(np.float32)
    pixels[0, 0] = np.nan
    np.save("nan.npy", pixels)
    done("extract", "nan.npy", "-o", "nan.features.ome.zarr", *SCALES, "--nan", "-1")


def test_dry_runs_write_nothing(line: Path) -> None:
    before = tree(Path.cwd())
    plan = done("extract", "line/a.tif", "-o", "x.features.ome.zarr", "--dry-run").out
    assert re.fullmatch(r"would write x.features.ome.zarr: 49 features of filters .*, 1 shards, 2.3 MiB\n", plan)
    train = ["train", "line/a.tif", "-l", "line/a_labels.tif", "-o", "x.forest", "--dry-run"]
    assert done(*train).out.startswith("would train on <Scribbles a_labels.tif")
    assert done(*train, "--json").json()["scribbles"][0]["warnings"] == []
    predict = ["predict", "line/a.tif", "--forest", "line/a.forest", "-o", "x.png", "--dry-run"]
    assert done(*predict).out == "would write the labels of line/a.tif to x.png\n"
    drift = [{"input": "line/a.tif", "compared": True, "notes": []}]
    assert done(*predict, "--json").json() == {"dry_run": True, "outputs": ["x.png"], "failed": [], "drift": drift}
    fused = ["package", "fused", "line/a.forest", "-o", "x.zip", "--dry-run"]
    assert done(*fused).out == "would write x.zip with onnx and torchscript weights\n"
    assert done(*fused, "--json", "--formats", "onnx").json()["formats"] == ["onnx"]
    assert tree(Path.cwd()) == before


def test_labels() -> None:
    stats = done("labels", "stats", "line/a_labels.tif", "--names", "background", "cell", "--json").json()
    assert [c["name"] for c in stats["classes"]] == ["background", "cell"]
    assert done("labels", "new", "line/stack.tif", "-o", "new.tif").out == "new.tif\n"
    assert tifffile.imread("new.tif").shape == (6, 50, 60)
    empty = call("labels", "stats", "new.tif")
    assert empty.code == 1, "such labels can train no forest"
    assert "refused: new.tif: expected painted pixels, found nothing labelled" in empty.out
    assert done("labels", "new", "line/a.tif", "-o", "new.npy", "--json").json() == {
        "labels": "new.npy",
        "size": {"Y": 96, "X": 112},
    }


def test_train_from_stores_images_and_both() -> None:
    options = ["--names", "background", "cell", "--n-trees", "5"]
    store = ["train", "line/a.features.ome.zarr", "-l", "line/a_labels.tif", *options]
    done(*store, "-o", "1.forest")
    report = done(*store, "-o", "2.forest")
    assert report.err == ""
    assert "out-of-bag accuracy" in report.out
    assert report.out.endswith("2.forest\n")
    assert Path("1.forest").read_bytes() == Path("2.forest").read_bytes()
    # the store's encoder is used for the image beside it, not the default one
    both = ["line/a.features.ome.zarr", "line/b.tif", "-l", "line/a_labels.tif", "line/a_labels.tif"]
    done("train", *both, *options, "-o", "3.forest", "--preset", "ilastik", "--max-depth", "4", "--seed", "7")
    forest = fb.load_forest("3.forest")
    assert forest.spec == fb.open_store("line/a.features.ome.zarr").spec
    assert (forest.depth(), forest.training["seed"], forest.training["preset"]) == (4, 7, "ilastik")


def test_train_on_labels_of_one_plane() -> None:
    stack = tifffile.imread("line/stack_labels.tif")
    z = int((stack > 0).sum(axis=(1, 2)).argmax())
    tifffile.imwrite("plane.tif", np.where(_corner((50, 60)), 254, stack[z]).astype(np.uint8))
    arguments = ["train", "line/stack.tif", "-l", "plane.tif", "--slice", str(z), "--ignore", "254", "--n-trees", "2"]
    ended = done(*arguments, "-o", "plane.forest", "--json")
    document = ended.json()
    assert [c["value"] for c in document["classes"]] == [1, 2]
    assert document["training"]["warnings"], "labels in one plane only"
    assert f"WARNING: {document['training']['warnings'][0]}\n" in ended.err, "beside the one JSON document on stdout"


def _corner(shape: tuple[int, int]) -> np.ndarray:
    corner = np.zeros(shape, bool)
    corner[-1, -1] = True
    return corner


def test_two_label_files_of_one_image() -> None:
    labels = tifffile.imread("line/a_labels.tif")
    np.save("one.npy", np.where(labels == 1, 1, 0))
    np.save("two.npy", np.where(labels > 0, 2, 0))
    arguments = ["train", "line/a.features.ome.zarr", "-l", "one.npy", "two.npy", "--n-trees", "2", "-o", "x.forest"]
    refused = call(*arguments)
    assert refused.code == 3
    assert "say which counts with merge='last' or merge='first' (--merge last, --merge first)" in refused.err
    forest = done(*arguments, "--merge", "first", "--json").json()
    assert forest["training"]["pixels"] == {"1": int((labels == 1).sum()), "2": int((labels == 2).sum())}


SUFFIXES = [".tif", ".tiff", ".ome.tif", ".ome.tiff", ".ome.zarr", ".npy", ".nrrd"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_predict_writes_every_format(suffix: str) -> None:
    ended = done("predict", "line/a.tif", "--forest", "line/a.forest", "-o", f"p{suffix}")
    assert ended.out == f"p{suffix}\n"
    probabilities = fb.predict(CELLS.image, fb.load_forest("line/a.forest"))
    if suffix == ".png":
        found = fb.read_scribbles("p.png").at_plane()
        np.testing.assert_array_equal(found, probabilities.argmax(0) + 1)
        return
    image = fb.read_image(f"p{suffix}", axes="CYX")
    np.testing.assert_array_equal(image.data[(slice(None),) * 3], probabilities)


@pytest.mark.parametrize("kind", ["probabilities", "labels", "uncertainty"])
def test_predict_kinds(kind: str) -> None:
    done("predict", "line/a.tif", "--forest", "line/a.forest", "-o", "k.npy", "--kind", kind)
    expected = fb.predict(CELLS.image, fb.load_forest("line/a.forest"), kind=kind)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(np.load("k.npy"), expected)
    assert (np.load("k.npy") == CELLS.truth).mean() > 0.9 or kind != "labels"


@pytest.mark.parametrize("name", ["cells[1].tif", "[bold]x[red].tif", "a:smile:b.tif", "a b#%.tif", "x" * 120 + ".tif"])
def test_names_are_printed_as_they_are(name: str) -> None:
    tifffile.imwrite(name, CELLS.image)
    ended = done("extract", name, "-o", f"{name}.features.ome.zarr", *SCALES)
    assert ended.out == f"{name}.features.ome.zarr\n"
    assert f"{name}: no pixel size in the file, sizes are in pixels\n" in ended.err
    assert f"path: {name}.features.ome.zarr\n" in done("info", f"{name}.features.ome.zarr").out


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no UTF-8")
def test_names_that_are_no_text() -> None:
    name = os.fsdecode(b"cell\xff\x1b[31m.npy")
    np.save(name, CELLS.image)
    shown = r"cell\xff\x1b[31m"
    assert done("labels", "new", name, "-o", f"{name}.tif").out == rf"{shown}.npy.tif" + "\n"
    assert f"source: {shown}.npy\n" in done("info", name).out
    assert json.loads(done("info", name, "--json").out)["kind"] == "image"


def test_tables_and_names_without_markup() -> None:
    names = ["-n", "[red]", ":cell: Zellkern ü"]
    ended = done("train", "line/a.features.ome.zarr", "-l", "line/a_labels.tif", "-o", "m.forest", *names)
    assert "  2      :cell: Zellkern ü  " in ended.out
    assert "name: [red]\n" in done("info", "m.forest").out
    assert done("info", "m.forest", "--json").json()["classes"][1]["name"] == ":cell: Zellkern ü"


def test_nothing_for_terminals_in_a_pipe() -> None:
    ended = done("predict", "line/a.tif", "--forest", "line/a.forest", "-o", "p.tif")
    assert "\x1b" not in ended.out + ended.err
    assert ended.err == "line/a.tif: no pixel size in the file, sizes are in pixels\n"


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = call("info", "nothing.tif")
    monkeypatch.setenv("FORESTBRIDGE_TRACEBACK", "1")
    ended = call("info", "nothing.tif")
    assert ended.code == plain.code == 3
    assert "Traceback" in ended.err and "Traceback" not in plain.err
    assert ended.err.endswith(plain.err)


@pytest.mark.parametrize(
    "error, code, message",
    [
        (
            MemoryError("Unable to allocate 9 GiB"),
            6,
            r"expected enough memory, found too little \(Unable to allocate 9 GiB\); work",
        ),
        (MemoryError(), 6, r"expected enough memory, found too little \(nothing left\); work on a smaller part"),
        (
            OSError(28, "No space left on device"),
            6,
            r"expected files .* found: .*No space left on device; check .* space",
        ),
        (PermissionError(13, "Permission denied", "a.tif"), 3, r"found: .*Permission denied: 'a.tif'; check"),
        (
            KeyboardInterrupt(),
            7,
            r"expected to finish, found an interruption \(Ctrl-C\); start again with: forestbridge a 'b c'",
        ),
        (ValueError("expected one, found two; give one"), 2, r"^program: expected one, found two; give one\n$"),
    ],
)
def test_errors_of_the_system(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def command() -> None:
        raise error

    program = typer.Typer()
    program.command()(command)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/program"])
    if isinstance(error, KeyboardInterrupt):
        program = typer.Typer()
        program.command()(_interrupted)
        monkeypatch.setattr(sys, "argv", ["/usr/bin/forestbridge", "a", "b c"])
    assert run(program, "program") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(message, printed.err)


def _interrupted(words: list[str]) -> None:
    raise KeyboardInterrupt


def test_warnings_of_libraries_are_one_line(capsys: pytest.CaptureFixture) -> None:
    with messages_on_stderr(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("watch out", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "WARNING: watch out\n"


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; sys.argv = ['forestbridge', 'info', 'line/a.forest']; from forestbridge.cli import main; main()"
    reader = subprocess.Popen(["head", "-c", "1"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE)
    assert reader.stdin is not None
    reader.stdin.close()
    _, err = writer.communicate()
    reader.wait()
    assert b"Traceback" not in err and b"Exception" not in err
