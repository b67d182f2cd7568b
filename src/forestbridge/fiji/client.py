"""What the Fiji commands execute: hands a request to the warm worker and returns one status line. Standard library only.

    python -E -s -S client.py check                   is forestbridge in this Python, and which version?
    python -E -s -S client.py submit JOB REQUEST      begin; JOB is a folder of this one call
    python -E -s -S client.py wait JOB                go on waiting
    python -E -s -S client.py clean JOB               remove the folder, with what a call that was cut off left in it
    python -E -s -S client.py stop                    end the worker

REQUEST is the command line after ``forestbridge``: words joined by commas, with ``%``, commas, blanks, quotes and line ends in them as
``%25``, ``%2C``, ``%20``, ``%22``, ``%0A``. What goes to the worker and comes back is written in the same way, on one line each.
`submit` and `wait` return after at most `ANSWER_WITHIN` seconds, with ``status=running ...`` if the work is not done; a caller that
stops waiting has cancelled. A worker is started if none runs; where none can be started the request runs in a process of its own.

This file runs in any Python, to be able to say that it is the wrong one: nothing newer than Python 3.6 outside of strings, and it
must not import forestbridge. It is started for every call, so that what takes milliseconds to import is imported where it is needed.
`VERSION` is the version of what is said between this file and the worker.
"""

import os
import sys
import time

VERSION = 1
ANSWER_WITHIN = 1.0
"""Seconds after which `submit` and `wait` answer, done or not, so that ImageJ can show progress and react to Esc."""

LOOK_EVERY = 0.005
"""Seconds between two looks into the status file."""

START_WITHIN = 60.0
"""Seconds that a worker may take to start."""

LEFT_FOR = 86400.0
"""Seconds after which the folder of a call counts as left behind."""

ESCAPES = {letter: "%{:02X}".format(ord(letter)) for letter in '%, "\r\n\t'}

PYTHON = (3, 11)
IDLE = "900"
"""Seconds without work after which a worker that was started here ends."""


def main(words):
    """Return the status line."""
    if sys.version_info < PYTHON:
        found = "{}.{}".format(*sys.version_info)
        return _error(
            "expected Python {}.{} or newer, found Python {} at {}; choose the Python of forestbridge with FB Configure".format(
                PYTHON[0], PYTHON[1], found, sys.executable
            )
        )
    command, rest = (words[0], words[1:]) if words else ("", [])
    try:
        if command == "check" and not rest:
            return check()
        if command == "submit" and len(rest) == 2:
            return submit(rest[0], decode(rest[1]))
        if command == "wait" and len(rest) == 1:
            return wait(rest[0])
        if command == "clean" and len(rest) == 1:
            return clean(rest[0])
        if command == "stop" and not rest:
            return stop()
    except OSError as error:
        return _error("expected a worker that can be reached, found: {}; see {}".format(error, worker_log()))
    return _error("expected check, submit JOB REQUEST, wait JOB, clean JOB or stop, found {!r}".format(words))


def _error(message):
    return "status=error message=" + " ".join(message.split())


def encode(words):
    """Return words on one line, so that `decode` finds them again."""
    return ",".join("".join(ESCAPES.get(letter) or letter for letter in word) for word in words)


def decode(line):
    """Return the words of a line."""
    words = []
    for word in line.split(","):
        first, *escaped = word.split("%")
        words.append(first + "".join(chr(int(part[:2], 16)) + part[2:] for part in escaped))
    return words


# Places. The worker uses them too.


def cache_folder():
    """Return the folder for files that may be thrown away, of this user alone."""
    if os.environ.get("FORESTBRIDGE_CACHE"):
        return os.environ["FORESTBRIDGE_CACHE"]
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return os.path.join(base, "forestbridge")


def worker_file():
    """Return the file in which the worker of this Python says where it listens."""
    # The folder, not the resolved file: the Pythons of two virtual environments are links to the same one.
    import zlib

    place = os.path.dirname(os.path.abspath(sys.executable))
    return os.path.join(cache_folder(), "worker-{:08x}".format(zlib.crc32(os.fsencode(place))))


def worker_log():
    """Return the file that takes what the worker says on stdout and stderr."""
    return worker_file() + ".log"


# Talking to the worker.


def ask(*words, timeout=10.0):
    """Return the worker's answer to a request, a list of words; None if there is no worker.

    The token in the worker's file, which only its user can read, proves that we are its user.
    """
    import socket

    facts = _read(worker_file()).split()  # port, token, process
    if len(facts) != 3:
        return None
    try:
        with socket.create_connection(("127.0.0.1", int(facts[0])), timeout=timeout) as connection:
            connection.sendall(
                (encode([facts[1], str(VERSION)] + list(words)) + "\n").encode("utf-8", "surrogateescape")
            )
            answer = b""
            while not answer.endswith(b"\n"):
                part = connection.recv(65536)
                if not part:
                    return None
                answer += part
        return decode(answer.decode("utf-8", "surrogateescape").strip())
    except (OSError, ValueError):
        return None


def _start():
    """Start a worker and wait until it answers; return None, or why it does not."""
    try:
        os.makedirs(cache_folder(), mode=0o700, exist_ok=True)
        with open(worker_log(), "w") as output:
            process = _spawn(["serve", "--idle", IDLE], output)
    except OSError as error:
        return str(error)
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end:
        if ask("hello") not in (None, ["old"]):
            return None
        ended = process.poll()
        if ended:
            return _read(worker_log())[-2000:]
        if ended == 0:  # there was another worker: one that was quicker, or an old one that still ends its work
            time.sleep(0.2)
            with open(worker_log(), "a") as output:
                process = _spawn(["serve", "--idle", IDLE], output)
        time.sleep(0.01)
    return "it did not answer within {:.0f} s".format(START_WITHIN)


def _sweep(folder):
    """Remove folders of calls beside this one which nobody removed: ImageJ was ended in the middle of a call, a day ago or more."""
    import shutil

    old = time.time() - LEFT_FOR
    for entry in os.scandir(folder):
        try:
            ours = entry.name.startswith("forestbridge-") and entry.is_dir(follow_symlinks=False)
            if ours and entry.stat().st_mtime < old:
                shutil.rmtree(entry.path, ignore_errors=True)
        except OSError:
            continue  # somebody else removes it, or it is not ours


def _spawn(words, output):
    """Start forestbridge as a process that outlives this one."""
    import subprocess

    options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "close_fds": True}
    if sys.platform == "win32":
        options["creationflags"] = 0x08000208  # without window, detached, in a process group of its own
    else:
        options["start_new_session"] = True
    environment = dict(os.environ)
    environment.pop("PYTHONHOME", None)
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen([sys.executable, "-m", "forestbridge"] + words, env=environment, **options)


def _why_not_forestbridge(found):
    """Return a message about a Python in which forestbridge cannot start."""
    last = found.splitlines()[-1] if found else "nothing"
    if "No module named" in found:
        last = "it has none ({})".format(last)
    return (
        "expected forestbridge in the Python {}, found: {}; install it there (pip install forestbridge), or choose another "
        "Python with FB Configure".format(sys.executable, last)
    )


def check():
    """Return the versions of forestbridge and of Python; no worker is started."""
    import subprocess

    code = "import forestbridge, sys; print(forestbridge.__version__, sys.version.split()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
    )
    if done.returncode:
        return _error(_why_not_forestbridge(done.stderr.strip()))
    version, python = done.stdout.split()[-2:]
    return "status=ok version={} python={} protocol={} executable=[{}]".format(version, python, VERSION, sys.executable)


def stop():
    """End the worker, if one runs."""
    return "status=ok stopped={}".format("true" if ask("stop") else "false")


# Jobs.


def status_file(job):
    """Return where the status of a job is written."""
    return os.path.join(job, "status")


def submit(job, arguments):
    """Begin a job, and wait for it a little.

    Parameters
    ----------
    job
        Folder of this call alone; made if it is not there, and then readable by this user only.
    arguments
        Command line after ``forestbridge``.
    """
    os.makedirs(job, mode=0o700, exist_ok=True)
    os.chmod(job, 0o700)
    request = ["run", status_file(job), os.getcwd()] + arguments
    _forget(job)
    _touch(job)
    answer = ask(*request)
    if answer is None or answer == ["old"]:  # old: forestbridge was updated while the worker ran
        _sweep(os.path.dirname(os.path.abspath(job)))
        problem = _start()
        answer = ask(*request) if problem is None else None
        if answer in (None, ["old"]):
            return _alone(job, arguments, problem or "it did not answer")
    if answer[0] == "refused":
        return _error(answer[1])
    return wait(job)


def clean(job):
    """Remove the folder of a job."""
    import shutil

    if not os.path.basename(job).startswith("forestbridge-"):
        return _error("expected the folder of a call, named forestbridge-..., found {}".format(job))
    shutil.rmtree(job, ignore_errors=True)
    return "status=ok"


def _alone(job, arguments, problem):
    """Run a job in a process of its own, because there is no worker."""
    checked = check()
    if not checked.startswith("status=ok"):
        return checked
    words = arguments + ["--macro", "--status", status_file(job)]
    with open(os.path.join(job, "log"), "w") as output:
        output.write("no worker could be started: {}\n".format(problem))
        output.flush()
        process = _spawn(words, output)
    with open(os.path.join(job, "pid"), "w") as note:
        note.write(str(process.pid))
    return wait(job, process)


def wait(job, process=None):
    """Return the status line of a job: the last one if it ends within `ANSWER_WITHIN` seconds."""
    _touch(job)
    end = time.monotonic() + ANSWER_WITHIN
    line = "status=running current=0 maximum=0 message=starting"
    while time.monotonic() < end:
        line = _read(status_file(job)) or line
        if not line.startswith("status=running"):
            return line
        time.sleep(LOOK_EVERY)
    if not _is_worked_on(job, process):
        last = _read(status_file(job)) or line
        if last.startswith("status=running"):
            return _error(
                "expected the worker to finish, found that it ended in the middle of this call (killed, or out of memory); "
                "call again, a new one is started then; its log is {}".format(worker_log())
            )
        return last
    return line


def _is_worked_on(job, process):
    """Whether somebody lives who works on a job."""
    note = _read(os.path.join(job, "pid"))
    if process is not None:
        return process.poll() is None
    if note:
        return _lives(int(note))
    return ask("has", status_file(job)) == ["yes"]


def _lives(pid):
    """Whether a process runs."""
    if sys.platform != "win32":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
    import ctypes

    handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # os.kill would end it
    if not handle:
        return False
    code = ctypes.c_ulong()
    ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
    ctypes.windll.kernel32.CloseHandle(handle)
    return code.value == 259


def _forget(job):
    """Remove what an earlier call left in the same folder: its status is not the status of this one."""
    for name in (status_file(job), status_file(job) + ".cancel", os.path.join(job, "pid")):
        try:
            os.remove(name)
        except FileNotFoundError:
            pass


def _touch(job):
    """Tell that the caller still waits."""
    with open(status_file(job) + ".alive", "w"):
        pass


def _read(path):
    """Return the text of a small file, "" if it is not there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
