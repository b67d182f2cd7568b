"""Real ImageJ for tests: its versions, a screen without a monitor, and macros run in a process with a time limit."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fiji_here import NEWEST, TESTS, ij_jar, missing, require_java

HERE = TESTS / "imagej"
WITHIN = 180
"""Seconds after which a run counts as hanging: a dialog that nobody answers, a pipe that nobody reads."""


@cache
def compiled(folder: Path, version: str) -> Path:
    """Compile the programs in ``tests/imagej`` into a folder."""
    require_java()
    if shutil.which("javac") is None:
        missing("javac is not installed: apt-get install openjdk-17-jdk-headless")
    done = subprocess.run(
        ["javac", "-nowarn", "-cp", ij_jar(version), "-d", folder, HERE / "RunMacro.java"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Run(NamedTuple):
    """What a run of macros said.

    Attributes
    ----------
    logs
        Lines of the Log window, by the name of the macro.
    dialogs
        (title, text) of the dialogs that were shown, by the name of the macro.
    recorded
        What the Recorder wrote, by the name of the file.
    text
        Everything.
    """

    logs: Mapping[str, list[str]]
    dialogs: Mapping[str, list[tuple[str, str]]]
    recorded: Mapping[str, str]
    text: str

    def log(self) -> list[str]:
        """Return the log of the only macro, which must have shown no dialog."""
        [lines] = self.logs.values()
        assert not any(self.dialogs.values()), self.text
        return lines


class ImageJ(NamedTuple):
    """An ImageJ of its own: folder with plugins, folder of settings and temporary files, cache folder of forestbridge."""

    version: str
    home: Path
    classes: Path
    display: str

    @property
    def temporary(self) -> Path:
        return self.home / "temporary files"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": self.display, "FORESTBRIDGE_CACHE": str(self.cache), "LC_ALL": "C.UTF-8"}

    def command(self, files: Sequence[Path], *, properties: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that runs macros."""
        options = {"user.home": str(self.home), "java.io.tmpdir": str(self.temporary), **(properties or {})}
        java = ["java", "-Xmx1g", "-XX:TieredStopAtLevel=1", *(f"-D{key}={value}" for key, value in options.items())]
        java += ["-cp", f"{ij_jar(self.version)}{os.pathsep}{compiled(self.classes, self.version)}"]
        return [*java, "RunMacro", str(self.home), *map(str, files)]

    def run(
        self, *macros: str, recorded: Mapping[str, str] | None = None, properties: Mapping[str, str] | None = None
    ) -> Run:
        """Run macros in one process, one after the other.

        Parameters
        ----------
        macros
            Their texts; they are called "1", "2", ...
        recorded
            By name, what is chosen from the menu with the Recorder open: see RunMacro.java.
        """
        files = []
        for n, text in enumerate(macros, start=1):
            files.append(self.home / str(n))
            files[-1].write_text(text, encoding="utf-8")
        for name, text in (recorded or {}).items():
            files.append(self.home / f"{name}.command")
            files[-1].write_text(text, encoding="utf-8")
        with self.started(*files, properties=properties) as process:
            return parsed(end_of(process))

    @contextmanager
    def started(self, *files: Path, properties: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start a process that runs macros; it does not outlive the block."""
        command = self.command(files, properties=properties)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def end_of(process: subprocess.Popen[str]) -> str:
    """Return what a process printed, when it has ended."""
    try:
        return process.communicate(timeout=WITHIN)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # it prints the Log window then
        text, _ = process.communicate(timeout=WITHIN)
        raise AssertionError(f"not done after {WITHIN} s:\n{text}") from None


def parsed(text: str) -> Run:
    """Take apart what RunMacro printed."""
    logs: dict[str, list[str]] = {}
    dialogs: dict[str, list[tuple[str, str]]] = {}
    recorded, current = {}, ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "===":
            current = rest.removesuffix(".command")
            logs[current], dialogs[current] = [], []
        elif word == "DIALOG":
            title, _, said = rest.partition(" | ")
            dialogs[current].append((title, said))
        elif word == "RECORDED":
            recorded[current] = rest
        elif "LUT not found" not in line:  # a jar alone has no folder with tables
            logs.setdefault(current, []).append(line)
    return Run(logs, dialogs, recorded, text)


@cache
def groovy_class_path() -> str:
    """Return the class path of ImageJ, Groovy and Appose, from Maven's local repository or fetched into it."""
    require_java()
    if shutil.which("mvn") is None:
        missing("mvn is not installed: apt-get install maven")
    ij_jar(NEWEST)
    for offline in (["-o"], []):
        command = ["mvn", *offline, "-q", "-B", "-f", HERE / "pom.xml", "dependency:build-classpath"]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "class_path"
            done = subprocess.run(
                [*command, f"-Dmdep.outputFile={file}"], capture_output=True, check=False, timeout=WITHIN
            )
            if done.returncode == 0:
                return file.read_text().strip()
    return missing(
        "Groovy and Appose are not in Maven's local repository: mvn -f tests/imagej/pom.xml dependency:resolve"
    )
