"""Java, Maven and the engines of Java programs: are they here?"""

import os
from functools import cache
from typing import NamedTuple

import pytest

from forestbridge.consumers import JAVA_ENGINES, JavaEngine, cached_libraries, find_java
from forestbridge.errors import ResourceError


class Here(NamedTuple):
    """What `run_in_java` needs."""

    java: str
    libraries: str


def require_engine(engine: JavaEngine) -> Here:
    """Skip without Java, Maven or the libraries of an engine, and fail where the checks of every change run."""
    found = _find(engine)
    if isinstance(found, str):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(found)
    return found


def require_engines() -> None:
    """Do so for all engines."""
    for engine in JAVA_ENGINES:
        require_engine(engine)


@cache
def _find(engine: JavaEngine) -> Here | str:
    """Return what is here, or what is missing; the network is not asked."""
    try:
        tools = find_java()
    except ResourceError as error:
        return str(error)
    libraries = cached_libraries(engine, tools)
    if libraries is None:
        return f"Maven's local repository lacks {engine.name}: mvn -f tests/java -P {engine.profile} dependency:build-classpath"
    return Here(tools.java, libraries)
