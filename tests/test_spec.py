"""Specs: JSON there and back, fingerprints, and the refusal of strangers."""

import json
from dataclasses import replace

import pytest

from forestbridge.errors import SpecMismatchError
from forestbridge.spec import SPEC_FORMAT, EncoderSpec, MapSpec, require_same_spec

LOCAL = EncoderSpec(
    name="local",
    version=3,
    axes="yx",
    channels=2,
    halo=(4, 4),
    maps=(MapSpec("filters", ("blur σ=1", "edge")),),
    intensity={"rule": "raw"},
    options={"scales": [0.7, 1.0]},
)
DEEP = EncoderSpec(
    name="deep",
    version=1,
    axes="yx",
    channels=1,
    halo=(64, 64),
    maps=(MapSpec("low", ("a", "b", "c"), stride=4.0, offset=1.5), MapSpec("high", ("d",), stride=16.0, offset=7.5)),
    intensity={"rule": "linear", "low": 3.0, "high": 250.5},
    options={},
    tile=(512, 512),
    input_size=(1024, 1024),
    dtype="float16",
    weights="0" * 64,
)
BOTH = replace(LOCAL, name="local+deep", maps=LOCAL.maps + DEEP.maps, parts=(LOCAL, DEEP))


@pytest.mark.parametrize("spec", [LOCAL, DEEP, BOTH], ids=str)
def test_json_there_and_back(spec):
    again = EncoderSpec.from_json(spec.to_json().encode())
    assert again == spec and hash(again) == hash(spec) and again.fingerprint() == spec.fingerprint()
    assert again.to_json() == spec.to_json()
    assert isinstance(again.parts, tuple) and isinstance(again.maps[0].channels, tuple)


def test_json_is_canonical():
    text = LOCAL.to_json()
    assert text.isascii() and ": " not in text and ", " not in text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert json.loads(text)["format"] == SPEC_FORMAT
    turned = replace(DEEP, intensity={"high": 250.5, "low": 3.0, "rule": "linear"})
    assert turned.to_json() == DEEP.to_json()


def test_fingerprints_stay():
    """Every store, forest and package carries one: they may only change together with `SPEC_FORMAT`."""
    assert [s.fingerprint() for s in (LOCAL, DEEP, BOTH)] == [
        "743c66ad60d5cdcd",
        "fd09a57047609a2c",
        "5995d53a4ba28ad7",
    ]
    assert str(LOCAL) == f"local [{LOCAL.fingerprint()[:8]}]"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 4},
        {"channels": 1},
        {"halo": (4, 5)},
        {"dtype": "float16"},
        {"weights": "1" * 64},
        {"maps": (MapSpec("filters", ("blur σ=1", "edge"), offset=0.5),)},
        {"options": {"scales": [0.7]}},
        {"parts": (DEEP,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_decides_the_fingerprint(change):
    assert replace(LOCAL, **change).fingerprint() != LOCAL.fingerprint()


def test_features_of_all_maps():
    assert BOTH.n_features == 6
    assert BOTH.feature_names == ("blur σ=1", "edge", "a", "b", "c", "d")


def edited(**changes) -> str:
    return json.dumps({**json.loads(LOCAL.to_json()), **changes})


def without(key: str) -> str:
    document = json.loads(LOCAL.to_json())
    del document[key]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "expected a spec as a JSON object, found list"),
        (edited(format=99), r"expected spec format 1, found 99; update forestbridge to read it"),
        (edited(colour="red"), r"expected the spec fields \[.*\], found also \['colour'\]"),
        (without("maps"), r"expected a complete encoder spec, found one in which KeyError\('maps'\)"),
        (without("version"), r"expected a complete encoder spec, found one in which TypeError\(.*version"),
        (edited(maps=[{"name": "m"}]), r"expected a complete encoder spec, found one in which KeyError\('channels'\)"),
        (edited(halo=4), r"expected a complete encoder spec, found one in which TypeError"),
    ],
)
def test_what_is_no_spec_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        EncoderSpec.from_json(text)


def test_nan_has_no_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(DEEP, intensity={"rule": "linear", "low": float("nan"), "high": 1.0}).to_json()


def test_the_same_spec_is_welcome():
    again = EncoderSpec.from_json(LOCAL.to_json())
    require_same_spec(LOCAL, again, expected_by="forest", found_in="store", remedy="extract again")


def test_a_stranger_is_refused_with_what_differs():
    found = replace(LOCAL, channels=1, options={"scales": list(range(100))})
    message = (
        rf"forest n\.forest expects the features of local \[{LOCAL.fingerprint()[:8]}\], store a\.zarr has those of "
        rf"local \[{found.fingerprint()[:8]}\] \(channels: 2 against 1; options scales: \[0.7, 1.0\] against .*\.\.\.\); extract again"
    )
    with pytest.raises(SpecMismatchError, match=message) as caught:
        require_same_spec(LOCAL, found, expected_by="forest n.forest", found_in="store a.zarr", remedy="extract again")
    assert caught.value.exit_code == 4
    assert "version" not in str(caught.value) and "halo" not in str(caught.value)
