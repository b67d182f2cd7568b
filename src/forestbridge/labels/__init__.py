"""Scribbles: which pixels of an image belong to which class, painted or annotated by people."""

from forestbridge.labels.check import check_scribbles, match_to_image, scribble_stats
from forestbridge.labels.merge import common_names, merge_scribbles, share_names
from forestbridge.labels.names import DEFAULT_COLOURS
from forestbridge.labels.readers import read_scribbles
from forestbridge.labels.scribbles import Scribbles, as_scribbles
from forestbridge.labels.writers import new_labels, write_new_labels, write_scribbles

__all__ = [
    "DEFAULT_COLOURS",
    "Scribbles",
    "as_scribbles",
    "check_scribbles",
    "common_names",
    "match_to_image",
    "merge_scribbles",
    "new_labels",
    "read_scribbles",
    "scribble_stats",
    "share_names",
    "write_new_labels",
    "write_scribbles",
]
