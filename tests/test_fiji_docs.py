"""docs/fiji.md: every macro line runs in real ImageJ as it stands, and every option is in the table."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import forestbridge as fb
from fiji_here import VERSIONS, screen
from forestbridge.fiji.install import command_files, install
from imagej_here import ImageJ
from macro_calls import client_call

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

TEXT = (Path(__file__).parent.parent / "docs" / "fiji.md").read_text(encoding="utf-8")
LINES = "\n".join(re.findall(r"```ijm\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


@pytest.mark.parametrize("version", VERSIONS)
def test_lines_run(version: str, display: str, tmp_path: Path) -> None:
    home = tmp_path / "ImageJ"
    for name in ("plugins", "macros", "temporary files", "classes"):
        (home / name).mkdir(parents=True)
    install(home)
    (tmp_path / "images").mkdir()
    (tmp_path / "forestbridge-env" / "bin").mkdir(parents=True)
    (tmp_path / "forestbridge-env" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "forestbridge-env" / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (tmp_path / "forestbridge-env" / "lib").symlink_to(Path(sys.prefix) / "lib")
    imagej = ImageJ(version, home, home / "classes", display)
    copy = f'selectImage("tissue.tif"); run("Duplicate...", "title=b.tif"); saveAs("Tiff", "{tmp_path}/images/b.tif"); close();\n'
    lines = LINES.replace("/home/ada", str(tmp_path)).replace(
        'run("FB Segment Folder"', copy + 'run("FB Segment Folder"'
    )
    titles = 'list = getList("image.titles"); Array.sort(list); print(String.join(list, "|"));'
    try:
        log = imagej.run(lines + "\n" + titles).log()
    finally:
        client_call("stop", cache=imagej.cache, python=tmp_path / "forestbridge-env" / "bin" / "python")
    named = re.findall(r'"((?:segmentation|probabilities|uncertainty|features|histogram|labels) of tissue.tif)"', TEXT)
    assert set(log[-1].split("|")) == {"tissue.tif", *named}
    for name in (
        "tissue.forest",
        "regions.forest",
        "tissue.zip",
        "tissue.features.ome.zarr",
        "results/b_segmentation.tif",
    ):
        assert (tmp_path / name).exists(), name
    assert fb.load_forest(tmp_path / "regions.forest").names == ("dark", "light")
    assert fb.check_package(tmp_path / "tissue.zip").good


def test_table_has_every_option() -> None:
    table = dict(re.findall(r"^\| (FB [^|]*?) \| (.*) \|$", TEXT, re.MULTILINE))
    commands = {
        name: data.decode() for name, data in command_files().items() if "/FB_" in name and name.endswith(".ijm")
    }
    assert len(table) == len(commands) == 8
    for name, text in commands.items():
        title = Path(name).stem.replace("_", " ")
        asked = re.findall(r'Dialog\.add(String|Choice|Number|Checkbox|File|Directory)\("([^"]*)"', text)
        for kind, label in asked:
            key = label.split()[0].lower()
            assert f"`{key}`" in table[title] if kind == "Checkbox" else f"`{key}=`" in table[title], (title, key)
            assert re.search(rf"^//\s+{key}\b", text, re.MULTILINE), (title, key, "is not in the head of the macro")


def test_lines_in_the_macros_name_known_options() -> None:
    for name, data in command_files().items():
        for title, options in re.findall(r'^// run\("(FB [^"]*)", "(.*)"\);$', data.decode(), re.MULTILINE):
            assert title.replace(" ", "_") in name
            text = data.decode()
            for key in re.findall(r"(?:^| )(\w+)=", re.sub(r"\[[^]]*\]", "[]", options)):
                declared = rf'Dialog\.add\w+\("{key}"' if name.endswith(".ijm") else rf"^#@ .* {key}$"
                assert re.search(declared, text, re.IGNORECASE | re.MULTILINE), (name, key)


def test_lines_for_appose_name_known_parameters() -> None:
    lines = re.findall(r'run\("(FB [^"]* Appose)", "(.*)"\);', TEXT)
    assert len(lines) == 7
    scripts = command_files()
    for title, options in lines:
        text = scripts[f"scripts/Plugins/ForestBridge/{title.replace(' ', '_')}.groovy"].decode()
        keys = re.findall(r"(?:^| )(\w+)=", re.sub(r"\[[^]]*\]", "[]", options))
        assert keys == re.findall(r"^#@ .* (\w+)$", text, re.MULTILINE)
