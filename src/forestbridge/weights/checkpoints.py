"""The published checkpoints: URL, size, hashes, licence of the weights and what to cite."""

from dataclasses import dataclass

_SEGMENT_ANYTHING = "https://dl.fbaipublicfiles.com/segment_anything"
_BIOIMAGE_IO = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io"

_SAM = "Kirillov et al. 2023, Segment Anything, doi:10.1109/ICCV51070.2023.00371"
_SAM2 = "Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714"
_MICRO_SAM = "Archit et al. 2025, Segment Anything for Microscopy, doi:10.1038/s41592-024-02580-4"


@dataclass(frozen=True)
class Checkpoint:
    """A file that its authors published.

    Attributes
    ----------
    name
        The encoder that it belongs to.
    file
        Its name in the cache, unique among all.
    url
        Where it is.
    megabytes
        About how large it is.
    size
        In bytes, None where it is not published.
    sha256, xxh128
        None where they are not published; a file without sha256 is trusted when it comes for the first time.
    licence, citation
        Of the weights.
    """

    name: str
    file: str
    url: str
    megabytes: int
    size: int | None
    sha256: str | None
    licence: str
    citation: str
    xxh128: str | None = None


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        "mobile_sam",
        "mobile_sam.pt",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        41,
        40_728_226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        "Apache-2.0",
        "Zhang et al. 2023, Faster Segment Anything: Towards Lightweight SAM for Mobile Applications, arXiv:2306.14289",
    ),
    Checkpoint(
        "sam_vit_h",
        "sam_vit_h_4b8939.pth",
        f"{_SEGMENT_ANYTHING}/sam_vit_h_4b8939.pth",
        2565,
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "Apache-2.0",
        _SAM,
    ),
    Checkpoint(
        "micro_sam_lm",
        "micro_sam_lm_1.2_vit_b.pt",
        f"{_BIOIMAGE_IO}/diplomatic-bug/1.2/files/vit_b.pt",
        375,
        None,
        None,
        "CC-BY-4.0",
        _MICRO_SAM,
        xxh128="fe9252a29f3f4ea53c15a06de471e186",
    ),
    Checkpoint(
        "micro_sam_em",
        "micro_sam_em_organelles_1.2_vit_b.pt",
        f"{_BIOIMAGE_IO}/noisy-ox/1.2/files/vit_b.pt",
        375,
        None,
        None,
        "CC-BY-4.0",
        _MICRO_SAM,
        xxh128="f3bf2ed83d691456bae2c3f9a05fb438",
    ),
    Checkpoint(
        "dinov2",
        "dinov2_vits14_reg4_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        88,
        None,
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        "Apache-2.0",
        "Darcet et al. 2024, Vision Transformers Need Registers, arXiv:2309.16588",
    ),
    Checkpoint(
        "sam2_large",
        "sam2.1_hiera_large.pt",
        f"{_SEGMENT_ANYTHING}_2/092824/sam2.1_hiera_large.pt",
        898,
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        "Apache-2.0",
        _SAM2,
    ),
    Checkpoint(
        "sam2_base",
        "sam2.1_hiera_base_plus.pt",
        f"{_SEGMENT_ANYTHING}_2/092824/sam2.1_hiera_base_plus.pt",
        324,
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        "Apache-2.0",
        _SAM2,
    ),
    Checkpoint(
        "cellpose_cyto3",
        "cyto3",
        "https://www.cellpose.org/models/cyto3",
        27,
        26_566_255,
        "2dc3087a8abd7da46d1ab0ddd5824639933cc3ff63b382af3fa1939a392db93c",
        "BSD-3-Clause; trained on images that are CC-BY-NC",
        "Stringer & Pachitariu 2025, Cellpose3, doi:10.1038/s41592-025-02595-5",
    ),
)


def checkpoint_of(name: str) -> Checkpoint:
    """Return the published checkpoint of an encoder.

    Raises
    ------
    ValueError
        If there is none.
    """
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == name:
            return checkpoint
    known = ", ".join(c.name for c in CHECKPOINTS)
    raise ValueError(
        f"expected one of the encoders with published weights, {known}, found {name!r}; choose one of these"
    )
