"""Deep encoders in FeatureForest's way: its patches, its stretch of intensities, its resizing. The spec of one; loads no torch.

    plane ──to 0…1──▶ patch with overlap ──bicubic──▶ network's input ──▶ maps ──bicubic──▶ patch ──crop──▶ core

FeatureForest resizes the maps of each patch to the patch, so that a pixel's value never depends on the cells of a neighbouring patch, and
keeps a value for each pixel. So do these encoders: their maps have stride 1, and whatever reads them looks up pixels.
"""

from collections.abc import Sequence
from typing import Any

from forestbridge.encoders.networks import VERSION, Network, channels_text, choose_maps
from forestbridge.errors import ImageError
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.stores.patches import patch_size

DINO_PATCH = (70, 28)
"""Size and overlap of FeatureForest's patches for DINOv2, of any image: enlarged 14 times, a token stands for a pixel."""

LEAST_PATCH = 8
"""Of smaller patches FeatureForest's overlap is odd or nothing."""


def plan_patches(
    network: Network,
    *,
    channels: int,
    weights: str,
    maps: Sequence[str] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
) -> EncoderSpec:
    """Return the spec of a deep encoder in FeatureForest's way.

    Parameters
    ----------
    channels, weights, maps
        As for `forestbridge.encoders.networks.plan_spec`.
    tile
        FeatureForest's patch size; it follows from the size of the image (`tile_for`). DINOv2 has one for all.
    overlap
        Of neighbouring patches; a quarter of the patch by default, as FeatureForest has it, and 0 with *No Patching*.

    Raises
    ------
    ValueError
        If the network has no such maps, takes no such channels, or FeatureForest has no such patches.
    """
    if channels not in network.inputs:
        raise ValueError(channels_text(network, channels))
    dino = network.name == "dinov2"
    side = DINO_PATCH[0] if dino and tile is None else tile
    if side is None:
        raise ValueError(
            f"expected the patch size of FeatureForest for {network.name}, found none; give images=[...], from whose size it follows, "
            "or tile=... (--tile)"
        )
    if overlap is None:
        overlap = DINO_PATCH[1] if dino else side // 4
    wrong_dino = dino and (side, overlap) != DINO_PATCH
    if wrong_dino or side < LEAST_PATCH or not 0 <= overlap < side or overlap % 2:
        expected = f"{DINO_PATCH[0]} pixels, overlap {DINO_PATCH[1]}" if dino else f"at least {LEAST_PATCH} pixels"
        raise ValueError(
            f"expected for {network.name} in FeatureForest's way patches of {expected}, and an even overlap, found {side} and overlap "
            f"{overlap}; leave them out, or give those of FeatureForest"
        )
    chosen = choose_maps(network, maps)
    core, margin = side - overlap, overlap // 2
    size = side * 14 if dino else network.trained
    return EncoderSpec(
        name=network.name,
        version=VERSION,
        axes="yx",
        channels=channels,
        intensity={"rule": "plane", "low": [0.0] * channels, "high": [1.0] * channels},
        tile=(core, core),
        # more than the margin: at the image's end a patch is continued by what lies up to a whole patch before it
        halo=(side - margin,) * 2,
        input_size=None if size is None else (size, size),
        options={
            "preprocessing": "featureforest",
            "mean": None,
            "std": None,
            "resize": "bilinear" if dino else "bicubic",
            "maps": [m.name for m in chosen],
            "patch_size": side,
            "overlap": overlap,
        },
        maps=tuple(MapSpec(m.name, tuple(f"{m.name}.{n:03}" for n in range(m.channels))) for m in chosen),
        interpolation="featureforest",
        dtype="float16",
        weights=weights,
    )


def seen_tile(spec: EncoderSpec) -> tuple[int, int]:
    """Return the side of what the network sees, in image pixels, and how many of them lie before the core."""
    if spec.interpolation == "featureforest":
        return spec.options["patch_size"], spec.options["overlap"] // 2
    core = (spec.tile or (0,))[0]
    return core + 2 * spec.halo[0], spec.halo[0]


def image_options(images: Sequence[Image], options: dict[str, Any]) -> dict[str, Any]:
    """Return `channels` and `tile` for images that FeatureForest would cut alike, as far as `options` do not say.

    Raises
    ------
    ImageError
        If there is no image, or their sizes give different patches.
    """
    if not images:
        raise ImageError("expected at least one image, from whose size the patches follow, found none")
    found = {"channels": images[0].n_channels}
    if options.get("tile") is None:
        sizes = {tile_for(image): image.source for image in images}
        if len(sizes) > 1:
            shown = ", ".join(f"{size} for {source}" for size, source in sizes.items())
            raise ImageError(
                f"expected images for which FeatureForest takes one patch size, found {shown}; give one with --tile (tile=...), or treat "
                "them one by one"
            )
        found["tile"] = next(iter(sizes))
    return found


def tile_for(image: Image) -> int:
    """Return FeatureForest's patch size for an image, of all networks but DINOv2."""
    return patch_size(image.sizes["Y"], image.sizes["X"])


def require_bilinear(spec: EncoderSpec, what: str) -> None:
    """Refuse an encoder in FeatureForest's way.

    Raises
    ------
    ValueError
        With `what` is wanted of it.
    """
    if spec.interpolation != "bilinear":
        raise ValueError(
            f"expected the interpolation bilinear for {what}, found {spec.interpolation} of {spec}: it stretches each plane as a whole and "
            "resizes patch by patch; forests over it predict from the .forest file. Extract and train with --interpolation bilinear"
        )
