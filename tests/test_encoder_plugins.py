"""Encoders of other packages: the example of docs/encoder_plugins.md, installed as a distribution, and packages that fail."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import forestbridge as fb
from command_line import call, write_line
from forestbridge.encoders import NAMES, encoder_from_spec, encoder_names
from forestbridge.errors import PluginError, SpecMismatchError

TEXT = (Path(__file__).parent.parent / "docs" / "encoder_plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))


def install(
    folder: Path, code: str, points: dict[str, str], *, name: str = "forestbridge-contrast", version: str = "1.0"
) -> None:
    """Put a distribution into a folder as an installer does: its module, and a dist-info with its entry points."""
    module = next(iter(points.values())).split(":")[0]
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[forestbridge.encoders]", *lines]), encoding="utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path, whose modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def contrast(site) -> Path:
    """The example, installed."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    points = project["entry-points"]["forestbridge.encoders"]
    install(site, FILES["forestbridge_contrast.py"], points, name=project["name"], version=project["version"])
    return site


def test_the_example_is_an_encoder_like_ours(contrast, tmp_path):
    assert encoder_names() == (*NAMES, "contrast")
    encoder = fb.open_encoder("contrast", channels=2, radius=1)
    assert encoder.spec.feature_names == ("mean in radius 1", "deviation in radius 1")
    again = encoder_from_spec(encoder.spec)
    assert again.spec == encoder.spec
    image = np.random.default_rng(0).integers(0, 255, (2, 70, 600)).astype(np.uint8)
    features = fb.features(image, encoder)
    window = np.pad(image.astype(float).mean(axis=0), 1, mode="symmetric")[
        30:33, 511:514
    ]  # around pixel (30, 511), where tiles meet
    np.testing.assert_allclose(features[:, 30, 511], [window.mean(), window.std()], rtol=1e-5)
    labels = np.zeros((70, 600), np.uint8)
    labels[::9, ::11] = 1 + (features[0, ::9, ::11] > 127)
    store = fb.extract(image, encoder, tmp_path / "a.features.ome.zarr")
    forest = fb.train([(store, labels)], n_trees=3, engine="sklearn")
    forest.save(tmp_path / "a.forest")
    loaded = fb.load_forest(tmp_path / "a.forest")
    np.testing.assert_array_equal(fb.predict(image, loaded), fb.predict(store, loaded))


def test_the_example_on_the_command_line(contrast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_line(tmp_path)
    ended = call("extract", "a.tif", "-o", "c.features.ome.zarr", "--encoder", "contrast")
    assert ended.code == 0, ended.err
    assert fb.open_store("c.features.ome.zarr").spec.name == "contrast"
    assert call("extract", "a.tif", "-o", "d.features.ome.zarr", "--like", "c.features.ome.zarr").code == 0
    ended = call("extract", "a.tif", "-o", "e.features.ome.zarr", "--encoder", "contrast", "--3d")
    assert ended.code == 2 and "expected --3d with the encoder filters only, found the encoder contrast" in ended.err


def test_plugins_are_listed_and_a_broken_one_stops_no_list(contrast):
    install(contrast, "1 / 0", {"broken": "broken_module:make"}, name="broken-encoder", version="0.3")
    ended = call("encoders", "--json")
    assert ended.code == 0
    found = {facts["name"]: facts for facts in ended.json()}
    assert set(found) == {*NAMES, "contrast"}
    assert found["contrast"]["advice"] == "of the package forestbridge-contrast 1.0"
    assert found["contrast"]["features"] == 2
    assert "the encoder 'broken' of broken-encoder 0.3 to be imported, found ZeroDivisionError" in ended.err
    assert "contrast" in call("encoders").out


def test_the_example_passes_the_tests_of_its_page(contrast):
    (contrast / "test_contrast.py").write_text(FILES["test_contrast.py"], encoding="utf-8")
    code = (
        f"import sys; sys.path.insert(0, {str(contrast)!r}); import pytest; "
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1]]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "test_contrast.py"], cwd=contrast, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"\d passed", ended.stdout)


def test_another_version_of_a_plugin_is_refused(contrast):
    spec = fb.open_encoder("contrast").spec
    module = sys.modules["forestbridge_contrast"]
    (contrast / "forestbridge_contrast.py").write_text(
        FILES["forestbridge_contrast.py"].replace("version=1,", "version=2,"), encoding="utf-8"
    )
    del sys.modules[module.__name__]
    sys.path_importer_cache.clear()
    for cache in contrast.rglob("*.pyc"):
        cache.unlink()
    with pytest.raises(
        SpecMismatchError,
        match=r"forestbridge-contrast 1.0 as it is installed .*\(version: 1 against 2\); install the version",
    ):
        encoder_from_spec(spec)


def test_a_plugin_that_is_gone(site):
    spec = fb.open_encoder("filters").spec
    gone = type(spec).from_json(spec.to_json().replace('"name":"filters"', '"name":"contrast"'))
    with pytest.raises(
        ValueError, match=r"found 'contrast'; update forestbridge, or install the package that has this encoder"
    ):
        encoder_from_spec(gone)
    with pytest.raises(
        ValueError, match=r"expected one of the encoders filters, .*, found 'contrast'; choose one of these"
    ):
        fb.open_encoder("contrast")


@pytest.mark.parametrize(
    "code, message",
    [
        ("import no_such_library", "to be imported, found ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "to be imported, found ZeroDivisionError"),
        ("", "to be imported, found AttributeError: .* has no attribute 'make'"),
        ("def make(**options): raise KeyError('weights')", "to open, found KeyError: 'weights'"),
        ("def make(**options): return 3", "to have a spec, found AttributeError"),
    ],
)
def test_plugins_that_fail_are_named(site, code, message):
    install(site, code, {"broken": "broken_module:make"}, name="broken-encoder", version="0.3")
    assert "broken" in encoder_names()  # nothing is imported for a list
    with pytest.raises(
        PluginError, match=rf"expected the encoder 'broken' of broken-encoder 0.3 {message}.*; update or uninstall"
    ):
        fb.open_encoder("broken")
    assert fb.open_encoder("filters").spec.name == "filters"


def test_encoders_that_are_none(site):
    code = FILES["forestbridge_contrast.py"]
    install(site, code, {"other": "forestbridge_contrast:open_contrast"})
    with pytest.raises(
        PluginError,
        match=r"a spec of the name 'other' from forestbridge-contrast 1.0, found Contrast with the name 'contrast'",
    ):
        fb.open_encoder("other")


def test_wrong_options_are_the_users(contrast):
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        fb.open_encoder("contrast", size=3)


@pytest.mark.parametrize("name", ["filters", "sam2_base", "SAM2_Base", "featureforest"])
def test_our_names_are_not_taken(site, name, caplog):
    install(site, "def make(**options): raise AssertionError", {name: "thief:make"}, name="thief")
    assert encoder_names() == NAMES
    assert f"the encoder '{name}' of thief 1.0 is not used: forestbridge has one of this name" in caplog.text
    assert fb.open_encoder("filters").spec.name == "filters"


def test_names_of_two_packages_and_no_words(contrast, caplog):
    install(contrast, "", {"contrast": "second:make"}, name="second")
    install(contrast, "", {"Not a-word": "third:make"}, name="third")
    assert encoder_names() == NAMES
    assert (
        "expected one package that has it, found forestbridge-contrast 1.0 and second 1.0; uninstall one" in caplog.text
    )
    assert "the encoder 'Not a-word' of third 1.0 is not used: expected a word" in caplog.text
