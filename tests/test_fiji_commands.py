"""The Fiji commands in real ImageJ: through run() from macros, as users write them, and what they record."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

import forestbridge as fb
from command_line import write_line
from fiji_here import TESTS, VERSIONS, screen
from forestbridge.fiji.install import install, uninstall
from forestbridge.phantom import phantom
from imagej_here import WITHIN, ImageJ, end_of, groovy_class_path
from macro_calls import client_call

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a forest and a package; its name has blanks."""
    path = tmp_path_factory.mktemp("the line")
    write_line(path)
    fb.write_package(path / "a.zip", fb.load_forest(path / "a.forest"), image=fb.read_image(path / "a.tif"))
    return path


@pytest.fixture(scope="module", params=VERSIONS)
def imagej(request: pytest.FixtureRequest, display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageJ]:
    """An ImageJ with our commands; its folder has blanks, too."""
    home = tmp_path_factory.mktemp(f"ImageJ {request.param}")
    for name in ("plugins", "macros", "temporary files"):
        (home / name).mkdir()
    install(home)
    found = ImageJ(request.param, home, home / "classes", display)
    found.classes.mkdir()
    yield found
    client_call("stop", cache=found.cache)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "imagej" not in request.fixturenames:
        return
    imagej: ImageJ = request.getfixturevalue("imagej")
    left = [p.name for p in imagej.temporary.iterdir() if p.name.startswith("forestbridge")]
    assert not left, "files of a call are left"


def test_the_line(imagej: ImageJ, tmp_path: Path) -> None:
    """Example, quality, training with a label image, segmentation: as the walk-through has it."""
    run = imagej.run(
        f"""
        run("FB Configure", "python=[{Path(sys.executable).parent.parent}]");
        run("FB Open Example", "example=tissue");
        print(getTitle() + " " + bitDepth());
        selectImage("labels of tissue.tif");
        getStatistics(area, mean, min, max);
        print("labels up to " + max);
        run("FB Quality Check", "input=tissue.tif");
        run("FB Train Forest", "input=tissue.tif labels=[labels of tissue.tif] names=[background, stained membrane,nucleus] forest=[{tmp_path}/t.forest] trees=10");
        run("FB Segment With Package", "model=[{tmp_path}/t.forest] input=tissue.tif output=Segmentation rois=nucleus");
        print(getTitle() + " " + bitDepth() + " " + nImages + " " + isOpen("quality of tissue.tif.csv"));
        print(d2s(roiManager("count"), 0));
        print(RoiManager.getName(0));
        saveAs("Tiff", "{tmp_path}/seg.tif");
        """
    )
    log = run.log()
    assert log[0].startswith(f"ForestBridge: forestbridge {fb.__version__} in Python 3.")
    assert log[1:3] == ["tissue.tif 24", "labels up to 3"]
    assert log[3].startswith("ForestBridge: tissue.tif: ")
    assert any("out-of-bag accuracy 0.9" in text for text in log), log
    assert log[-3] == "segmentation of tissue.tif 8 3 1"
    assert int(log[-2]) > 10
    assert log[-1] == "nucleus-1"
    forest = fb.load_forest(tmp_path / "t.forest")
    assert forest.names == ("background", "stained membrane", "nucleus")
    from forestbridge.package.recipe import sample_image

    expected = fb.predict(sample_image("immunohistochemistry"), forest, kind="labels")
    assert np.array_equal(tifffile.imread(tmp_path / "seg.tif"), expected)


IMAGES = {
    "8 bit": (np.uint8, "YX"),
    "16 bit": (np.uint16, "YX"),
    "32 bit": (np.float32, "YX"),
    "8 bit stack": (np.uint8, "ZYX"),
    "series": (np.uint16, "TYX"),
    "hyperstack": (np.uint16, "TZYX"),
}


def write_kinds(folder: Path, line: Path) -> dict[str, Path]:
    """Write an image of each kind, calibrated, with awkward names."""
    paths = {}
    plane = tifffile.imread(line / "a.tif").astype(float)
    for name, (dtype, axes) in IMAGES.items():
        planes = {"Z": 3, "T": 2}
        shape = [planes.get(a, 1) for a in axes[:-2]]
        pixels = np.stack([np.roll(plane, 5 * n, 1) for n in range(int(np.prod(shape)))]).reshape(*shape, *plane.shape)
        pixels = (pixels / 300 if dtype == np.uint8 else pixels).astype(dtype)
        paths[name] = folder / f"{name} (µm) [1].tif"
        metadata = {"axes": axes, "unit": "micron", "spacing": 0.5, "finterval": 2.5}
        tifffile.imwrite(paths[name], pixels, imagej=True, resolution=(4, 4), metadata=metadata)
    return paths


def test_every_kind_of_image(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    """Titles with blanks, brackets and letters beyond ASCII; axes and calibration; the same pixels as on the command line."""
    paths = write_kinds(tmp_path, line)
    text = ""
    for n, path in enumerate(paths.values()):
        text += f"""
        open("{path}");
        for (k = 0; k < 3; k++) {{
            selectImage(1);
            outputs = newArray("Segmentation", "Probabilities", "Uncertainty");
            run("FB Segment With Package", "model=[{line}/a.forest] output=" + outputs[k] + " device=cpu");
            getVoxelSize(w, h, d, unit);
            Stack.getDimensions(x, y, c, z, t);
            print(getTitle() + "|" + bitDepth() + "|" + x + " " + y + " " + c + " " + z + " " + t + "|" + w + " " + d + " " + Stack.getFrameInterval() + " " + unit);
            saveAs("Tiff", "{tmp_path}/{n}_" + k + ".tif");
            close();
        }}
        close("*");
        """
    log = imagej.run(text).log()
    forest = fb.load_forest(line / "a.forest")
    for n, (name, path) in enumerate(paths.items()):
        image = fb.read_image(path)
        for k, kind in enumerate(("labels", "probabilities", "uncertainty")):
            shown = ("segmentation", "probabilities", "uncertainty")[k]
            title, depth, sizes, calibration = log[3 * n + k].split("|")
            assert title == f"{shown} of {path.name}"
            assert depth == ("8" if kind == "labels" else "32")
            channels = 2 if kind == "probabilities" else 1
            wanted = [image.sizes["X"], image.sizes["Y"], channels, image.sizes["Z"], image.sizes["T"]]
            assert sizes == " ".join(map(str, wanted))
            assert calibration.startswith("0.25 ")
            assert calibration.split()[-1] in ("microns", "µm")
            if name == "hyperstack":
                assert calibration.split()[1:3] == ["0.5", "2.5"]
            found = fb.read_image(tmp_path / f"{n}_{k}.tif")
            expected = fb.predict(image, forest, kind=kind)
            assert np.array_equal(
                np.asarray(found.data[tuple(slice(None) for _ in found.axes)]).squeeze(), expected.squeeze()
            )


def test_package_and_selection(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    """A selection neither cuts out a part nor is lost; the image stays as it was; batch mode of the caller stays on."""
    log = imagej.run(
        f"""
        setBatchMode(true);
        open("{line}/a.tif");
        makeRectangle(10, 10, 20, 30);
        run("FB Segment With Package", "model=[{line}/a.zip] input=a.tif output=Probabilities tile=64 device=cpu");
        print(getTitle() + " " + getWidth() + " " + getHeight() + " " + is("Batch Mode") + " " + getInfo("slice.label"));
        saveAs("Tiff", "{tmp_path}/p.tif");
        selectImage("a.tif");
        getSelectionBounds(x, y, w, h);
        print(x + " " + y + " " + w + " " + h + " " + is("changes") + " " + getInfo("image.filename"));
        print(nImages);
        """
    ).log()
    assert log[0].startswith("probabilities of a.tif 112 96 1")
    assert log[1] == "10 10 20 30 0 a.tif"
    assert log[2] == "2"
    expected = fb.open_package(line / "a.zip").predict(fb.read_image(line / "a.tif"), tile=64)
    assert np.array_equal(tifffile.imread(tmp_path / "p.tif"), expected)


def test_training_with_regions(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    """Regions of the ROI Manager are scribbles: by group, and by name."""
    log = imagej.run(
        f"""
        open("{line}/a.tif");
        makeRectangle(2, 2, 12, 9); roiManager("add"); roiManager("select", 0); roiManager("rename", "background-1");
        makeOval(50, 40, 10, 10); roiManager("add"); roiManager("select", 1); roiManager("rename", "cell-1");
        run("FB Train Forest", "input=a.tif names=background,cell forest=[{tmp_path}/named.forest] trees=5");
        print(roiManager("count") + " " + getTitle());
        roiManager("reset");
        makeRectangle(2, 2, 12, 9); Roi.setGroup(1); roiManager("add");
        makeOval(50, 40, 10, 10); Roi.setGroup(2); roiManager("add");
        run("FB Train Forest", "input=a.tif names=[sky,sea] forest=[{tmp_path}/grouped.forest] trees=5");
        """
    ).log()
    assert "2 a.tif" in log
    assert fb.load_forest(tmp_path / "named.forest").names == ("background", "cell")
    grouped = fb.load_forest(tmp_path / "grouped.forest")
    assert (grouped.names, grouped.classes) == (("sky", "sea"), (1, 2))
    assert sum(grouped.training["pixels"].values()) > 150


def test_features_folder_and_package(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name in ("a.tif", "b.tif"):
        (tmp_path / "many" / f"x_{name}").write_bytes((line / name).read_bytes())
    (tmp_path / "many" / "notes.txt").write_text("no image")
    log = imagej.run(
        f"""
        open("{line}/a.tif");
        run("FB Extract Features", "input=a.tif store=[{tmp_path}/a.features.ome.zarr] like=[{line}/a.forest] show");
        print(getTitle() + " " + nSlices + " " + bitDepth() + " " + getInfo("slice.label"));
        run("FB Segment Folder", "model=[{line}/a.forest] folder=[{tmp_path}/many] destination=[{tmp_path}/out] filter=*_a.tif device=cpu");
        run("FB Segment Folder", "model=[{line}/a.forest] folder=[{tmp_path}/many] destination=[{tmp_path}/out] output=Uncertainty device=cpu");
        run("FB Export Package", "forest=[{line}/a.forest] package=[{tmp_path}/x.zip] input=a.tif name=[two words] author=[Ada Lovelace, Bob] license=MIT");
        """
    ).log()
    assert log[0] == f"ForestBridge: features of a.tif are in {tmp_path}/a.features.ome.zarr"
    assert log[1].startswith("features of a.tif 8 32 Gaussian Smoothing")
    assert log[2:4] == [f"ForestBridge: {n} images segmented into {tmp_path}/out" for n in (1, 2)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "x_a_segmentation.tif",
        "x_a_uncertainty.tif",
        "x_b_uncertainty.tif",
    ]
    assert fb.open_store(tmp_path / "a.features.ome.zarr").spec == fb.load_forest(line / "a.forest").spec
    info = fb.inspect_package(tmp_path / "x.zip")
    assert info.name == "two words"
    assert fb.check_package(tmp_path / "x.zip").good


SEGMENT = "FB Segment With Package"
ERROR_TITLES = (["ForestBridge"], ["Macro Error"])
"""Either is our message: ImageJ shows it as an error of the macro's line where the command has run no other command before."""

BAD_CALLS = [
    (SEGMENT, "output=Segmentation", "expected model= with the path of a package"),
    (SEGMENT, "model=[{line}/nope.zip]", "expected a package at .*nope.zip, found no such file"),
    (SEGMENT, "model=[{line}/a.forest] input=[other.tif]", "expected an open image named other.tif, found: a.tif"),
    (SEGMENT, "model=[{line}/a.tif]", "expected "),
    (SEGMENT, "model=[{line}/a.forest] tile=64", "expected --tile with --package only"),
    (SEGMENT, "model=[{line}/a.forest] device=cuda", "expected a GPU for device='cuda', found none"),
    ("FB Train Forest", "forest=[{out}/x.forest]", "expected regions in the ROI Manager, or a label image"),
    ("FB Train Forest", "labels=a.tif", "expected forest= with the path of the forest to write"),
    ("FB Train Forest", "labels=a.tif forest=[{out}/x.txt]", "expected a forest named NAME.forest"),
    ("FB Train Forest", "labels=a.tif forest=[{line}/a.forest]", "expected a new output, found that .*a.forest exists"),
    ("FB Extract Features", "input=a.tif", "expected store= with a path .*or show, found neither"),
    ("FB Extract Features", "store=[{out}/x.features.ome.zarr] encoder=nothing", "nothing"),
    (
        "FB Segment Folder",
        "model=[{line}/a.forest]",
        "expected model=, folder= and destination=, found one of them empty",
    ),
    (
        "FB Segment Folder",
        "model=[{line}/a.forest] folder=[{out}] destination=[{out}/r]",
        "expected images in the folder .*, found none",
    ),
    ("FB Export Package", "forest=[{line}/a.forest]", "expected forest= .*and package="),
    ("FB Configure", "python=[{out}/nothing]", "expected a Python, found at .*nothing: "),
    ("FB Configure", "python=[{line}]", "expected a Python in the folder .*, found none; give the folder that has bin"),
    ("FB Configure", "python=/bin/false", "expected a Python, found at /bin/false: no answer"),
    ("FB Configure", "python=/bin/echo", "expected a Python, found at /bin/echo: "),
]


def test_errors_stop_the_macro_that_called(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    macros = [
        f'close("*"); open("{line}/a.tif"); run("{command}", "{options.format(line=line, out=tmp_path)}"); print("went on");'
        for command, options, _ in BAD_CALLS
    ]
    run = imagej.run(*macros)
    for n, (command, options, expected) in enumerate(BAD_CALLS, start=1):
        dialogs, log = run.dialogs[str(n)], run.logs[str(n)]
        assert [title for title, _ in dialogs] in ERROR_TITLES, (command, options, dialogs, log)
        assert re.search(expected, dialogs[0][1]), (expected, dialogs)
        assert log == [], (command, options, log)
    assert not list(tmp_path.iterdir())


def test_without_an_image(imagej: ImageJ, line: Path) -> None:
    run = imagej.run(f'run("{SEGMENT}", "model=[{line}/a.forest]"); print("went on");')
    [(title, text)] = run.dialogs["1"]
    assert [title] in ERROR_TITLES
    assert text.startswith("expected an open image, found none; open one first")
    assert run.logs["1"] == []


def test_recorder_writes_the_documented_lines(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    """A command chosen from the menu is recorded as one line, which runs."""
    forest, out = line / "a.forest", tmp_path / "r.forest"
    commands = {
        "segment": f"{SEGMENT}\n{forest}\na.tif\n0\n\n",
        "train": f"FB Train Forest\na.tif\na_labels.tif\nbackground,cell\n{out}\n3\n-\n+\n",
        "quality": "FB Quality Check\na.tif\n-\n",
        "example": "FB Open Example\n",
    }
    run = imagej.run(f'open("{line}/a_labels.tif"); open("{line}/a.tif");', recorded=commands)
    options = f"model=[{forest}] input=a.tif output=Segmentation device=auto tile=0 rois=[]"
    assert run.recorded["segment"] == f'run("{SEGMENT}", "{options}");'
    options = f"input=a.tif labels=a_labels.tif names=background,cell forest={out} preset=default trees=3 overwrite"
    assert run.recorded["train"] == f'run("FB Train Forest", "{options}");'
    assert run.recorded["quality"] == 'run("FB Quality Check", "input=a.tif");'
    assert run.recorded["example"] == 'run("FB Open Example", "example=tissue");'
    assert fb.load_forest(out).n_trees == 3
    replayed = imagej.run(f'open("{line}/a.tif");' + run.recorded["segment"] + "print(getTitle());")
    assert replayed.log() == ["segmentation of a.tif"]


def test_two_imagejs_at_once(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    macro = imagej.home / "both"
    macro.write_text(
        f'open("{line}/a.tif"); run("{SEGMENT}", "model=[{line}/a.forest] device=cpu"); run("{SEGMENT}", "model=[{line}/a.zip] input=a.tif device=cpu");'
        'print("done " + getTitle());'
    )
    with imagej.started(macro) as one, imagej.started(macro) as other:
        for process in (one, other):
            out = end_of(process)
            assert "done segmentation of a-1.tif" in out, "the second one of this name"
            assert "DIALOG" not in out


def test_worker_killed_in_mid_call(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "big.tif", np.tile(phantom((500, 500), classes=2).image, (12, 12)))
    macro = imagej.home / "kill"
    macro.write_text(
        f'open("{tmp_path}/big.tif"); run("{SEGMENT}", "model=[{line}/a.forest] device=cpu"); print("went on");'
    )
    with imagej.started(macro) as process:
        wait_until_busy(imagej)
        [place] = [p for p in imagej.cache.glob("worker-*") if not p.suffix]
        os.kill(int(place.read_text().split()[2]), signal.SIGKILL)
        out = end_of(process)
    assert "DIALOG ForestBridge | expected the worker to finish, found that it ended in the middle of this call" in out
    assert "went on" not in out
    again = imagej.run(
        f'open("{line}/a.tif"); run("{SEGMENT}", "model=[{line}/a.forest] device=cpu"); print(getTitle());'
    )
    assert again.log() == ["segmentation of a.tif"]


def wait_until_busy(imagej: ImageJ) -> None:
    """Return as soon as a call has made progress."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for status in imagej.temporary.glob("forestbridge-*/status"):
            if "maximum=0" not in status.read_text():
                return
        time.sleep(0.005)
    raise AssertionError("no call made progress")


def test_escape_ends_the_work(imagej: ImageJ, line: Path, tmp_path: Path) -> None:
    """The Esc key ends the macro; the worker finds out that nobody waits, and stops."""
    tifffile.imwrite(tmp_path / "big.tif", np.tile(phantom((500, 500), classes=2).image, (10, 10)))
    macro, key = imagej.home / "escape", tmp_path / "press"
    macro.write_text(
        f'open("{tmp_path}/big.tif"); run("{SEGMENT}", "model=[{line}/a.zip] device=cpu tile=64"); print("went on");'
    )
    with imagej.started(macro, properties={"escape.when": str(key)}) as process:
        wait_until_busy(imagej)
        key.touch()
        assert "went on" not in end_of(process)
    end = time.monotonic() + 60
    while list(imagej.temporary.glob("forestbridge-*")) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(imagej.temporary.glob("forestbridge-*"))


def test_many_calls_leave_nothing(imagej: ImageJ, line: Path) -> None:
    run = imagej.run(
        f"""
        open("{line}/a.tif");
        for (n = 0; n < 10; n++) {{
            selectImage("a.tif");
            run("{SEGMENT}", "model=[{line}/a.forest] device=cpu");
            close();
        }}
        print(nImages + " " + getTitle());
        """
    )
    assert run.log() == ["1 a.tif"]
    clients = [p for p in psutil.process_iter(["cmdline", "environ"]) if str(imagej.cache) in str(p.info["environ"])]
    assert len([p for p in clients if "serve" in (p.info["cmdline"] or ())]) == 1
    assert not any("client.py" in " ".join(p.info["cmdline"] or ()) for p in clients)


def test_headless(line: Path, tmp_path: Path) -> None:
    """Without any display, as in a headless Fiji: the result is an open image, an error is told."""
    for name in ("plugins", "temporary"):
        (tmp_path / name).mkdir()
    install(tmp_path)
    cache, classes = tmp_path / "cache", tmp_path / "classes"
    classes.mkdir()
    libraries = groovy_class_path()
    source = TESTS / "imagej" / "RunHeadless.java"
    subprocess.run(["javac", "-nowarn", "-cp", libraries, "-d", classes, source], check=True, capture_output=True)
    options = ["-Djava.awt.headless=true", f"-Duser.home={tmp_path}", f"-Djava.io.tmpdir={tmp_path / 'temporary'}"]
    java = [
        "java",
        *options,
        "--add-opens",
        "java.base/java.lang=ALL-UNNAMED",
        "-cp",
        f"{libraries}{os.pathsep}{classes}",
    ]
    calls = [SEGMENT, f"model=[{line}/a.forest] output=Segmentation device=cpu", SEGMENT, f"model=[{line}/nope.forest]"]
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"} | {
        "FORESTBRIDGE_CACHE": str(cache)
    }
    command = [*java, "RunHeadless", tmp_path, line / "a.tif", *calls]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=WITHIN, check=False)
    client_call("stop", cache=cache)
    said = done.stdout + done.stderr
    assert said.count("TITLES|a.tif|segmentation of a.tif") == 2, said
    assert "expected a forest file, found nothing at" in said
    assert not list((tmp_path / "temporary").glob("forestbridge-*"))


def test_full_fiji(line: Path, tmp_path: Path) -> None:
    """In a Fiji of its own, headless through its launcher: the commands, of macros and of Appose, are found by their names."""
    folder = os.environ.get("FIJI_APP")
    if not folder:
        pytest.skip("FIJI_APP does not name the folder of a Fiji: the SciJava layer is not tested")
    names = ("fiji", "fiji-linux-x64", "ImageJ-linux64", "Contents/MacOS/fiji-macos", "fiji-windows-x64.exe")
    launchers = [Path(folder) / name for name in names if (Path(folder) / name).is_file()]
    assert launchers, f"FIJI_APP names {folder}, which has no launcher of Fiji"
    macro = tmp_path / "m.ijm"
    text = f'open("{line}/a.tif");\n'
    for command in (SEGMENT, f"{SEGMENT} Appose"):
        text += f'run("{command}", "model=[{line}/a.forest] input=a.tif output=Segmentation device=cpu tile=0");\n'
        text += f'selectImage("segmentation of a.tif"); saveAs("Tiff", "{tmp_path}/" + nImages + "_" + random + ".tif"); close();\n'
    macro.write_text(text)
    install(folder)
    try:
        command = [launchers[0], "--headless", "--console", "-macro", macro]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    finally:
        uninstall(folder)
    expected = fb.predict(fb.read_image(line / "a.tif"), fb.load_forest(line / "a.forest"), kind="labels")
    results = sorted(tmp_path.glob("*.tif"))
    assert len(results) == 2, done.stdout + done.stderr
    assert all(np.array_equal(tifffile.imread(path), expected) for path in results)
