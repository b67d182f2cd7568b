"""Runs one contender of the benchmark whenever it is told to: `python worker.py CONTENDER.py FOLDER`.

Works in the environments of the peers: standard library and numpy, Python 3.9 or newer, Linux. CONTENDER.py has
`prepare(folder)`, which is not timed, and `run(state)`, which is. It may have `versions()`, and `answer(state, result)`
where the result is not the array to compare with others. Commands come in on stdin, one a line; each is answered by one line
of JSON on stdout, after one that says that it is ready:

    (start)      {"ready": true, "versions": {name: version}}
    run          {"wall": seconds, "cpu": seconds of all threads and finished children, "extra_mib": memory}
    save PATH    {"saved": PATH}, the last result as .npy
    quit         ends, without an answer

Whatever fails is answered {"error": MESSAGE}; its traceback goes to stderr, and so does what the contender prints.
"""

import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np


def memory_mib(key):
    """Return `VmRSS` (resident now) or `VmHWM` (its peak) of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"expected {key} in /proc/self/status, found none: this needs Linux")


def cpu_seconds():
    """Return the CPU time of all threads and of the finished children, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(run, state):
    """Run the job once.

    Returns
    -------
    result, figures
        What it returned; wall and cpu in seconds, and how far the peak of the resident memory rose over what was resident
        before and the result itself, in MiB (children not counted).
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what earlier runs freed would count as resident before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before, cpu, wall = memory_mib("VmRSS"), cpu_seconds(), time.perf_counter()
    result = run(state)
    figures = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
    of_result = result.nbytes / 2**20 if isinstance(result, np.ndarray) else 0.0
    figures["extra_mib"] = max(memory_mib("VmHWM") - before - of_result, 0.0)
    return result, figures


def serve(contender, folder, commands, answer):
    """Prepare a contender and answer commands until `quit` or the end of input."""
    module = importlib.import_module(contender)
    state = module.prepare(folder)
    versions = module.versions() if hasattr(module, "versions") else {}
    answer({"ready": True, "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions}})
    result = None
    for line in commands:
        command, _, argument = line.strip().partition(" ")
        if command == "quit":
            return
        try:
            if command == "run":
                result = None  # its memory is free again before the next run
                result, figures = measure(module.run, state)
                answer(figures)
            elif command == "save":
                if result is None:
                    raise ValueError("expected a result to save, found none; run first")
                np.save(argument, module.answer(state, result) if hasattr(module, "answer") else result)
                answer({"saved": argument})
            else:
                raise ValueError(f"expected run, save PATH or quit, found {line.strip()!r}")
        except Exception as error:  # noqa: BLE001 - a contender may fail in any way
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})


def main():
    """Keep stdin and stdout for the commands alone, then serve."""
    path, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    commands, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def answer(message):
        print(json.dumps(message), file=answers, flush=True)

    sys.path[0] = str(path.parent)  # contenders may share a module; ours are not theirs
    try:
        serve(path.stem, folder, commands, answer)
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
