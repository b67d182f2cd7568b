"""What to export, in the words of ``ilastik --headless``."""

from dataclasses import dataclass

from forestbridge.assemble import Kind

SOURCES: dict[str, Kind | None] = {
    "Probabilities": "probabilities",
    "Simple Segmentation": "labels",
    "Uncertainty": "uncertainty",
    "Features": None,
}
"""What can be exported, and what it is here; ilastik takes the names in any case."""

FORMATS = {
    "compressed hdf5": "h5",
    "hdf5": "h5",
    "numpy": "npy",
    "tif": "tif",
    "tiff": "tiff",
    "multipage tiff": "tiff",
    "png": "png",
    "single-scale OME-Zarr": "zarr",
}
"""ilastik's names of formats, and their suffix without the dot."""

OTHER_FORMATS = (
    *(
        "bmp",
        "gif",
        "hdr",
        "jpeg",
        "jpg",
        "pbm",
        "pgm",
        "pnm",
        "ppm",
        "ras",
        "n5",
        "compressed n5",
        "multi-scale OME-Zarr",
    ),
    *("dvid", "blockwise hdf5", "multipage tiff sequence"),
)

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")

FIVE = "tczyx"


@dataclass(frozen=True)
class Export:
    """What to export, in ilastik's words.

    Attributes
    ----------
    source
        One of `SOURCES`.
    format
        One of `FORMATS`.
    filename
        Path with placeholders: {dataset_dir} {nickname} {result_type} {roi} {x_start} {x_stop} and so on for each axis.
    internal_path
        Name of the dataset in HDF5.
    axes
        Order of the axes in the file; by default that of the image's file, with c at the end where it has none.
    region
        Start and stop along each axis that the image works with (t, z, y, x without those of length 1, then c), or along t, c, z, y, x;
        None for all.
    dtype
        One of `DTYPES`; by default that of the source.
    result_range, export_range
        Values that become each other; both or none.
    """

    source: str = "Probabilities"
    format: str = "compressed hdf5"
    filename: str = "{dataset_dir}/{nickname}_{result_type}"
    internal_path: str = "exported_data"
    axes: str | None = None
    region: tuple[tuple[int | None, ...], tuple[int | None, ...]] | None = None
    dtype: str | None = None
    result_range: tuple[float, float] | None = None
    export_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        names = {name.lower(): name for name in SOURCES}
        if self.source.lower() not in names:
            raise ValueError(
                f"expected the export source {', '.join(SOURCES)}, found {self.source!r}; choose one of these"
            )
        object.__setattr__(self, "source", names[self.source.lower()])
        if self.format not in FORMATS:
            what = (
                "one that ilastik alone writes"
                if self.format in OTHER_FORMATS or "sequence" in self.format
                else "another"
            )
            raise ValueError(
                f"expected the output format {', '.join(FORMATS)}, found {self.format!r}, {what}; choose one of these"
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(
                f"expected the export dtype {', '.join(DTYPES)}, found {self.dtype!r}; choose one of these"
            )
        if (self.result_range is None) != (self.export_range is None):
            raise ValueError(
                "expected both ranges, of the result and of the export, or none, found one; give --pipeline_result_drange and "
                "--export_drange"
            )
        if self.axes is not None and (set(self.axes) - set(FIVE) or len(set(self.axes)) < len(self.axes)):
            raise ValueError(
                f"expected axes as different letters of tczyx, found {self.axes!r}; write for example tzyxc"
            )
