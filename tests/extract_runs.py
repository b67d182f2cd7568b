"""One image in twelve shards, a way to stop its extraction, and the files of the store as bytes."""

import json
import signal
from pathlib import Path

from small_encoders import noise_image

IMAGE = noise_image("YX", (100, 90))
"""With tiles of 32 pixels: 4 × 3 shards."""

PROVENANCE = ("seconds", "time", "pid", "host", "check")


def tree(path: Path) -> dict[str, object]:
    """Return the files of a store; of the journal what does not depend on when, where and in which order it ran."""
    files: dict[str, object] = {}
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if file.is_file() and not name.startswith("forestbridge/"):
            files[name] = file.read_bytes()
    lines = [json.loads(line) for line in (path / "forestbridge/journal.0.jsonl").read_text().splitlines()]
    shards = [{k: v for k, v in line.items() if k not in PROVENANCE} for line in lines]
    files["journal"] = sorted(shards, key=lambda line: line["shard"])
    run = json.loads((path / "forestbridge/run.json").read_text())
    files["run"] = {k: v for k, v in run.items() if k != "created"}
    files["names"] = sorted(f.name for f in (path / "forestbridge").iterdir())
    return files


def stop_after(shards: int):
    """Return a progress callback that sends this process the signal of Ctrl-C when so many shards are done."""

    def progress(done: int, total: int) -> None:
        assert total == 12
        if done == shards:
            signal.raise_signal(signal.SIGINT)

    return progress
