"""What all compiled functions share: how numba compiles them, and until when it may reuse what it compiled."""

import hashlib
from pathlib import Path

COMPILED = {"boundscheck": False, "error_model": "numpy", "nogil": True}
"""Options of numba: without the GIL, so that tiles run in threads; indices are ours to get right."""

EXACT = {"fastmath": {"contract"}, **COMPILED}
"""For float64 arithmetic: a product and a sum may become one instruction, which rounds once."""


def source_hash(*files: str) -> str:
    """Return a hash of source files.

    numba keeps machine code until the file of the function changes, and does not look at the files of the functions it calls. A
    function with this hash as a free variable is compiled anew when any of them changes: free variables belong to the key.
    """
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
