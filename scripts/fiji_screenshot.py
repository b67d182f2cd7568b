"""Draw docs/images/fiji.png: a real ImageJ, in a screen without a monitor, after the macro lines of docs/fiji.md.

    scripts/test tests/test_layering.py -q      makes the environment
    .venv/bin/python scripts/fiji_screenshot.py

Needs what the tests of the Fiji commands need: Java, Xvfb, ImageJ 1.54p in Maven's local repository.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from fiji_here import NEWEST, screen  # noqa: E402
from forestbridge.fiji.install import install  # noqa: E402
from imagej_here import ImageJ  # noqa: E402
from macro_calls import client_call  # noqa: E402

MACRO = """
run("FB Open Example", "example=tissue");
run("FB Train Forest", "input=tissue.tif labels=[labels of tissue.tif] names=[background,stained membrane,nucleus] forest=[{home}/tissue.forest]");
run("FB Segment With Package", "model=[{home}/tissue.forest] input=tissue.tif output=Segmentation rois=nucleus");
run("FB Segment With Package", "model=[{home}/tissue.forest] input=tissue.tif output=Uncertainty");
selectImage("tissue.tif"); setLocation(5, 130, 400, 440);
selectImage("labels of tissue.tif"); setLocation(410, 130, 400, 440);
selectImage("segmentation of tissue.tif"); setLocation(5, 590, 400, 440);
selectImage("uncertainty of tissue.tif"); setLocation(410, 590, 400, 440);
selectWindow("ROI Manager"); setLocation(820, 130);
selectImage("segmentation of tissue.tif"); roiManager("show all without labels");
selectWindow("Log"); run("Close");
wait(1500);
run("Capture Screen");
makeRectangle(0, 0, 1140, 1010); run("Crop");
saveAs("PNG", "{out}");
"""


def main() -> None:
    """Run the macro and keep the picture."""
    out = ROOT / "docs" / "images" / "fiji.png"
    with tempfile.TemporaryDirectory() as folder, screen() as display:
        home = Path(folder)
        for name in ("plugins", "macros", "temporary files", "classes"):
            (home / name).mkdir()
        install(home)
        imagej = ImageJ(NEWEST, home, home / "classes", display)
        try:
            print(imagej.run(MACRO.format(home=home, out=out)).text)
        finally:
            client_call("stop", cache=imagej.cache)
    print(out)


if __name__ == "__main__":
    main()
