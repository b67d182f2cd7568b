"""Hostile packages by their description and files: name → (what writes it, what the message must say)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from forestbridge.archive import LIMITS
from packages import build, graph, npy

CASES: dict[str, tuple[Callable[[Path], Any], str]] = {}


def yaml_case(name: str, text: str | bytes, match: str) -> None:
    """Add a package whose description is this text."""
    data = text.encode() if isinstance(text, str) else text
    CASES[name] = (lambda path: build(path, files={"rdf.yaml": data}), match)


BOMB = "config:\n  a: &a [x, x]\n" + "".join(f"  {b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
yaml_case(
    "yaml_too_large", b"#" * (LIMITS.yaml_bytes + 1), r"'rdf.yaml': expected at most 1048576 bytes, found 1048577"
)
yaml_case("yaml_not_utf8", b"a: 1\nname: caf\xe9\n", r"rdf.yaml line 2: expected UTF-8, found the byte 0xe9")
yaml_case("yaml_tabs", "a:\n\tb: 1\n", r"rdf.yaml line 2: expected spaces, found a tab")
yaml_case("yaml_alias_bomb", BOMB, r"line 2, key config.a: expected no anchors and aliases \(& and \*\), found 'a'")
yaml_case("yaml_alias_only", "a: *b\n", r"line 1, key a: expected no anchors and aliases")
yaml_case("yaml_anchored_key", "&a a: 1\n", r"expected keys that are plain text")
yaml_case(
    "yaml_duplicate_key", "a: 1\nb:\n  c: 1\n  c: 2\n", r"line 4, key b.c: expected every key once, found .* line 3"
)
yaml_case("yaml_python_tag", "a: !!python/object/apply:os.system [ls]\n", r"key a: .* found the tag .*os.system")
yaml_case("yaml_timestamp_tag", "a: !!timestamp 2001-01-01\n", r"found the tag .*timestamp")
yaml_case("yaml_core_tag_lies", "a: !!int hello\n", r"expected a value that fits its tag !!int, found 'hello'")
yaml_case("yaml_deep_lists", "a: " + "[" * 100_000, r"expected at most 32 levels of nesting")
yaml_case("yaml_deep_mappings", "a: " + "{b: " * 50_000, r"expected at most 32 levels of nesting")
yaml_case("yaml_two_documents", "a: 1\n---\nb: 1\n", r"line 2: expected one document, found a second")
yaml_case("yaml_syntax", "a: 1\nb: [1, 2\nc: 3\n", r"rdf.yaml line 3: expected YAML, found: ")
yaml_case("yaml_control_character", "a: \x07\n", r"rdf.yaml line \d: expected YAML, found: control characters")
yaml_case("yaml_empty", "", r"expected a description, found an empty file")
yaml_case("yaml_list", "- 1\n- 2\n", r"expected a mapping of keys, found \[1, 2\] \(a list\)")
yaml_case("yaml_list_as_key", "? [a, b]\n: 1\n", r"expected keys that are plain text")
yaml_case("yaml_merge_key", "a:\n  <<: {b: 1}\n", r"expected keys that are plain text, found a list, mapping, merge")


def rdf_case(name: str, change: Callable[[dict[str, Any]], Any], match: str) -> None:
    """Add a package whose description was changed."""
    CASES[name] = (lambda path: build(path, change), match)


def put(value: Any, *keys: str | int) -> Callable[[dict[str, Any]], None]:
    """Return a change that puts a value at a place."""

    def change(rdf: dict[str, Any]) -> None:
        inner: Any = rdf
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


A = "0" * 64
rdf_case(
    "format_too_new", put("0.6.0", "format_version"), r"line 1, key format_version: expected 0.4.x or 0.5.x, found '0.6"
)
rdf_case("format_a_number", put(0.5, "format_version"), r"key format_version: expected text, found 0.5 \(a number\)")
rdf_case("no_format", lambda rdf: rdf.pop("format_version"), r"key format_version: expected text, found nothing")
rdf_case("a_dataset", put("dataset", "type"), r"line 2, key type: expected 'model', found 'dataset'")
rdf_case("name_is_a_list", put(["a"], "name"), r"key name: expected text, found \['a'\] \(a list\)")
rdf_case("no_inputs", put([], "inputs"), r"key inputs: expected a list, found nothing")
rdf_case("inputs_is_text", put("abc", "inputs"), r"key inputs: expected a list, found 'abc' \(text\)")
rdf_case("an_input_is_text", put("abc", "inputs", 0), r"key inputs\[0\]: expected a mapping, found 'abc' \(text\)")
rdf_case("weights_is_a_list", put([1], "weights"), r"key weights: expected a mapping, found \[1\] \(a list\)")
rdf_case("weights_entry_is_text", put("w.pt", "weights", "onnx"), r"key weights.onnx: expected a mapping, found 'w.pt'")
rdf_case(
    "size_is_negative", put(-5, "inputs", 0, "axes", 2, "size"), r"inputs\[0\].axes\[2\].size: .* from 1 .* found -5"
)
rdf_case(
    "size_is_text", put("64", "inputs", 0, "axes", 2, "size", "min"), r"size.min: expected a whole number, found '64'"
)
rdf_case("size_is_true", put(True, "inputs", 0, "axes", 2, "size"), r"size: expected a whole number, found True")
rdf_case("size_is_huge", put(2**40, "inputs", 0, "axes", 2, "size"), r"whole number from 1 to 2147483647")
rdf_case("step_is_missing", put({"min": 64}, "inputs", 0, "axes", 2, "size"), r"axes\[2\].size.step: .* found nothing")
rdf_case("halo_is_negative", put(-2, "outputs", 0, "axes", 2, "halo"), r"expected a halo of 0 or more .* found halo -2")
rdf_case(
    "axis_of_unknown_type",
    put("depth", "inputs", 0, "axes", 2, "type"),
    r"key inputs\[0\].axes\[2\].type: expected batch",
)
rdf_case(
    "channels_are_numbers", put([1], "inputs", 0, "axes", 1, "channel_names"), r"channel_names\[0\]: expected text"
)
rdf_case("axis_twice", put("y", "inputs", 0, "axes", 3, "id"), r"key inputs\[0\].axes: expected every axis once")
rdf_case(
    "tensor_twice", put("raw", "outputs", 0, "id"), r"key outputs\[0\].id: expected every name once, found 'raw' again"
)
rdf_case(
    "size_of_a_stranger",
    put({"tensor_id": "nobody", "axis_id": "y"}, "outputs", 0, "axes", 2, "size"),
    r"key outputs\[0\].axes\[2\].size: expected the name of an axis of an input, found nobody.y",
)
rdf_case("author_is_text", put(["A. Author"], "authors"), r"key authors\[0\]: expected a mapping, found 'A. Author'")
rdf_case(
    "data_is_a_list_of_text", put(["float32"], "inputs", 0, "data"), r"key inputs\[0\].data\[0\]: expected a mapping"
)
rdf_case(
    "step_without_id", put([{}], "inputs", 0, "preprocessing"), r"preprocessing\[0\].id: expected text, found nothing"
)
rdf_case("config_is_text", put("abc", "config"), r"key config: expected a mapping, found 'abc'")
rdf_case(
    "our_kind_unknown", put("magic", "config", "forestbridge", "kind"), r"forestbridge.kind: .* found 'magic'; update"
)
rdf_case(
    "our_format_newer", put(2, "config", "forestbridge", "format"), r"forestbridge.format: expected 1, found 2; update"
)
rdf_case(
    "our_spec_broken", put({"name": "a"}, "config", "forestbridge", "spec"), r"forestbridge.spec: expected an encoder's"
)
rdf_case(
    "our_spec_no_json", put("{", "config", "forestbridge", "spec"), r"forestbridge.spec: expected an encoder's spec"
)
rdf_case(
    "weights_missing",
    put("other.onnx", "weights", "onnx", "source"),
    r"key weights.onnx.source: .* found other.onnx, which",
)
rdf_case(
    "hash_wrong",
    put(A, "weights", "onnx", "sha256"),
    rf"weights.onnx.source: expected weights.onnx with the sha256 {A}",
)
rdf_case(
    "hash_short",
    put("abc", "weights", "onnx", "sha256"),
    r"a sha256 of 64 hexadecimal digits in small letters, found 'abc'",
)
rdf_case("hash_a_number", put(123, "weights", "onnx", "sha256"), r"key weights.onnx.sha256: expected text, found 123")
rdf_case("cover_missing", put(["no.png"], "covers"), r"key covers\[0\]: expected a file in the zip, found no.png")
rdf_case(
    "document_outside", put("../README.md", "documentation"), r"key documentation: .* '../README.md': it has the part"
)
rdf_case(
    "attachment_absolute",
    put([{"source": "/etc/passwd"}], "attachments"),
    r"attachments\[0\].source: .* it is absolute",
)
rdf_case(
    "attachment_by_file_url",
    put([{"source": "file:///etc/passwd"}], "attachments"),
    r"it is an address of another kind",
)
rdf_case("attachment_on_a_drive", put([{"source": "C:/a.txt"}], "attachments"), r"it is an address of another kind")
rdf_case("attachment_backslash", put([{"source": "a\\b"}], "attachments"), r"it has a backslash")
rdf_case(
    "licence_missing",
    put({"source": "LICENSE"}, "license"),
    r"key license.source: .* found LICENSE, which is not in it",
)
rdf_case(
    "architecture_missing",
    put({"source": "net.py", "callable": "Net"}, "weights", "torchscript", "architecture"),
    r"key weights.torchscript.architecture.source: expected a file in the zip, found net.py",
)


def file_case(name: str, file: str, data: bytes, match: str) -> None:
    """Add a package in which one file is another, with the right hash."""
    CASES[name] = (lambda path: build(path, files={file: data}), match)


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def external_in_branch(model: onnx.ModelProto) -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [1.0])
    entry = hidden.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "branch", [], [output])
    model.graph.node.append(helper.make_node("If", ["raw"], ["z"], then_branch=branch, else_branch=branch))


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def custom_operator_in_branch(model: onnx.ModelProto) -> None:
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Run", [], ["c"], domain="com.microsoft")], "branch", [], [output])
    model.graph.node.append(helper.make_node("If", ["raw"], ["z"], then_branch=branch, else_branch=branch))


def replaced_operator(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("", "Conv", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))


class Evil:
    """Would run a command if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


PICKLED = npy(np.array([Evil()], dtype=object))
HEADER = b"\x93NUMPY\x01\x00v\x00"
CODE = "{'descr': __import__('os').system('ls'), 'fortran_order': False, 'shape': (1,)}".ljust(117).encode() + b"\n"

file_case("onnx_garbage", "weights.onnx", b"garbage" * 50, r"weights.onnx: expected an ONNX file, found 350 bytes")
file_case("onnx_empty", "weights.onnx", b"", r"weights.onnx: expected an ONNX file with a graph, found 0 bytes")
file_case("onnx_external", "weights.onnx", graph(extra=external), r"'kernel' in another file \(../../../etc/passwd\)")
file_case(
    "onnx_external_branch", "weights.onnx", graph(extra=external_in_branch), r"'hidden' in another file \(/etc/passwd\)"
)
file_case("onnx_operator", "weights.onnx", graph(extra=custom_operator), r"ai.onnx.ml, found com.evil::Conv")
file_case("onnx_operator_branch", "weights.onnx", graph(extra=custom_operator_in_branch), r"found com.microsoft::Run")
file_case("onnx_replaced", "weights.onnx", graph(extra=replaced_operator), r"found some that replace operators")
file_case("tensor_pickled", "test_raw.npy", PICKLED, r"test_raw.npy: expected a header of plain numbers, found .*O")
file_case("tensor_code_in_header", "test_raw.npy", HEADER + CODE + b"x", r"header of plain numbers, found .*__import__")
file_case(
    "tensor_no_npy", "test_raw.npy", b"PK\x03\x04", r"test_raw.npy: expected a .npy file, found another beginning"
)
file_case("tensor_too_short", "test_raw.npy", npy(np.zeros(9))[:-8], r"expected 72 bytes for the shape \(9,\)")
