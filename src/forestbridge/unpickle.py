"""Read a pickle of a scikit-learn forest without running anything of it: the pickle on stdin, plain arrays on stdout.

Runs as a script in a process of its own, with limits and with the standard library alone (``python -I -S``), so that there is little
that a hostile pickle could reach: each name it may ask for leads to a stand-in that keeps what it is given, every other name is
refused, and so is whatever else Python would do meanwhile. What comes out is a safetensors file of bytes.
"""

import json
import os
import pickle
import re
import struct
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any, Self

MOST_TREES = 20_000
"""Most trees of a forest."""

MOST_FIELDS = 32
"""Most fields of a node."""


class Refused(Exception):
    """The pickle holds something else than a forest; the message says what."""


class Kept:
    """Stands in for an object: keeps what it was made of and its state, and does nothing."""

    made: tuple[Any, ...]
    state: Any

    def __new__(cls, *made: Any, **_: Any) -> Self:
        kept = object.__new__(cls)
        kept.made, kept.state = made, None
        return kept

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Forest(Kept):
    """``RandomForestClassifier``."""


class TreeModel(Kept):
    """``DecisionTreeClassifier``."""


class Tree(Kept):
    """``sklearn.tree._tree.Tree``: made of (n_features, n_classes, n_outputs), its arrays are the state."""


class DType(Kept):
    """``numpy.dtype``."""


class Array(Kept):
    """``numpy.ndarray``; its state is (version, shape, dtype, fortran, bytes)."""


class Scalar(Kept):
    """A number of numpy, made of (dtype, bytes)."""


class Object(Kept):
    """``object``, of which pickles of protocol 0 and 1 say that everything is one."""


def keep_array(*_: Any) -> Array:
    """Stand in for numpy's ``_reconstruct``, which makes an empty array whose state comes next."""
    return Array()


def keep_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stand in for numpy's ``_frombuffer`` of protocol 5."""
    array = Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def keep_object(kind: Any, *_: Any) -> Kept:
    """Stand in for ``copyreg._reconstructor`` of protocol 0 and 1."""
    if not (isinstance(kind, type) and issubclass(kind, Kept)):
        raise Refused("an object of an unknown kind")
    return kind()


def keep_bytes(text: Any, encoding: Any) -> bytes:
    """Stand in for ``_codecs.encode``, which protocols 0 to 2 write bytes with."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("bytes in an encoding that numpy does not use")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("sklearn.ensemble._forest", "RandomForestClassifier"): Forest,
    ("sklearn.ensemble.forest", "RandomForestClassifier"): Forest,  # before 0.22
    ("sklearn.tree._classes", "DecisionTreeClassifier"): TreeModel,
    ("sklearn.tree.tree", "DecisionTreeClassifier"): TreeModel,
    ("sklearn.tree._tree", "Tree"): Tree,
    ("numpy", "dtype"): DType,
    ("numpy", "ndarray"): Array,
    ("builtins", "object"): Object,
    ("__builtin__", "object"): Object,
    ("copyreg", "_reconstructor"): keep_object,
    ("copy_reg", "_reconstructor"): keep_object,
    ("_codecs", "encode"): keep_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): keep_array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): keep_buffer for core in ("core", "_core")},
}
"""Names that a pickle may ask for, and what it gets."""


class Unpickler(pickle.Unpickler):
    """Takes the names of `ALLOWED` and no other."""

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((module, name))
        if found is None:
            raise Refused(f"the name {module}.{name}, which no forest of scikit-learn needs")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a reference to something outside of the file")


def forbid_everything() -> None:
    """Let Python do nothing from now on that it would report: no file, import, program, connection or code."""

    def hook(event: str, _: Any) -> None:
        if event != "pickle.find_class":
            raise Refused(f"something that made Python do {event}")

    sys.addaudithook(hook)


def set_limits(size: int) -> None:
    """Limit memory, time and files, where the system has such limits: Windows has none, there the parent's clock must do."""
    try:
        import resource
    except ImportError:
        return
    wanted = {
        resource.RLIMIT_AS: 2**30 + 12 * size,
        resource.RLIMIT_CPU: 120,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in wanted.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # macOS refuses some of them
            continue


def forest_of(content: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Return what the pickle holds as JSON values, and the bytes of its arrays in the order in which they are described."""
    model = content.get("rf_model") if isinstance(content, dict) else content
    if not isinstance(model, Forest) or not isinstance(model.state, dict):
        raise Refused(f"{type(content).__name__.lower()} where a random forest should be")
    trees = model.state.get("estimators_")
    if not isinstance(trees, list) or not 0 < len(trees) <= MOST_TREES:
        raise Refused("a forest without trees, which was not fitted, or has too many")
    blobs: list[bytes] = []
    settings = content if isinstance(content, dict) else {}
    names = ("model_name", "img_height", "img_width", "no_patching", "patch_size", "overlap")
    version = model.state.get("_sklearn_version")
    description = {
        "settings": {name: plain_of(settings[name]) for name in names if name in settings},
        "sklearn": version if isinstance(version, str) else None,
        "n_features": plain_of(model.state.get("n_features_in_", model.state.get("n_features_"))),
        "n_outputs": plain_of(model.state.get("n_outputs_")),
        "classes": array_of(model.state.get("classes_"), blobs),
        "trees": [tree_of(tree, blobs) for tree in trees],
    }
    return description, blobs


def tree_of(model: Any, blobs: list[bytes]) -> dict[str, Any]:
    """Describe the nodes and values of one tree."""
    tree = model.state.get("tree_") if isinstance(model, TreeModel) and isinstance(model.state, dict) else None
    if not isinstance(tree, Tree) or not isinstance(tree.state, dict):
        raise Refused("a tree that is none")
    return {name: array_of(tree.state.get(name), blobs) for name in ("nodes", "values")}


def plain_of(value: Any) -> Any:
    """Return a number or text."""
    if isinstance(value, Scalar) and len(value.made) == 2:
        dtype, data = value.made
        code = format_of(dtype)
        if isinstance(code, str) and isinstance(data, bytes) and len(data) == int(code[2:]):
            kind = {"f4": "f", "f8": "d", "b1": "?"}.get(code[1:]) or "bBhHiIqQ"[
                "i1u1i2u2i4u4i8u8".index(code[1:]) // 2
            ]
            return struct.unpack(code[0].replace("|", "<") + kind, data)[0]
    if value is None or isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    raise Refused(f"{type(value).__name__.lower()} where a number or a text should be")


def array_of(array: Any, blobs: list[bytes]) -> dict[str, Any]:
    """Describe an array and take its bytes."""
    state = array.state if isinstance(array, Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise Refused(f"{type(array).__name__.lower()} where an array should be")
    _, shape, dtype, fortran, data = state
    if not isinstance(shape, tuple) or len(shape) > 3 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused("an array of an impossible shape")
    code = format_of(dtype)
    size = code["itemsize"] if isinstance(code, dict) else int(code[2:])
    for n in shape:
        size *= n
    if not isinstance(data, bytes | bytearray) or len(data) != size:
        raise Refused("an array with another number of bytes than its shape says")
    blobs.append(bytes(data))
    return {"dtype": code, "shape": shape, "fortran": bool(fortran)}


def format_of(dtype: Any, *, nested: bool = True) -> str | dict[str, Any]:
    """Return a dtype as numpy writes it: "<f8", or names, formats, offsets and itemsize of a record."""
    state = dtype.state if isinstance(dtype, DType) else None
    if not isinstance(state, tuple) or len(state) < 7 or not dtype.made or not isinstance(dtype.made[0], str):
        raise Refused("an array of an unknown kind")
    order, code = state[1], dtype.made[0]
    if (
        re.fullmatch("[fiub][1248]", code)
        and code not in ("f1", "f2", "b2", "b4", "b8")
        and order in ("<", ">", "|", "=")
    ):
        native = "<" if sys.byteorder == "little" else ">"
        return order.replace("=", native) + code
    names, fields, itemsize = state[3], state[4], state[5]
    if not nested or not isinstance(names, tuple) or not isinstance(fields, dict) or not 0 < len(names) <= MOST_FIELDS:
        raise Refused(f"an array of the kind {code[:20]!r}")
    record: dict[str, Any] = {"names": [], "formats": [], "offsets": [], "itemsize": itemsize}
    if type(itemsize) is not int or not 0 < itemsize <= 2**12:
        raise Refused("nodes of an impossible size")
    for name in names:
        field = fields.get(name)
        if not isinstance(name, str) or not isinstance(field, tuple) or len(field) < 2:
            raise Refused("nodes with an impossible field")
        format, offset = format_of(field[0], nested=False), field[1]
        assert isinstance(format, str)
        if type(offset) is not int or not 0 <= offset <= itemsize - int(format[2:]):
            raise Refused("nodes with a field outside of them")
        record["names"].append(name)
        record["formats"].append(format)
        record["offsets"].append(offset)
    return record


def safetensors_of(description: dict[str, Any], blobs: list[bytes], *, most: int) -> bytes:
    """Return a safetensors file with the description as the tensor "description" and the arrays as "0", "1", … of bytes."""
    blobs = [json.dumps(description).encode(), *blobs]
    if sum(map(len, blobs)) > most:
        raise Refused("arrays that are much larger than the file")
    header, start = {}, 0
    for n, blob in enumerate(blobs):
        name = "description" if n == 0 else str(n - 1)
        header[name] = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [start, start + len(blob)]}
        start += len(blob)
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<Q", len(text)), text, *blobs])


def main() -> None:
    """Read stdin, write stdout; end with 3 and a reason on stderr if the pickle is refused."""
    data = sys.stdin.buffer.read()
    set_limits(len(data))
    forbid_everything()
    try:
        content = Unpickler(BytesIO(data)).load()
        answer = safetensors_of(*forest_of(content), most=2**24 + 4 * len(data))
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
        code = 0
    except Refused as error:
        sys.stderr.write(str(error))
        code = 3
    except MemoryError:
        sys.stderr.write("more than fits into the memory that it may use")
        code = 3
    except Exception as error:  # noqa: BLE001  (what unpickling raises depends on the bytes)
        sys.stderr.write(f"a damaged pickle ({type(error).__name__}: {str(error)[:200]})")
        code = 3
    sys.stderr.flush()
    os._exit(code)  # without taking apart what was read


if __name__ == "__main__":
    main()
