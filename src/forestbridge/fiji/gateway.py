"""A Fiji folder in, pyimagej's gateway out: started from the jars of the folder, without a download.

pyimagej asks Maven repositories and an index of Java installations at each start unless it is told otherwise. Here it uses the Java
and the jars that are there, and what is missing is named before Java starts: Java cannot be started twice in one process.
"""

import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from forestbridge.errors import MissingExtraError, ResourceError

if TYPE_CHECKING:
    from types import ModuleType

_log = logging.getLogger(__name__)

Mode = Literal["headless", "interactive", "gui"]
"""headless: no windows. interactive: windows, and Python goes on (not on macOS). gui: the call ends when ImageJ is closed."""

MODES: tuple[Mode, ...] = ("headless", "interactive", "gui")

OLDEST_JAVA = 11
"""JPype 1.6 and scyjava 1.12 refuse older ones."""

JARS = ("ij", "imagej", "imagej-common", "imagej-legacy", "imglib2", "scijava-common")
"""In jars/ of each Fiji: ImageJ, ImageJ2, the layer that runs macros and commands in both, and what they stand on."""


class _Running(NamedTuple):
    """What the one Java of this process was started with, and its gateway."""

    folder: Path | None
    mode: Mode
    gateway: Any


_running: _Running | None = None
"""Of the process, as its Java is: neither can be started twice."""


def start(
    fiji_dir: str | Path | None = None,
    *,
    mode: Mode = "headless",
    memory: str | None = None,
    imglyb_jar: str | Path | None = None,
    download: bool = False,
) -> Any:
    """Start Fiji in this process. Its commands, those of `forestbridge fiji install` among them, are there.

    Parameters
    ----------
    fiji_dir
        The folder of Fiji, with jars/ and plugins/; by default the environment variable FIJI_APP.
    mode
        "headless" (no windows), "interactive" (windows, Python goes on), or "gui" (returns None when ImageJ is closed).
    memory
        Largest Java heap, as "6g" or "800m"; a quarter of the machine's memory by default.
    imglyb_jar
        imglib2-imglyb-<version>.jar, which pyimagej needs; looked for in jars/ by default.
    download
        Whether pyimagej may fetch what is missing from Maven repositories and a Java from the network: without a folder, the
        newest ImageJ2.

    Returns
    -------
    ij
        pyimagej's gateway, the one of before if the same was started already.

    Raises
    ------
    MissingExtraError
        If pyimagej is not installed.
    ResourceError
        If there is no folder, no Java from version 11 on, a jar is missing, Java is running already with something else, or Fiji
        does not start.
    ValueError
        If the mode or the memory is not known.
    """
    global _running
    if mode not in MODES:
        raise ValueError(f"expected one of the modes {', '.join(MODES)}, found {mode!r}")
    if memory is not None and not re.fullmatch(r"[1-9]\d*[mgMG]", memory):
        raise ValueError(f"expected the memory as '6g' or '800m', found {memory!r}")
    try:
        import jpype
        import scyjava

        import imagej
    except ImportError as error:
        raise MissingExtraError("Fiji from Python", "fiji") from error
    folder = _folder(fiji_dir, download)
    if jpype.isJVMStarted():
        return _gateway_of(folder, mode)
    jar = None
    if folder is not None:
        _check_jars(folder)
        jar = _find_imglyb(folder, imglyb_jar, download)
    if not download:
        _use_installed_java()
    _configure(scyjava, jar, memory)
    gateway = _init(imagej, jpype, folder, mode)
    if mode != "gui":
        _running = _Running(folder, mode, gateway)
    return gateway


def _folder(fiji_dir: str | Path | None, download: bool) -> Path | None:
    """Return the absolute path of the Fiji folder; None where pyimagej may fetch ImageJ2 instead."""
    given = fiji_dir or os.environ.get("FIJI_APP")
    if given:
        return Path(given).expanduser().resolve()
    if download:
        return None
    raise ResourceError(
        "expected the folder of Fiji, found none; give it (start('/path/to/Fiji.app')), set the environment variable FIJI_APP, or "
        "let pyimagej fetch ImageJ2 from the network with download=True"
    )


def _gateway_of(folder: Path | None, mode: Mode) -> Any:
    """Return the gateway that runs, if it is the one that is asked for."""
    if _running is not None and (_running.folder, _running.mode) == (folder, mode):
        return _running.gateway
    if _running is None:
        found = (
            "one that was started elsewhere; use its gateway: to_imagej, from_imagej and segment work with any ImageJ"
        )
    else:
        found = f"{_running.folder or 'ImageJ2'} in the mode {_running.mode}; start a new Python for another one"
    raise ResourceError(
        f"expected a process without Java, or with {folder or 'ImageJ2'} in the mode {mode}, since Java starts once in a process; "
        f"found {found}"
    )


def _check_jars(folder: Path) -> None:
    names = [path.name for path in (folder / "jars").glob("*.jar")] if folder.is_dir() else []
    missing = [jar for jar in JARS if not any(re.match(rf"{re.escape(jar)}-\d", name) for name in names)]
    if not missing:
        return
    if not folder.is_dir():
        found = "no such folder"
    elif not names:
        found = "no jars there"
    else:
        found = f"{len(names)} jars, but not {', '.join(f'{jar}-<version>.jar' for jar in missing)}"
    inside = [path.parent.name for path in folder.glob("*/jars")]
    what = f"give the folder {inside[0]} in it" if inside else "give the folder of a complete Fiji (Fiji.app)"
    raise ResourceError(f"{folder}: expected a Fiji folder, with its jars in jars/, found {found}; {what}")


def _find_imglyb(folder: Path, given: str | Path | None, download: bool) -> Path | None:
    """Return the jar without which arrays cannot be shared; None where pyimagej may fetch it."""
    if given is not None:
        jar = Path(given).expanduser().resolve()
        if not jar.is_file():
            raise ResourceError(f"expected the jar of imglib2-imglyb, found no file {jar}; check imglyb_jar")
        return jar
    jars = sorted((folder / "jars").rglob("imglib2-imglyb*.jar"))
    if jars:
        return jars[-1]
    if download:
        return None
    raise ResourceError(
        f"{folder}: expected imglib2-imglyb-<version>.jar in jars/, which pyimagej needs to start, found none; put it there from the "
        "Maven repository of SciJava (net.imglib2:imglib2-imglyb), name it with imglyb_jar=, or let pyimagej fetch it with download=True"
    )


def _use_installed_java() -> None:
    """Check the Java that scyjava will take: of JAVA_HOME, else of PATH."""
    home = os.environ.get("JAVA_HOME")
    name = "java.exe" if os.name == "nt" else "java"
    of_home = Path(home) / "bin" / name if home else None
    java = of_home if of_home is not None and of_home.is_file() else shutil.which("java")
    remedy = f"install Java {OLDEST_JAVA} or newer, or set JAVA_HOME to one (Fiji brings one in its folder java/)"
    if java is None:
        raise ResourceError(f"expected Java {OLDEST_JAVA} or newer in JAVA_HOME or on PATH, found none; {remedy}")
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(
            f"expected Java {OLDEST_JAVA} or newer, found {java}, which fails: {error}; {remedy}"
        ) from error
    version = re.search(r'version "(?:1\.)?(\d+)', answer)
    if version is None or int(version[1]) < OLDEST_JAVA:
        found = f"version {version[1]}" if version else f"no version: {answer.strip()[:200]!r}"
        raise ResourceError(f"expected Java {OLDEST_JAVA} or newer, found {java} with {found}; {remedy}")
    resolved = Path(java).resolve().parent.parent
    if (resolved / "release").is_file():
        # Where PATH has a link /usr/bin/java, scyjava takes /usr for Java's home, and seconds to find Java in it.
        os.environ["JAVA_HOME"] = str(resolved)


def _configure(scyjava: "ModuleType", jar: Path | None, memory: str | None) -> None:
    """Tell scyjava what to start; its settings are those of the process."""
    # "auto" takes the Java that is there. "always", the default, downloads one, and pyimagej 1.8.0 fails with "never".
    scyjava.config.set_java_constraints(fetch="auto")
    if jar is not None:
        scyjava.config.endpoints.clear()  # imglyb, at its import, put its jar there: to be fetched from the network
        scyjava.config.add_classpath(str(jar))  # absolute: of a relative path, Java finds nothing
    if memory is not None:
        scyjava.config.add_option(f"-Xmx{memory}")


def _init(imagej: "ModuleType", jpype: "ModuleType", folder: Path | None, mode: Mode) -> Any:
    name = folder or "ImageJ2"
    _log.info("starting %s (%s)", name, mode)
    try:
        gateway = imagej.init(None if folder is None else str(folder), mode=mode)
    except (RuntimeError, OSError, TypeError, ValueError, jpype.JException) as error:
        raise ResourceError(
            f"expected {name} to start, found {type(error).__name__}: {error}; start it by itself once, then a new Python"
        ) from error
    if gateway is False:  # what pyimagej returns where net.imagej.ImageJ is missing
        raise ResourceError(
            f"expected {name} to start, found no class net.imagej.ImageJ in its jars; install Fiji again, then start a new Python"
        )
    return gateway
