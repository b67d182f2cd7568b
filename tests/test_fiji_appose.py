"""The scripts for Appose on Groovy and Appose themselves: shared memory in and out, messages, cancelling, a worker that is lost.

What makes `#@` scripts into commands of the menu is SciJava's, which needs a Fiji: RunGroovy.java gives a script its parameters here.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

import forestbridge as fb
from command_line import write_line
from fiji_here import TESTS, screen
from forestbridge.fiji import shared
from forestbridge.fiji.install import install
from forestbridge.fiji.segment import OUTPUTS
from forestbridge.phantom import phantom
from imagej_here import WITHIN, groovy_class_path

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")
pytest.importorskip("appose", reason="the extra 'fiji' is not installed")

SEGMENT = "FB Segment With Package Appose"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a forest."""
    path = tmp_path_factory.mktemp("the line")
    write_line(path)
    return path


@pytest.fixture(scope="module")
def fiji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of a Fiji, with our commands, and the program that runs scripts."""
    home = tmp_path_factory.mktemp("a Fiji")
    for name in ("plugins", "jars", "temporary"):
        (home / name).mkdir()
    install(home)
    source = TESTS / "imagej" / "RunGroovy.java"
    subprocess.run(
        ["javac", "-nowarn", "-cp", groovy_class_path(), "-d", home, source], check=True, capture_output=True
    )
    return home


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


def run(fiji: Path, display: str, script: str) -> list[str]:
    """Run a Groovy script in an ImageJ; return the lines it printed, then those of the Log window."""
    file = fiji / "script.groovy"
    file.write_text(script, encoding="utf-8")
    java = ["java", f"-Duser.home={fiji}", f"-Djava.io.tmpdir={fiji / 'temporary'}", "-cp"]
    command = [*java, f"{groovy_class_path()}{os.pathsep}{fiji}", "RunGroovy", str(fiji), str(file)]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "DISPLAY": display}, timeout=WITHIN, check=False
    )
    return (done.stdout + done.stderr).decode().splitlines()


def shared_blocks() -> set[str]:
    return {p.name for p in Path("/dev/shm").iterdir()} if Path("/dev/shm").is_dir() else set()


def test_images_in_shared_memory(fiji: Path, display: str, line: Path, tmp_path: Path) -> None:
    """Every kind of image; the same pixels as on the command line; nothing is left behind, not even the worker."""
    before = shared_blocks()
    planes = np.stack([np.roll(tifffile.imread(line / "a.tif"), n, 1) for n in range(6)])
    images = {
        "8 bit.tif": (planes[0] // 256).astype(np.uint8),
        "16 bit.tif": planes[0],
        "32 bit.tif": planes[0].astype(np.float32),
        "series.tif": planes.reshape(2, 3, *planes.shape[1:]),
    }
    for name, pixels in images.items():
        axes = "TZYX"[-pixels.ndim :]
        tifffile.imwrite(tmp_path / name, pixels, imagej=True, resolution=(4, 4), metadata={"axes": axes, "unit": "um"})
    names = ", ".join(f'"{name}"' for name in images)
    said = run(
        fiji,
        display,
        f"""
        for (name in [{names}]) for (output in ["Segmentation", "Probabilities", "Uncertainty"]) {{
            def imp = ij.IJ.openImage("{tmp_path}/" + name)
            imp.show()
            def result = runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: name, output: output, device: "cpu"])
            println([result.title, result.bitDepth, result.NChannels, result.NSlices, result.NFrames, result.calibration.pixelWidth].join("|"))
            ij.IJ.saveAsTiff(result, "{tmp_path}/" + output + " of " + name)
            assert ij.WindowManager.getImage(result.title) == result || result.title.endsWith(".tif")
            imp.close()
        }}
        """,
    )
    forest = fb.load_forest(line / "a.forest")
    assert len([text for text in said if "|" in text]) == 12, said
    rows = iter(text.split("|") for text in said if "|" in text)
    for name, pixels in images.items():
        for output, kind in OUTPUTS.items():
            title, depth, channels, slices, frames, width = next(rows)
            assert title.lower() == f"{output} of {name}".lower()
            assert (depth, width) == ("8" if kind == "labels" else "32", "0.25")
            assert (channels, slices, frames) == (
                "2" if kind == "probabilities" else "1",
                *(("3", "2") if pixels.ndim == 4 else ("1", "1")),
            )
            expected = fb.predict(fb.read_image(tmp_path / name), forest, kind=kind)
            found = fb.read_image(tmp_path / f"{output} of {name}")
            array = np.asarray(found.data[tuple(slice(None) for _ in found.axes)])
            assert np.array_equal(array.squeeze(), expected.squeeze())
    assert shared_blocks() <= before
    workers = [
        p for p in psutil.process_iter(["cmdline"]) if "appose.python_worker" in " ".join(p.info["cmdline"] or ())
    ]
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "the worker ends with its Fiji"


def test_training_features_and_quality(fiji: Path, display: str, line: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tif").write_bytes((line / "rgb.tif").read_bytes())
    said = run(
        fiji,
        display,
        f"""
        ij.IJ.openImage("{tmp_path}/t.tif").show()
        ij.IJ.openImage("{line}/rgb_labels.tif").show()
        println runner.command(folder, "FB Train Forest Appose", [input: "t.tif", labels: "rgb_labels.tif", names: "sky, sea", forest: "{tmp_path}/x.forest", trees: 4])
        println "refused " + runner.command(folder, "FB Train Forest Appose", [input: "t.tif", labels: "rgb_labels.tif", forest: "{tmp_path}/x.forest"])
        def rm = new ij.plugin.frame.RoiManager()
        def regions = [new ij.gui.Roi(2, 2, 12, 9), new ij.gui.Roi(30, 30, 8, 8)]
        regions[0].setGroup(1); regions[1].setGroup(2)
        ij.WindowManager.getImage("t.tif").setRoi(regions[0])
        regions.each {{ rm.addRoi(it) }}
        println runner.command(folder, "FB Train Forest Appose", [input: "t.tif", forest: "{tmp_path}/r.forest", trees: 3, overwrite: true])
        def shown = runner.command(folder, "FB Extract Features Appose", [input: "t.tif"])
        println([shown.title, shown.NChannels, shown.getStack().getSliceLabel(1)].join("|"))
        ij.IJ.saveAsTiff(shown, "{tmp_path}/f.tif")
        println "verdict " + runner.command(folder, "FB Quality Check Appose", [input: "t.tif"]).verdict
        println "table " + (ij.WindowManager.getWindow("quality of t.tif") != null)
        def result = runner.command(folder, "{SEGMENT}", [model: "{tmp_path}/x.forest", input: "t.tif", device: "cpu"])
        ij.IJ.saveAsTiff(result, "{tmp_path}/s.tif")
        """,
    )
    forest = fb.load_forest(tmp_path / "x.forest")
    assert (forest.names, forest.n_trees) == (("sky", "sea"), 4)
    assert fb.load_forest(tmp_path / "r.forest").classes == (1, 2)
    assert "refused null" in said
    assert any("x.forest exists; give another name" in text for text in said), said
    assert any(text.startswith("features of t.tif|147|Gaussian Smoothing") for text in said), "\n".join(said[:12])
    assert "verdict ok" in said or "verdict look" in said
    assert "table true" in said
    image = fb.read_image(tmp_path / "t.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "s.tif"), fb.predict(image, forest, kind="labels"))
    expected = fb.features(image, fb.open_encoder("filters", channels=3))
    assert np.array_equal(tifffile.imread(tmp_path / "f.tif"), expected)


def test_folder_package_and_example(fiji: Path, display: str, line: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("a.tif", "b.tif"):
        (tmp_path / "many" / name).write_bytes((line / name).read_bytes())
    said = run(
        fiji,
        display,
        f"""
        def shown = runner.command(folder, "FB Open Example Appose", [example: "cells"])
        println "example " + shown.title + " " + ij.WindowManager.getImage("labels of cells.tif").title
        def settings = [model: "{line}/a.forest", folder: "{tmp_path}/many", destination: "{tmp_path}/out", device: "cpu"]
        println "folder " + runner.command(folder, "FB Segment Folder Appose", settings + [filter: "a*"])
        new File("{tmp_path}/many/c.tif").text = "no image"
        println "folder " + runner.command(folder, "FB Segment Folder Appose", settings + [overwrite: true])
        println "package " + runner.command(folder, "FB Export Package Appose", [forest: "{line}/a.forest", package_: "{tmp_path}/x.zip", input: "cells.tif", name: "two words", author: "Ada, Bob", license: "MIT"])
        """,
    )
    assert "example cells.tif labels of cells.tif" in said
    assert "folder [failed:[], written:1]" in said or "folder [written:1, failed:[]]" in said, said
    assert "folder null" in said
    assert any("ForestBridge: 2 of 3 done, not done: " in text and "c.tif" in text for text in said), said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_segmentation.tif", "b_segmentation.tif"]
    assert fb.inspect_package(tmp_path / "x.zip").name == "two words"
    assert not list((fiji / "temporary").glob("forestbridge-*"))


def test_errors_and_cancelling(fiji: Path, display: str, line: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "big.tif", np.tile(phantom((500, 500), classes=2).image, (8, 8)))
    said = run(
        fiji,
        display,
        f"""
        println "1 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest"])
        ij.IJ.openImage("{line}/a.tif").show()
        println "2 " + runner.command(folder, "{SEGMENT}", [:])
        println "3 " + runner.command(folder, "{SEGMENT}", [model: "{line}/nope.zip"])
        println "4 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "b.tif"])
        def file = new File(folder, "plugins/ForestBridge/lib/ForestBridge.groovy")
        def library = System.getProperties().get("forestbridge.library:" + file.lastModified())
        try {{ library.ask("1 / 0", [:]) }} catch (e) {{ println "5 " + e.message }}
        ij.IJ.openImage("{tmp_path}/big.tif").show()
        def pressing = Thread.start {{  // a command forgets what was pressed before it began
            try {{ while (true) {{ Thread.sleep(50); ij.IJ.setKeyDown(java.awt.event.KeyEvent.VK_ESCAPE) }} }} catch (InterruptedException e) {{}}
        }}
        println "6 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "big.tif", device: "cpu"])
        pressing.interrupt(); pressing.join()
        println "7 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "a.tif", device: "cpu"])
        def service = library.service()
        Thread.start {{ while (service.@tasks.isEmpty()) Thread.sleep(5); service.kill() }}  // as soon as there is work
        println "8 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "big.tif", device: "cpu"])
        println "9 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "a.tif", device: "cpu"])
        ij.Prefs.set("forestbridge.python", "/nowhere/bin/python")
        println "10 " + runner.command(folder, "{SEGMENT}", [model: "{line}/a.forest", input: "a.tif", device: "cpu"])
        """,
    )
    printed = {text.split()[0]: text for text in said if text[:1].isdigit()}
    assert all(printed[n] == f"{n} null" for n in ("1", "2", "3", "4", "6", "8", "10")), "\n".join(said)
    assert "ZeroDivisionError" in printed["5"]
    assert "segmentation of a.tif" in printed["7"]
    assert "segmentation of a.tif" in printed["9"], "after the loss of a worker the next call starts another"
    log = [text for text in said if text.startswith("ForestBridge: ")]
    for expected in (
        "expected an open image, found none",
        "expected model= with the path of a package",
        "nope.zip, found no such file",
        "expected an open image named b.tif, found: a.tif",
        "cancelled",
        "found that it ended in the middle of this call",
        "expected a Python at /nowhere/bin/python, found none",
    ):
        assert any(expected in text for text in log), (expected, said)


class FakeTask:
    """What the functions use of Appose's task."""

    def __init__(self, *, cancel_after: int = 10**9) -> None:
        self.updates: list[tuple[str | None, int | None, int | None]] = []
        self._cancel_after = cancel_after

    @property
    def cancel_requested(self) -> bool:
        return len(self.updates) >= self._cancel_after

    def update(self, message: str | None = None, current: int | None = None, maximum: int | None = None) -> None:
        self.updates.append((message, current, maximum))


class Block:
    """An array that stands for one in shared memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def ndarray(self) -> np.ndarray:
        return self.array


def test_functions_of_tasks(line: Path, tmp_path: Path) -> None:
    """The Python half by itself: classes, progress, cancelling, messages."""
    model = str(line / "a.forest")
    classes = shared.describe(model=model, device="cpu")
    assert classes["values"] == [1, 2]
    assert (classes["names"], classes["dtype"]) == (["background", "cell"], "uint8")
    plane = tifffile.imread(line / "a.tif")
    pixels, result = Block(plane[None, None, None]), Block(np.zeros((1, 1, 2, *plane.shape), np.float32))
    task = FakeTask()
    settings = {"model": model, "device": "cpu", "tile": 0, "title": "a.tif"}
    assert shared.guarded(lambda: shared.segment(task, pixels, result, output="Probabilities", **settings)).keys() == {
        "seconds"
    }
    assert np.array_equal(result.array[0, 0], fb.predict(plane, fb.load_forest(line / "a.forest")))
    message, done, total = task.updates[-1]
    assert (message, done) == ("predict a.tif", total)
    task = FakeTask(cancel_after=1)
    found = shared.guarded(lambda: shared.segment(task, pixels, result, output="Probabilities", **settings))
    assert found == {"cancelled": True}
    found = shared.guarded(
        lambda: shared.segment(task, pixels, result, output="Probabilities", **{**settings, "tile": 64})
    )
    assert found["error"] == "expected tile with a package (.zip) only, found 64 with a forest; leave it out"
    settings["model"] = str(tmp_path / "no.forest")
    found = shared.guarded(lambda: shared.segment(task, pixels, result, output="Probabilities", **settings))
    assert "no.forest" in found["error"]


@pytest.mark.parametrize("shape", [(1, 1, 1, 5, 6), (2, 1, 1, 5, 6), (1, 3, 1, 5, 6), (2, 3, 2, 5, 6)])
def test_axes_of_a_stack(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = shared.image_of(pixels, "x")
    array = np.asarray(image.data[tuple(slice(None) for _ in image.axes)])
    assert np.array_equal(shared.in_stack_order(array, image.axes), pixels)


def test_volume_features_match(line: Path) -> None:
    stack = phantom((6, 40, 44), classes=2).image  # (C, Z, Y, X)
    bank = fb.open_encoder("filters", channels=1, compute_in_2d=False)
    names = shared.feature_names(encoder="filters", like="", channels=1, volume=True)["names"]
    pixels, result = Block(np.moveaxis(stack, 0, 1)[None]), Block(np.zeros((1, 6, len(names), 40, 44), np.float32))
    shared.show_features(FakeTask(), pixels, result, encoder="filters", like="", volume=True, title="x")
    assert np.array_equal(np.moveaxis(result.array[0], 0, 1), fb.features(stack, bank))
