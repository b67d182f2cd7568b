"""What a call from Fiji costs beyond the prediction itself: cold, warm through files and shared memory; and what many calls leave.

The prediction itself is `fb.predict` (for packages `Package.predict`) on the pixels in memory, in a warm process, timed before and
after the calls from Fiji; the worker's own figures are in the company of ImageJ, which takes its share of the cores. A cold call
includes the start of the worker. Times are medians; other work on the machine shows in all of them.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import psutil
import tifffile

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import forestbridge as fb  # noqa: E402
from fiji_here import NEWEST, screen  # noqa: E402
from forestbridge.fiji.install import install  # noqa: E402
from imagej_here import ImageJ, groovy_class_path  # noqa: E402
from macro_calls import client_call  # noqa: E402

WARM = 12
"""Warm calls of which the median is taken."""

ROWS = (
    "prediction itself, by itself",
    "cold call, beyond it",
    "warm call with files, beyond it",
    "the same, beyond the command as the worker times it",
    "warm call with shared memory, beyond it",
    "the same, beyond the prediction as the worker times it",
)

MACRO = """
open("{image}");
for (n = 0; n < {calls}; n++) {{
    selectImage("image.tif");
    began = getTime();
    run("FB Segment With Package", "model=[{model}] input=image.tif output=Segmentation device=cpu");
    print("call " + (getTime() - began));
    close();
}}
"""

SCRIPT = """
ij.IJ.openImage("{image}").show()
for (int n = 0; n < {calls}; n++) {{
    long began = System.nanoTime()
    def result = runner.command(folder, "FB Segment With Package Appose", [model: "{model}", input: "image.tif", device: "cpu"])
    println("call " + (System.nanoTime() - began) / 1e6 + " " + 1000 * result.getProperty("forestbridge.seconds"))
    result.close()
}}
"""


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--calls", type=int, default=200, help="warm calls in a row of which memory and files are counted"
    )
    parser.add_argument("--models", nargs="+", choices=["forest", "package"], default=["forest", "package"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, screen() as display:
        home = Path(folder)
        models = [m for m in write_models(home) if {".zip": "package"}.get(m.suffix, "forest") in chosen.models]
        install(home)
        imagej = ImageJ(NEWEST, home, home / "classes", display)
        print("| what | " + " | ".join(chosen.models) + " |\n|---" + "|---:" * len(models) + "|")
        rows = {name: [] for name in ROWS}
        for model in models:
            for name, milliseconds in times(imagej, home, model).items():
                rows[name].append(milliseconds)
        for name, cells in rows.items():
            print(f"| {name} | " + " | ".join(f"{cell:.0f} ms" for cell in cells) + " |")
        print(f"\n{many(imagej, home, models[0], chosen.calls)}")


def write_models(home: Path) -> list[Path]:
    """Write a 1024 x 1024 image, and a forest and a package for it; return the two."""
    for name in ("plugins", "jars", "macros", "temporary files", "classes"):
        (home / name).mkdir()
    drawn = fb.phantom((1024, 1024), classes=2)
    tifffile.imwrite(home / "image.tif", drawn.image)
    forest = fb.train([(drawn.image, drawn.scribbles)], encoder=fb.open_encoder("filters"))
    forest.save(home / "cells.forest")
    fb.write_package(home / "cells.zip", forest, image=fb.as_image(drawn.image))
    return [home / "cells.forest", home / "cells.zip"]


def times(imagej: ImageJ, home: Path, model: Path) -> dict[str, float]:
    """Return milliseconds by name."""
    alone = prediction_itself(home, model)
    try:
        found = calls_of(imagej.run(MACRO.format(image=home / "image.tif", model=model, calls=WARM + 1)).text)
    finally:
        client_call("stop", cache=imagej.cache)
    inside = [1000 * float(s) for s in re.findall(r"^status=ok classes.*\((\S+) s\)$", log_of(imagej), re.MULTILINE)][
        -WARM:
    ]
    shared = calls_of(run_groovy(imagej, home, SCRIPT.format(image=home / "image.tif", model=model, calls=WARM + 1)))
    alone += prediction_itself(home, model)
    warm = [call for call, _ in found[1:]]
    return dict(
        zip(
            ROWS,
            (
                median(alone),
                found[0][0] - median(alone),
                median(warm) - median(alone),
                median([call - command for call, command in zip(warm, inside, strict=True)]),
                median([call for call, _ in shared[1:]]) - median(alone),
                median([call - prediction for call, prediction in shared[1:]]),
            ),
            strict=True,
        )
    )


def log_of(imagej: ImageJ) -> str:
    return (imagej.cache / "macro.log").read_text()


def prediction_itself(home: Path, model: Path) -> list[float]:
    """Return milliseconds of predictions in this process, without the first."""
    pixels = tifffile.imread(home / "image.tif")
    if model.suffix == ".zip":
        package = fb.open_package(model)
        predict = partial(package.predict, pixels, kind="labels")
    else:
        forest = fb.load_forest(model)
        predict = partial(fb.predict, pixels, forest, kind="labels")
    found = []
    for _ in range(8):
        began = perf_counter()
        predict()
        found.append(1000 * (perf_counter() - began))
    return found[1:]


def calls_of(text: str) -> list[tuple[float, float]]:
    """Return milliseconds of each call, and of the prediction in it where that is told."""
    rows = [line.split() for line in text.splitlines() if line.startswith("call ")]
    found = [(float(row[1]), float(row[2]) if len(row) > 2 else 0.0) for row in rows]
    assert found, text
    return found


def run_groovy(imagej: ImageJ, home: Path, script: str) -> str:
    """Run a script for Appose, as the tests do."""
    source, file = ROOT / "tests" / "imagej" / "RunGroovy.java", home / "script.groovy"
    if not (home / "RunGroovy.class").exists():
        subprocess.run(["javac", "-nowarn", "-cp", groovy_class_path(), "-d", home, source], check=True)
    file.write_text(script)
    command = [
        "java",
        f"-Duser.home={home}",
        "-cp",
        f"{groovy_class_path()}{os.pathsep}{home}",
        "RunGroovy",
        home,
        file,
    ]
    return subprocess.run(command, env=imagej.environment, capture_output=True, text=True, check=False).stdout


def many(imagej: ImageJ, home: Path, model: Path, calls: int) -> str:
    """Make many warm calls; say how the worker's memory grew from the 20th to the last, and what is left of processes and files."""
    macro = home / "many"
    macro.write_text(MACRO.format(image=home / "image.tif", model=model, calls=calls))
    process = subprocess.Popen(imagej.command([macro]), env=imagej.environment, stdout=subprocess.PIPE, text=True)
    resident: list[int] = []
    before = done = log_of(imagej).count("status=ok")
    while process.poll() is None:
        if (now := log_of(imagej).count("status=ok")) > done:
            done = now
            place = next(p for p in imagej.cache.glob("worker-*") if not p.suffix)
            resident.append(psutil.Process(int(place.read_text().split()[2])).memory_info().rss)
        sleep(0.05)
    left = list((imagej.temporary).glob("forestbridge*"))
    workers = [p for p in psutil.process_iter(["cmdline", "environ"]) if str(imagej.cache) in str(p.info["environ"])]
    client_call("stop", cache=imagej.cache)
    early, late = median(resident[15:25]) / 2**20, median(resident[-10:]) / 2**20
    return (
        f"{done - before} calls in a row: the worker's memory went from {early:.0f} MiB (about the 20th call) to {late:.0f} MiB; "
        f"processes besides ImageJ: {len(workers)}, the worker; temporary files left: {len(left)}."
    )


if __name__ == "__main__":
    main()
