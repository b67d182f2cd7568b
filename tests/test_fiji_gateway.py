"""Fiji from Python: what is missing is said before Java starts; images and segmentations are right in two versions of ImageJ.

Java starts once in a process, so that each of its tests is a process of its own; fiji_in_java.py has the checks of images.
"""

import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fiji_here import NEWEST, ij_jar, require_java, run_python, screen
from forestbridge.errors import MissingExtraError, ResourceError
from forestbridge.fiji import gateway, start, to_imagej
from forestbridge.package import write_package
from small_line import CELLS, small_forest

JARS = (
    "ij-1.54p",
    "imagej-2.17.0",
    "imagej-common-2.1.1",
    "imagej-legacy-2.0.2",
    "imglib2-7.1.5",
    "scijava-common-2.99.2",
)
IMGLYB = "imglib2-imglyb-2.0.1"

REAL_FIJI = os.environ.get("FIJI_APP")
"""Read when the tests are collected: each test runs without the variable."""
JAVA_HOME = os.environ.get("JAVA_HOME")


def fiji_folder(path: Path, *jars: str) -> Path:
    """Make a folder like Fiji's, with jars that have nothing in them."""
    for folder in ("jars", "plugins"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for jar in jars:
        with zipfile.ZipFile(path / "jars" / f"{jar}.jar", "w") as file:
            file.writestr("empty.txt", "")
    return path


def java_that_says(path: Path, text: str) -> Path:
    """Make a Java home whose Java prints a text."""
    java = path / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a Fiji folder, and with a Java that is never started."""
    monkeypatch.delenv("FIJI_APP", raising=False)
    monkeypatch.setenv("JAVA_HOME", str(java_that_says(tmp_path / "java", 'openjdk version "17.0.15" 2025-04-15')))


def own_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the processes of a test the Java of this machine."""
    monkeypatch.delenv("JAVA_HOME")
    if JAVA_HOME:
        monkeypatch.setenv("JAVA_HOME", JAVA_HOME)


class Recorded(SimpleNamespace):
    """What pyimagej and scyjava were told, in place of starting Java."""

    calls: list[Any]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    import scyjava

    import imagej

    found = Recorded(
        calls=[], answer="gateway", options=[], classpath=[], endpoints=["net.imglib2:imglib2-imglyb:1.1.0"]
    )

    def init(folder: str | None, *, mode: str) -> Any:
        found.calls.append((folder, mode))
        if isinstance(found.answer, Exception):
            raise found.answer
        return found.answer

    monkeypatch.setattr(imagej, "init", init)
    monkeypatch.setattr(scyjava.config, "endpoints", found.endpoints)
    monkeypatch.setattr(scyjava.config, "add_option", found.options.append)
    monkeypatch.setattr(scyjava.config, "add_classpath", found.classpath.append)
    monkeypatch.setattr(gateway, "_running", None)
    return found


def test_no_folder() -> None:
    with pytest.raises(
        ResourceError, match=r"expected the folder of Fiji, found none; give it .*FIJI_APP.*download=True"
    ):
        start()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagej", None)
    with pytest.raises(
        MissingExtraError, match=r"Fiji from Python needs the extra 'fiji'.*pip install 'forestbridge\[fiji\]'"
    ):
        start("/fiji")


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="expected one of the modes headless, interactive, gui, found 'window'"):
        start("/fiji", mode="window")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected the memory as '6g' or '800m', found '6 GB'"):
        start("/fiji", memory="6 GB")


def test_folders_that_are_no_fiji(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"expected a Fiji folder, with its jars in jars/, found no such folder"):
        start(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResourceError, match=r"found no jars there; give the folder of a complete Fiji"):
        start(tmp_path / "empty")
    fiji_folder(tmp_path / "downloads" / "Fiji.app", *JARS)
    with pytest.raises(ResourceError, match=r"found no jars there; give the folder Fiji\.app in it"):
        start(tmp_path / "downloads")
    plain = fiji_folder(tmp_path / "ImageJ", "ij-1.54p", "imglib2-imglyb-2.0.1")
    missing = (
        "imagej-<version>.jar, imagej-common-<version>.jar, imagej-legacy-<version>.jar, imglib2-<version>.jar, scijava"
    )
    with pytest.raises(ResourceError, match=rf"found 2 jars, but not {missing}"):
        start(plain)


def test_the_jar_that_pyimagej_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fiji_folder(tmp_path / "Fiji.app", *JARS)
    with pytest.raises(
        ResourceError, match=r"expected imglib2-imglyb-<version>\.jar in jars/.*found none; put it there"
    ):
        start(folder)
    monkeypatch.setenv("FIJI_APP", str(folder))
    with pytest.raises(ResourceError, match=r"expected imglib2-imglyb-<version>\.jar in jars/"):
        start()
    with pytest.raises(
        ResourceError, match=r"expected the jar of imglib2-imglyb, found no file .*b\.jar; check imglyb_jar"
    ):
        start(imglyb_jar=tmp_path / "b.jar")


def test_java_is_missing_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    for text, found in (
        ('java version "1.8.0_292"', r"java with version 8; install Java 11"),
        ('openjdk version "9.0.4"', r"java with version 9; install Java 11"),
        ("no Java here", r"java with no version: 'no Java here'; install Java 11"),
    ):
        home = java_that_says(tmp_path / text[:16].replace(" ", "_"), text)
        monkeypatch.setenv("JAVA_HOME", str(home))
        with pytest.raises(ResourceError, match=found):
            start(folder)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ResourceError, match=r"expected Java 11 or newer in JAVA_HOME or on PATH, found none; install Java 11"
    ):
        start(folder)


def test_start_is_offline(tmp_path: Path, told: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    import scyjava

    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    monkeypatch.chdir(tmp_path)
    assert start("Fiji.app", memory="6g") == "gateway"
    assert told.calls == [(str(folder), "headless")]
    assert told.endpoints == []
    assert told.classpath == [str(folder / "jars" / f"{IMGLYB}.jar")]
    assert told.options == ["-Xmx6g"]
    assert scyjava.config.get_fetch_java() == "auto"


def test_java_home_behind_a_link(tmp_path: Path, told: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    home = tmp_path / "java"
    (home / "release").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert start(folder) == "gateway"
    assert os.environ["JAVA_HOME"] == str(home)


def test_start_may_download(tmp_path: Path, told: Recorded) -> None:
    assert start(download=True) == "gateway"
    assert start(fiji_folder(tmp_path / "Fiji.app", *JARS), download=True, mode="interactive") == "gateway"
    assert told.calls == [(None, "headless"), (str(tmp_path / "Fiji.app"), "interactive")]
    assert told.endpoints == ["net.imglib2:imglib2-imglyb:1.1.0"]


def test_fiji_does_not_start(tmp_path: Path, told: Recorded) -> None:
    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    told.answer = False
    with pytest.raises(ResourceError, match=r"Fiji\.app to start, found no class net\.imagej\.ImageJ in its jars"):
        start(folder)
    told.answer = RuntimeError("Failed to create a JVM")
    with pytest.raises(
        ResourceError, match=r"Fiji\.app to start, found RuntimeError: Failed to create a JVM; start it by itself"
    ):
        start(folder)


def test_one_java_in_a_process(tmp_path: Path, told: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    import jpype

    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    first = start(folder)
    monkeypatch.setattr(jpype, "isJVMStarted", lambda: True)
    assert start(str(folder)) is first
    with pytest.raises(
        ResourceError, match=r"found .*Fiji\.app in the mode headless; start a new Python for another one"
    ):
        start(folder, mode="interactive")
    monkeypatch.setattr(gateway, "_running", None)
    with pytest.raises(ResourceError, match=r"Java starts once in a process; found one that was started elsewhere"):
        start(folder)


def test_images_need_java() -> None:
    with pytest.raises(
        ResourceError, match=r"expected a running ImageJ, found no Java in this process; call forestbridge\.fiji\.start"
    ):
        to_imagej(CELLS.image, "a")


def test_parameters_of_the_script() -> None:
    """A formatter that writes `# @` makes a script without parameters."""
    scripts = Path(gateway.__file__).parent / "scripts"
    [path] = scripts.rglob("FB_*.py")
    declared = [line.split()[-1] for line in path.read_text(encoding="ascii").splitlines() if line.startswith("#@")]
    assert declared == ["imp", "model", "output", "result"]


IN_A_JAVA_OF_OUR_OWN = """
import os, sys
import numpy as np, pytest
from forestbridge.errors import ResourceError
from forestbridge.fiji import start, to_imagej
for name in ("http_proxy", "https_proxy"):
    os.environ[name] = "http://127.0.0.1:9"  # whoever asks the network fails
with pytest.raises(ResourceError, match="found TypeError: Class net.imglib2.python.Helpers is not found"):
    start(sys.argv[1])  # its jar is empty
from scyjava import jimport
assert jimport("java.lang.System").getProperty("plugins.dir") == sys.argv[1] + "/plugins"
with pytest.raises(ResourceError, match="found one that was started elsewhere"):
    start(sys.argv[1])
if sys.argv[2] == "ij":
    assert to_imagej(np.zeros((2, 3)), "a").getWidth() == 3
else:
    with pytest.raises(ResourceError, match="found one without the class ij.ImagePlus"):
        to_imagej(np.zeros((2, 3)), "a")
"""


@pytest.mark.parametrize("content", ["ij", "nothing"])
def test_pyimagej_starts_java_from_the_jars_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """All of the way but the last step: ImageJ2 and imglib2-imglyb are in a real Fiji only."""
    require_java()
    own_java(monkeypatch)
    folder = fiji_folder(tmp_path / "Fiji.app", *JARS, IMGLYB)
    if content == "ij":
        (folder / "jars" / "ij-1.54p.jar").write_bytes(ij_jar(NEWEST).read_bytes())
    run_python("-c", IN_A_JAVA_OF_OUR_OWN, folder, content)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    small_forest().save(folder / "cells.forest")
    write_package(folder / "cells.zip", small_forest(), image=CELLS.image, formats=["onnx"])
    return folder


@pytest.fixture
def display() -> Iterator[str]:
    with screen() as name:
        yield name


def check_images(
    monkeypatch: pytest.MonkeyPatch, version: str, models: Path, tmp_path: Path, **environment: str
) -> None:
    jar = ij_jar(version)
    own_java(monkeypatch)
    checks = Path(__file__).with_name("fiji_in_java.py")
    folder = tmp_path / "checks"
    print(run_python(checks, f"--basetemp={folder}", JAR=str(jar), MODELS=str(models), **environment))


@pytest.mark.parametrize("version", ["1.53t", NEWEST])
def test_images_in_imagej(
    monkeypatch: pytest.MonkeyPatch, version: str, models: Path, tmp_path: Path, display: str
) -> None:
    check_images(monkeypatch, version, models, tmp_path, DISPLAY=display, SCREEN="yes")


def test_images_in_imagej_without_a_screen(monkeypatch: pytest.MonkeyPatch, models: Path, tmp_path: Path) -> None:
    check_images(monkeypatch, NEWEST, models, tmp_path, DISPLAY="", SCREEN="no")


IN_FIJI = """
import sys
from pathlib import Path
import numpy as np, pytest
import forestbridge as fb
from forestbridge.errors import ResourceError
from forestbridge.fiji import from_imagej, segment, start, to_imagej
from small_line import CELLS
models = Path(sys.argv[1])
ij = start()
assert start() is ij
with pytest.raises(ResourceError, match="start a new Python for another one"):
    start(mode="interactive")
imp = to_imagej(CELLS.image, "cells.tif")
result = segment(imp, models / "cells.zip", output="Probabilities")
np.testing.assert_array_equal(from_imagej(result).data, fb.open_package(models / "cells.zip").predict(CELLS.image))
np.testing.assert_array_equal(ij.py.from_java(imp), CELLS.image)
answer = ij.py.run_macro('newImage("a", "8-bit black", 7, 5, 1); run("Add...", "value=3");')
print(ij.getVersion())
"""


def test_a_real_fiji(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL_FIJI:
        pytest.skip("the environment variable FIJI_APP names no Fiji folder with imglib2-imglyb-<version>.jar in jars/")
    require_java()
    own_java(monkeypatch)
    print(run_python("-c", IN_FIJI, models, FIJI_APP=REAL_FIJI))
