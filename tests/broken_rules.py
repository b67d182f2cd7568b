"""One package per rule of a program, in which just that rule is broken: name → (change, files, programs, message)."""

from collections.abc import Callable
from typing import Any

from packages import graph

Change = Callable[[dict[str, Any]], Any]


def put(value: Any, *keys: str | int) -> Change:
    def change(rdf: dict[str, Any]) -> None:
        inner: Any = rdf
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def drop(*keys: str | int) -> Change:
    def change(rdf: dict[str, Any]) -> None:
        inner: Any = rdf
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


def both(*keys: str | int) -> Callable[[Any], Change]:
    """Return a change of the input and the output alike."""

    def change(value: Any) -> Change:
        def apply(rdf: dict[str, Any]) -> None:
            for side in ("inputs", "outputs"):
                put(value, side, 0, *keys)(rdf)

        return apply

    return change


def nameless(rdf: dict[str, Any]) -> None:
    del rdf["id"], rdf["config"]["bioimageio"]


def volume(rdf: dict[str, Any]) -> None:
    for side in ("inputs", "outputs"):
        z = {**rdf[side][0]["axes"][2], "id": "z"}
        if side == "outputs":
            z["size"] = {"tensor_id": "raw", "axis_id": "z"}
        rdf[side][0]["axes"].insert(2, z)


def second_input(rdf: dict[str, Any]) -> None:
    rdf["inputs"].append({**rdf["inputs"][0], "id": "more"})


def channels_first_and_last(rdf: dict[str, Any]) -> None:
    axes = rdf["outputs"][0]["axes"]
    axes.append(axes.pop(1))


def step(side: str, key: str, id: str, **kwargs: Any) -> Change:
    return put([{"id": id, "kwargs": kwargs}], side, 0, key)


def onnx_only(rdf: dict[str, Any]) -> None:
    del rdf["weights"]["torchscript"]


def keras_only(rdf: dict[str, Any]) -> None:
    rdf["weights"] = {"keras_hdf5": {k: v for k, v in rdf["weights"]["torchscript"].items() if k != "parent"}}


GRAPHICAL = "ilastik deepImageJ QuPath"
OTHERS = f"{GRAPHICAL} bioimage.io"
SPEC = "Python ilastik bioimage.io"
TOLERANCE = ("config", "bioimageio", "reproducibility_tolerance", 0, "mismatched_elements_per_million")

# name: what is changed, which files, which programs, what they say
RULES: dict[str, tuple[Change | None, dict[str, bytes], str, str]] = {
    "version": (
        put("0.5.11", "format_version"),
        {},
        OTHERS,
        "format_version: 0.5.11 is newer than 0.5.10, the .* write 0.5.9",
    ),
    "strings in a new version": (
        put("0.5.12", "format_version"),
        {},
        "Python",
        "0.5.12 needs covers and documentation as map",
    ),
    "version 0.5.0": (
        put("0.5.0", "format_version"),
        {},
        "QuPath",
        "format_version: QuPath takes 0.5.0 for format 0.4",
    ),
    "covers": (
        put([{"source": "cover.png"}], "covers"),
        {},
        "ilastik bioimage.io",
        "covers: expected plain file names, found",
    ),
    "documentation": (
        put({"source": "README.md"}, "documentation"),
        {},
        OTHERS,
        "documentation: expected a plain file name",
    ),
    "license": (put({"source": "README.md"}, "license"), {}, OTHERS, r"license: expected the name of a licence"),
    "no license": (drop("license"), {}, "QuPath bioimage.io", "license: expected it, found nothing; fill it in"),
    "no description": (drop("description"), {}, "QuPath bioimage.io", "description: expected it, found nothing"),
    "no authors": (drop("authors"), {}, "QuPath bioimage.io", "authors: expected it, found nothing"),
    "no documentation": (drop("documentation"), {}, "QuPath bioimage.io", "documentation: expected it, found nothing"),
    "name": (
        put("nuclei: v2", "name"),
        {},
        SPEC,
        "name: expected 5 to 128 of the characters .* found 'nuclei: v2'; choose",
    ),
    "long description": (
        put("a" * 1025, "description"),
        {},
        SPEC,
        "description: expected at most 1024 characters, found 1025",
    ),
    "id": (
        nameless,
        {},
        "deepImageJ",
        "id: expected an id, since config has no bioimageio.nickname, found neither; write id",
    ),
    "encoder": (
        put("encoder", "config", "forestbridge", "kind"),
        {},
        GRAPHICAL,
        "kind: the package gives feature maps, which only",
    ),
    "forest": (
        put("forest", "config", "forestbridge", "kind"),
        {},
        GRAPHICAL,
        "takes feature maps, .* export a fused one: ff-pack",
    ),
    "two inputs": (second_input, {}, GRAPHICAL, "inputs: expected one, found 2; export one image in"),
    "dtype": (
        put("uint8", "outputs", 0, "data", "type"),
        {},
        GRAPHICAL,
        r"outputs\[0\].data.type: expected float32, .* found uint8",
    ),
    "axis order": (
        channels_first_and_last,
        {},
        GRAPHICAL,
        r"outputs\[0\].axes: expected batch, channel, y, x, found batch, y, x, chan",
    ),
    "axis name": (
        both("axes", 0)({"type": "index", "size": 1}),
        {},
        GRAPHICAL,
        r"inputs\[0\].axes: expected batch, .* found index, channel, y, x",
    ),
    "channel id": (
        put("c", "outputs", 0, "axes", 1, "id"),
        {},
        "ilastik",
        r"outputs\[0\].axes\[1\].id: .* to be called channel, found c",
    ),
    "channel name": (
        put(["a b", "class"], "outputs", 0, "axes", 1, "channel_names"),
        {},
        "ilastik bioimage.io",
        r"outputs\[0\].axes\[1\].channel_names: expected ASCII letters, .* found a b, class; rename them",
    ),
    "odd halo": (
        put(15, "outputs", 0, "axes", 2, "halo"),
        {},
        "ilastik",
        r"outputs\[0\].axes\[2\].halo: expected an even .* found 15",
    ),
    "other size": (
        put(2, "outputs", 0, "axes", 3, "scale"),
        {},
        "ilastik QuPath",
        r"outputs\[0\].axes\[3\].size: expected the size of",
    ),
    "shifted size": (
        put({"tensor_id": "raw", "axis_id": "y", "offset": -2}, "outputs", 0, "axes", 2, "size"),
        {},
        "ilastik QuPath",
        r"axes\[2\].size: .* refer to tensor_id raw, axis_id y with equal scale",
    ),
    "min": (
        put({"min": 48, "step": 16}, "inputs", 0, "axes", 2, "size"),
        {},
        "QuPath",
        "axis y: expected min as a power of two .* 48",
    ),
    "min against step": (
        put({"min": 64, "step": 48}, "inputs", 0, "axes", 2, "size"),
        {},
        "QuPath",
        "found min 64 and step 48",
    ),
    "huge min": (
        put({"min": 1024, "step": 16}, "inputs", 0, "axes", 2, "size"),
        {},
        "QuPath",
        "up to 512 .* found min 1024",
    ),
    "halo": (
        put(256, "outputs", 0, "axes", 2, "halo"),
        {},
        "ilastik QuPath",
        "axis y: its tile of 512 has nothing between two halos",
    ),
    "volume": (
        volume,
        {"weights.onnx": graph(inputs=("b", 1, "z", "y", "x"))},
        "QuPath",
        "QuPath is 2D only, found 3 dimensions",
    ),
    "no TorchScript for ilastik": (
        onnx_only,
        {},
        "ilastik",
        "weights.torchscript: ilastik has PyTorch only, found none; export",
    ),
    "no TorchScript for QuPath": (
        onnx_only,
        {},
        "QuPath",
        "weights.torchscript: QuPath comes without ONNX, found no TorchScript",
    ),
    "neither": (
        keras_only,
        {},
        "deepImageJ",
        "weights: expected onnx or torchscript, found neither; export one of them",
    ),
    "pytorch_version": (
        drop("weights", "torchscript", "pytorch_version"),
        {},
        f"{SPEC} deepImageJ",
        "weights.torchscript.pytorch_version: expected the version of PyTorch, found nothing",
    ),
    "opset_version": (
        drop("weights", "onnx", "opset_version"),
        {},
        f"{SPEC} deepImageJ",
        "opset_version: .* whole number, found none",
    ),
    "wrong opset_version": (
        put(16, "weights", "onnx", "opset_version"),
        {},
        "deepImageJ",
        "expected 17 as in the file, found 16",
    ),
    "opset": (
        put(18, "weights", "onnx", "opset_version"),
        {"weights.onnx": graph(opset=18)},
        "deepImageJ",
        "opset of at most 17, found 18",
    ),
    "ml": (
        None,
        {"weights.onnx": graph(ml=4)},
        "deepImageJ",
        "weights.onnx: expected ai.onnx.ml opset of at most 3, found 4; use 3",
    ),
    "ir": (
        None,
        {"weights.onnx": graph(ir=9)},
        "deepImageJ",
        "weights.onnx: expected IR version of at most 8, found 9; use 8",
    ),
    "ir of the site": (
        None,
        {"weights.onnx": graph(ir=11)},
        "bioimage.io",
        "expected IR version of at most 10, found 11; use 8",
    ),
    "two outputs": (
        None,
        {"weights.onnx": graph(outputs=2)},
        "deepImageJ",
        "weights.onnx: expected 1 output as in rdf.yaml, found 2",
    ),
    "another graph": (
        None,
        {"weights.onnx": graph(classes=3)},
        "Python deepImageJ bioimage.io",
        "weights.onnx: .*expected an ONNX graph with the outputs of rdf.yaml",
    ),
    "external data": (
        put({"source": "w.data"}, "weights", "onnx", "external_data"),
        {"w.data": b"x"},
        "deepImageJ",
        "weights.onnx.external_data: expected one file, found two",
    ),
    "two originals": (
        drop("weights", "torchscript", "parent"),
        {},
        "bioimage.io",
        "exactly one entry without parent, found 2",
    ),
    "strange parent": (
        put("keras_v3", "weights", "torchscript", "parent"),
        {},
        SPEC,
        "torchscript.parent: .* found keras_v3",
    ),
    "no hash": (
        drop("weights", "onnx", "sha256"),
        {},
        "bioimage.io",
        "weights.onnx.sha256: .* found nothing; write [0-9a-f]{64}",
    ),
    "tolerance": (
        put(1001, *TOLERANCE),
        {},
        "ilastik",
        "mismatched_elements_per_million: expected at most 1000, found 1001",
    ),
    "tolerance of the site": (
        put(5001, *TOLERANCE),
        {},
        "bioimage.io",
        "expected at most 5000, found 5001; use at most 1000",
    ),
    "statistics": (
        step("inputs", "preprocessing", "zero_mean_unit_variance"),
        {},
        "ilastik QuPath",
        r"inputs\[0\].preprocessing\[0\]: zero_mean_unit_variance is computed over each tile there and over the image",
    ),
    "dropped step": (
        step("inputs", "preprocessing", "fixed_zero_mean_unit_variance"),
        {},
        "QuPath",
        "QuPath leaves fixed_zero_mean_unit_variance out without a word",
    ),
    "unknown step": (
        step("outputs", "postprocessing", "softmax"),
        {},
        "deepImageJ",
        "deepImageJ does not know softmax; put it into",
    ),
    "reference tensor": (
        step("outputs", "postprocessing", "scale_range", reference_tensor="raw"),
        {},
        "deepImageJ",
        r"outputs\[0\].postprocessing\[0\].kwargs.reference_tensor: deepImageJ ignores it",
    ),
    "batch in axes": (
        step("inputs", "preprocessing", "scale_range", axes=["batch", "y", "x"]),
        {},
        "deepImageJ",
        "kwargs.axes: deepImageJ reads batch as the channel axis; leave batch out",
    ),
}
