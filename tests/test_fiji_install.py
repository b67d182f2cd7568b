"""Commands into a Fiji folder and out of it, and onto an update site: nothing else is touched."""

import gzip
import hashlib
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import forestbridge
from command_line import call, done, tree
from forestbridge.errors import OutputExistsError, ResourceError
from forestbridge.fiji import install as module
from forestbridge.fiji.install import command_files, install, read_installation, uninstall, write_update_site

COMMANDS = ["Configure", "Export_Package", "Extract_Features", "Open_Example", "Quality_Check"]
COMMANDS += ["Segment_Folder", "Segment_With_Package", "Train_Forest"]


@pytest.fixture
def fiji(tmp_path: Path) -> Path:
    """A folder like that of a Fiji, with a file of somebody else."""
    folder = tmp_path / "Fiji.app"
    for name in ("plugins", "jars", "scripts/Plugins"):
        (folder / name).mkdir(parents=True)
    (folder / "plugins" / "Other_.ijm").write_text("print(1);")
    return folder


def test_commands_are_plain_ascii_macros() -> None:
    found = command_files()
    for command in COMMANDS:
        text = found[f"plugins/ForestBridge/FB_{command}.ijm"].decode("ascii")
        title = "FB " + command.replace("_", " ")
        assert text.startswith(f"// {title}: ")
        assert f'\n// run("{title}", "' in text
        assert f'\nDialog.create("{title}");\n' in text
    assert not any("\r" in data.decode() for data in found.values())


def test_install_and_uninstall(fiji: Path) -> None:
    before = tree(fiji)
    installed = install(fiji)
    assert installed.version == forestbridge.__version__
    assert installed.python == sys.executable
    assert (installed.missing, installed.changed) == ((), ())
    assert all((fiji / name).read_bytes() == data for name, data in command_files().items())
    assert (fiji / "plugins/ForestBridge/lib/python.txt").read_text() == f"{sys.executable}\n"
    again = tree(fiji)
    install(fiji)
    assert tree(fiji) == again
    uninstall(fiji)
    assert tree(fiji) == before


def test_plain_imagej_gets_macros_only(tmp_path: Path) -> None:
    (tmp_path / "ImageJ" / "plugins").mkdir(parents=True)
    installed = install(tmp_path)  # the folder above will do
    assert installed.folder == tmp_path / "ImageJ"
    assert all(name.startswith("plugins/") for name in installed.files)
    assert not (tmp_path / "ImageJ" / "scripts").exists()


def test_files_of_others_are_kept(fiji: Path) -> None:
    mine = fiji / "plugins/ForestBridge/FB_Configure.ijm"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(
        OutputExistsError, match=r"expected only files of ours .*found plugins/ForestBridge/FB_Configure\.ijm made"
    ):
        install(fiji)
    assert mine.read_text() == "mine"
    assert install(fiji, overwrite=True).changed == ()
    mine.write_text("changed")
    (fiji / "plugins/ForestBridge/lib/end.ijm").unlink()
    found = read_installation(fiji)
    assert found.changed == ("plugins/ForestBridge/FB_Configure.ijm",)
    assert found.missing == ("plugins/ForestBridge/lib/end.ijm",)
    with pytest.raises(
        OutputExistsError, match=r"FB_Configure\.ijm made or changed by somebody else; save them elsewhere"
    ):
        install(fiji)
    uninstall(fiji)
    assert sorted(p.name for p in (fiji / "plugins").rglob("*") if p.is_file()) == ["FB_Configure.ijm", "Other_.ijm"]


def test_update_removes_commands_that_are_no_more(fiji: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    today = command_files()
    monkeypatch.setattr(module, "command_files", lambda scripts: {**today, "plugins/ForestBridge/FB_Old.ijm": b"old"})
    install(fiji)
    assert (fiji / "plugins/ForestBridge/FB_Old.ijm").exists()
    monkeypatch.undo()
    install(fiji)
    assert not (fiji / "plugins/ForestBridge/FB_Old.ijm").exists()


def test_refusals(fiji: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"expected the folder of a Fiji or ImageJ, found none at .*nowhere; give the folder"
    ):
        install(tmp_path / "nowhere")
    with pytest.raises(ResourceError, match=r"with a folder plugins in it, found .*jars without"):
        install(fiji / "jars")
    with pytest.raises(
        ResourceError, match=r"expected a Python at .*nopython, found none; give its path with --python"
    ):
        install(fiji, python=tmp_path / "nopython")
    with pytest.raises(
        ResourceError, match=r"expected commands of forestbridge in .*Fiji\.app, found none; nothing is removed"
    ):
        uninstall(fiji)
    install(fiji)
    (fiji / "plugins/ForestBridge/lib/installed.json").write_text("{")
    with pytest.raises(ResourceError, match=r"expected the record of installed files .*found a damaged one .*; remove"):
        read_installation(fiji)


def test_status_tells_what_is_wrong(fiji: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = call("fiji", "status", "--fiji", fiji)
    assert ended.code == 1
    assert "no commands are installed; install them: forestbridge fiji install --fiji" in ended.out
    done("fiji", "install", "--fiji", fiji)
    assert done("fiji", "status", "--fiji", fiji, "--json").json()["wrong"] == []
    (fiji / "plugins/ForestBridge/lib/end.ijm").unlink()
    (fiji / "plugins/ForestBridge/lib/show.ijm").write_text("")
    monkeypatch.setattr(forestbridge, "__version__", "9.9")
    ended = call("fiji", "status", "--fiji", fiji)
    assert ended.code == 1
    for text in (
        "end.ijm is missing",
        "show.ijm was changed",
        f"are of version {module.read_installation(fiji).version}",
    ):
        assert text in ended.out


def test_python_of_an_environment_stays_a_link(fiji: Path, tmp_path: Path) -> None:
    link = tmp_path / "env" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    assert install(fiji, python=link).python == str(link)
    link.unlink()
    assert "there is no Python at" in call("fiji", "status", "--fiji", fiji).out


def index_of(site: Path) -> dict[str, ElementTree.Element]:
    text = gzip.decompress((site / "db.xml.gz").read_bytes()).decode()
    assert "<!DOCTYPE pluginRecords" in text
    return {e.attrib["filename"]: e for e in ElementTree.fromstring(text)}


def test_update_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, today = tmp_path / "site", command_files()
    assert write_update_site(site) == sorted(today)
    index = index_of(site)
    assert set(index) == set(today)
    for name, plugin in index.items():
        [version] = plugin.findall("version")
        data = (site / f"{name}-{version.attrib['timestamp']}").read_bytes()
        assert data == today[name]
        assert int(version.attrib["filesize"]) == len(data)
        assert version.attrib["checksum"] == hashlib.sha1(name.encode() + data).hexdigest()
    assert write_update_site(site) == []
    name = "plugins/ForestBridge/FB_Configure.ijm"
    gone = "plugins/ForestBridge/FB_Export_Package.ijm"
    changed = {n: d for n, d in today.items() if n != gone} | {name: b"new"}
    monkeypatch.setattr(module, "command_files", lambda: changed)
    old = index[name].find("version")
    assert old is not None
    monkeypatch.setattr(module, "_now", lambda: "20990101000000")
    assert write_update_site(site) == [name]
    index = index_of(site)
    [previous] = index[name].findall("previous-version")
    assert previous.attrib["checksum"] == old.attrib["checksum"]
    assert previous.attrib["timestamp-obsolete"] == "20990101000000"
    assert index[gone].find("version") is None
    assert len(index[gone].findall("previous-version")) == 1
    assert write_update_site(site) == []


def test_damaged_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db.xml.gz").write_bytes(b"nothing")
    with pytest.raises(
        ResourceError, match=r"expected the index of an update site in .*db\.xml\.gz, found a file that cannot be read"
    ):
        write_update_site(tmp_path)
