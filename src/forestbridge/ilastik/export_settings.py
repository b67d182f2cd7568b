"""What a project's export dialog was set to: the defaults of ``ilastik --headless`` for this project."""

from typing import Any

from forestbridge.image.hdf5_nodes import Node

GROUP = "Prediction Export"

TEXTS = {
    "OutputFormat": "format",
    "OutputFilenameFormat": "filename",
    "OutputInternalPath": "internal_path",
    "OutputAxisOrder": "axes",
    "ExportDtype": "dtype",
}

RANGES = {"result_range": ("InputMin", "InputMax"), "export_range": ("ExportMin", "ExportMax")}


def read_export_settings(root: Node) -> dict[str, Any]:
    """Return the settings that the project keeps, by the names of `forestbridge.headless.Export`.

    Raises
    ------
    ProjectError
        If one is of another kind than ilastik writes.
    """
    group = root.node(GROUP)
    if group is None:
        return {}
    settings: dict[str, Any] = {name: group.text(key) for key, name in TEXTS.items() if group.has(key)}
    if all(group.has(key) for keys in RANGES.values() for key in keys):
        settings |= {name: tuple(group.scalar(key) for key in keys) for name, keys in RANGES.items()}
    if group.has("RegionStart") and group.has("RegionStop"):
        bounds = [group.array(key, kinds="iu", ndim=1, most=5).tolist() for key in ("RegionStart", "RegionStop")]
        settings["region"] = tuple(tuple(None if n == -1 else n for n in bound) for bound in bounds)
    return settings
