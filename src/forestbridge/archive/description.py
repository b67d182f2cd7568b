"""From the bytes of rdf.yaml to plain values with their line numbers, and typed look-ups that name file, line and key.

Only YAML's core schema is read (text, numbers, true/false, null, lists, mappings): no anchors, aliases or other tags,
every key
once, keys are text. Dates stay text, as in YAML 1.2.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from forestbridge.archive.members import LIMITS, Limits
from forestbridge.errors import PackageError

Key = tuple[str | int, ...]

REMEDY = "correct that line, or export the package again"

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII
)
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")} | {"!"}
_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def show_key(key: Key) -> str:
    """Return a key as people write it: ``inputs[0].axes[1].id``."""
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in key).removeprefix(".") or "(all)"


@dataclass(frozen=True)
class Description:
    """What rdf.yaml says.

    Attributes
    ----------
    data
        Nested dicts, lists and scalars.
    lines
        Line number of every key, counted from 1.
    source
        How messages name the file.
    """

    data: dict[str, Any]
    lines: Mapping[Key, int]
    source: str

    def fault(self, key: Key, expected: str, found: str, remedy: str = REMEDY) -> PackageError:
        """Return an error that names file, line and key."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        return PackageError(
            f"{self.source} line {self.lines.get(known, 1)}, key {show_key(key)}: expected {expected}, found "
            f"{found}; {remedy}"
        )

    def get(self, *key: str | int, kind: type, default: Any = None) -> Any:
        """Return a value of a kind (`object`: of any); `default` where the key is absent or null.

        Raises
        ------
        PackageError
            If the value, or one of the values it lies in, has another type.
        """
        value: Any = self.data
        for n, part in enumerate(key):
            if isinstance(part, int):
                value = value[part]  # callers count over lists they have
            elif isinstance(value, dict):
                value = value.get(part)
            else:
                raise self.fault(key[:n], "a mapping", _show(value))
            if value is None:
                return default
        # true is an int for Python, and 1 a float
        wanted = (float, int) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind not in (bool, object)):
            raise self.fault(key, _KINDS[kind], _show(value))
        return value

    def need(self, *key: str | int, kind: type) -> Any:
        """Return a value of a kind that must be there and not be empty."""
        value = self.get(*key, kind=kind)
        if value is None or (kind in (str, list, dict) and not value):
            raise self.fault(key, _KINDS[kind], "nothing")
        return value


def _show(value: Any) -> str:
    name = next((name for kind, name in reversed(_KINDS.items()) if isinstance(value, kind)), "nothing")
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({name})"


def parse_description(data: bytes, *, source: str, limits: Limits = LIMITS) -> Description:
    """Read rdf.yaml.

    Parameters
    ----------
    source
        How messages name the file, e.g. "nuclei.zip: rdf.yaml".

    Raises
    ------
    PackageError
        If it is too large, not UTF-8, not YAML, nests too deep, is no mapping, has a key twice, or uses anchors,
        aliases
        or tags.
    """
    if len(data) > limits.yaml_bytes:
        raise PackageError(
            f"{source}: expected at most {limits.yaml_bytes} bytes, found {len(data)}; move data into files beside it"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PackageError(
            f"{source} line {line}: expected UTF-8, found the byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error
    # The C parser yields the same events as the Python one, 20 times faster.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lines: dict[Key, int] = {}
    events = iter(yaml.parse(text, Loader=loader))
    try:
        next(events)  # stream start
        if isinstance(next(events), yaml.StreamEndEvent):
            raise PackageError(f"{source}: expected a description, found an empty file; {REMEDY}")
        document = _node(next(events), events, (), _Limit(source, limits.yaml_depth, lines))
        next(events)  # document end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise PackageError(f"{source} line {_line(event)}: expected one document, found a second one; {REMEDY}")
    except yaml.YAMLError as error:
        raise PackageError(_reword(error, text, source)) from error
    if not isinstance(document, dict):
        raise PackageError(f"{source}: expected a mapping of keys, found {_show(document)}; {REMEDY}")
    return Description(document, lines, source)


@dataclass(frozen=True)
class _Limit:
    source: str
    depth: int
    lines: dict[Key, int]


def _line(event: Any) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _node(event: Any, events: Iterator[Any], key: Key, limit: _Limit) -> Any:
    """Build the value that begins with this event, reading on to its end."""
    line = _line(event)
    limit.lines[key] = line
    where = f"{limit.source} line {line}, key {show_key(key)}"
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise PackageError(
            f"{where}: expected no anchors and aliases (& and *), found {event.anchor!r}; write the value out"
        )
    if event.tag is not None and event.tag not in _TAGS:
        raise PackageError(
            f"{where}: expected plain values, found the tag {event.tag!r}; write the value without a tag"
        )
    if len(key) > limit.depth:
        raise PackageError(f"{where}: expected at most {limit.depth} levels of nesting, found more; {REMEDY}")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, where)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_node(event, events, (*key, len(items)), limit))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent) or event.value == "<<" or event.anchor is not None:
            raise PackageError(
                f"{where}: expected keys that are plain text, found a list, mapping, merge or anchor; {REMEDY}"
            )
        name = event.value
        if name in mapping:
            first = limit.lines[(*key, name)]
            raise PackageError(
                f"{limit.source} line {_line(event)}, key {show_key((*key, name))}: expected every key once, found "
                "it also in "
                f"line {first}; remove one"
            )
        start = _line(event)
        mapping[name] = _node(next(events), events, (*key, name), limit)
        limit.lines[(*key, name)] = start
    return mapping


def _scalar(event: Any, where: str) -> str | int | float | bool | None:
    text, tag = event.value, (event.tag or "").removeprefix("tag:yaml.org,2002:")
    if tag == "str" or (not tag and not event.implicit[0]) or tag == "!":
        return text
    if text in _WORDS:
        value: Any = _WORDS[text]
    elif _INTEGER.fullmatch(text):
        value = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    elif _FLOAT.fullmatch(text):
        value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    else:
        value = text
    kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if tag and not (tag in kinds and isinstance(value, kinds[tag])):
        raise PackageError(f"{where}: expected a value that fits its tag !!{tag}, found {text[:40]!r}; {REMEDY}")
    return value


def _reword(error: yaml.YAMLError, text: str, source: str) -> str:
    """Return the parser's message in words that name the line; tabs get their own."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "a character that YAML does not have"
    if mark is None:
        position = getattr(error, "position", 0) or 0
        line = text.count("\n", 0, position if position < len(text) else len(text)) + 1
        return f"{source} line {line}: expected YAML, found: {problem}; {REMEDY}"
    content = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
    if (
        "\t" in content[: len(content) - len(content.lstrip())]
        or "'\\t'" in problem
        or content[mark.column :].startswith("\t")
    ):
        return f"{source} line {mark.line + 1}: expected spaces, found a tab; YAML is indented with spaces only"
    return f"{source} line {mark.line + 1}: expected YAML, found: {problem}; {REMEDY}"
