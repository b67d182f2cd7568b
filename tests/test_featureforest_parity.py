"""Features in FeatureForest's way against FeatureForest's own adapters: its patches, its stretch, its resizing, one network for both."""

from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional

import forestbridge as fb
from deep_weights import (
    cyto3_file,
    encoder_of,
    mobile_sam_state,
    patchwise_encoder_of,
    random_encoder,
    randomise,
    sam2_file,
    sam2_of_its_authors,
)
from featureforest_adapters import CPU, cellpose, deviation, theirs
from featureforest_files import featureforest, has_featureforest
from forestbridge.encoders.deep import DeepEncoder, plan_run
from forestbridge.encoders.deep_module import RawNetwork
from forestbridge.encoders.networks import network_of
from forestbridge.encoders.planning import plan_deep

pytestmark = pytest.mark.skipif(
    not has_featureforest(),
    reason="featureforest==0.1.2 (without dependencies) or pims is not installed: see scripts/test",
)

TOLERANCE = 2e-3
"""Of the largest value of a feature. Measured: at most one step of float16, 1e-3, which a last bit of float32 can cause; often 0."""

MOBILE_SAM = {
    "img_size": 1024,
    "embed_dims": [64, 128, 160, 320],
    "depths": [2, 2, 6, 2],
    "num_heads": [2, 4, 5, 10],
    "window_sizes": [7, 7, 14, 7],
    "layer_lr_decay": 0.8,
}


def assert_parity(encoder, adapter, image) -> None:
    expected = theirs(adapter, image)
    pixels = np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    found = deviation(fb.features(pixels, encoder), expected)
    print(f"{encoder.spec.name}: {found.max():.1e}")
    assert found.max() <= TOLERANCE


def cyto3(**options: int):
    return patchwise_encoder_of(torch.load(cyto3_file(), weights_only=True), "cellpose_cyto3", **options)


@pytest.fixture
def one_by_one(monkeypatch):
    """Patches one by one: eight at once need many gigabytes."""
    monkeypatch.setattr(featureforest("utils.extract"), "get_batch_size", lambda adapter: 1)


# --- Cellpose, with real weights ---


@pytest.mark.parametrize(
    ("image", "patch"),
    [
        (data.coins(), 256),  # the last patches reach far beyond the image
        (
            data.coins()[50:250, 20:213],
            128,
        ),  # of the last rows of patches 8 pixels lie in the image, of the last columns one
        (data.cell()[300:396, 200:300], 64),
        (data.cell()[300:364, 200:280] * np.float32(7.3) - 3000, 64),
    ],
    ids=["coins", "few pixels in the last patches", "cell", "below zero"],
)
def test_cellpose(image, patch):
    adapter = cellpose(*image.shape)
    encoder = cyto3(tile=patch)
    assert (adapter.patch_size, adapter.overlap) == (patch, patch // 4)
    assert all(m.is_plain for m in encoder.spec.maps)
    assert_parity(encoder, adapter, image)


def test_our_tiles_and_bilinear_interpolation_are_no_parity():
    """What forests that were trained in FeatureForest would meet otherwise, from the same network and intensities."""
    image = data.coins()[:200, :200]
    content = torch.load(cyto3_file(), weights_only=True)
    limits = {"low": [float(image.min())], "high": [float(image.max())]}
    encoder = encoder_of(content, "cellpose_cyto3", preprocessing="featureforest", **limits)
    expected = theirs(cellpose(*image.shape), image)
    found = deviation(fb.features(image, encoder), expected)
    assert found[:32].max() <= TOLERANCE  # of stride 1, nothing is interpolated
    for first, last in ((32, 96), (96, 224), (224, 480)):
        assert found[first:last].max() > 50 * TOLERANCE


class _Otherwise(nn.Module):
    """The module of an encoder in FeatureForest's way that resizes its maps otherwise."""

    def __init__(self, module, resize):
        super().__init__()
        self.module, self.resize = module, resize

    def forward(self, raw):
        maps = self.module.network(torch.cat([raw, torch.zeros_like(raw)], dim=1))
        return tuple(self.resize(m, raw.shape[2:]) for m in maps)


def test_bilinear_interpolation_of_the_same_maps_is_no_parity():
    image = data.coins()[:200, :200]
    encoder = cyto3(tile=128)
    expected = fb.features(image, encoder)

    def largest(**options):
        module = _Otherwise(encoder.module, partial(functional.interpolate, **options))
        otherwise = DeepEncoder(encoder.spec, module, plan_run(network_of("cellpose_cyto3")))
        return deviation(fb.features(image, otherwise), expected)[32:].max()

    assert largest(mode="bicubic", antialias=True) <= TOLERANCE
    assert largest(mode="bilinear") > 50 * TOLERANCE


def test_cells_of_neighbouring_patches_are_no_parity():
    """Bicubic interpolation over the cells of all cores, as a store of the network's own cells would be read."""
    image, patch, margin, core = data.coins()[:192, :192], 128, 16, 96
    encoder = cyto3(tile=patch)
    expected = fb.features(image, encoder)[224:]
    cells = np.empty((256, 24, 24), np.float32)
    pixels = np.pad(((image - image.min()) / np.ptp(image)).astype(np.float32), margin, mode="reflect")
    for y, x in product((0, core), repeat=2):
        raw = torch.from_numpy(pixels[y : y + patch, x : x + patch].copy())[None, None]
        with torch.inference_mode():
            found = encoder.module.network(torch.cat([raw, torch.zeros_like(raw)], dim=1))[3][0].numpy()
        cells[:, y // 8 : (y + core) // 8, x // 8 : (x + core) // 8] = found[:, 2:14, 2:14]
    resized = functional.interpolate(torch.from_numpy(cells)[None], (192, 192), mode="bicubic", antialias=True)[
        0
    ].numpy()
    off = deviation(resized, expected)
    inside = np.zeros((192, 192), bool)
    inside[24:72, 24:72] = True  # of the first core, two cells and a half away from others and from the border
    assert off[:, inside].max() <= TOLERANCE
    assert off.max() > 50 * TOLERANCE


# --- Transformers, with random weights in their published layouts ---


@pytest.mark.usefixtures("one_by_one")
def test_mobile_sam_in_colour(monkeypatch):
    monkeypatch.setattr(
        "timm.models.register_model", lambda function: function
    )  # its own copy would replace timm's networks
    state = mobile_sam_state()
    network = featureforest("models.MobileSAM.tiny_vit_sam").TinyViT(**MOBILE_SAM)
    official = {k.removeprefix("image_encoder."): v for k, v in state.items() if k.startswith("image_encoder.")}
    missing, strange = network.load_state_dict(official, strict=False)
    assert not strange and all("attention_bias_idxs" in name for name in missing)
    image = data.immunohistochemistry()[200:240, 100:140]
    adapter = featureforest("models.MobileSAM.adapter").MobileSAMAdapter(
        SimpleNamespace(image_encoder=network.eval()), *image.shape[:2], CPU
    )
    assert_parity(patchwise_encoder_of(state, "mobile_sam", channels=3, tile=32), adapter, image)


@pytest.mark.usefixtures("one_by_one")
def test_sam2_without_patching():
    network = randomise(sam2_of_its_authors("sam2_base"))
    image = data.coins()[100:150, 100:150]
    adapter = featureforest("models.SAM2.adapter").SAM2Adapter(network, *image.shape, CPU, "SAM2_Base")
    adapter.no_patching = True
    assert_parity(patchwise_encoder_of(sam2_file(network), "sam2_base", tile=50, overlap=0), adapter, image)


@pytest.mark.usefixtures("one_by_one")
def test_sam_of_two_blocks():
    """Of twelve, to spare time; the first two are windowed."""
    from segment_anything import sam_model_registry

    network = randomise(sam_model_registry["vit_b"]())
    encoder = patchwise_encoder_of(network.state_dict(), "micro_sam_lm", tile=32)
    for module in (network.image_encoder, encoder.module.network.trunk):
        module.blocks = module.blocks[:2]
    image = data.coins()[100:132, 100:132]
    adapter = featureforest("models.SAM.adapter").SAMAdapter(network.image_encoder, *image.shape, CPU, "μSAM_LM")
    assert_parity(encoder, adapter, image)


@pytest.mark.usefixtures("one_by_one")
def test_dinov2_of_one_block():
    """Of twelve, to spare time. DINOv2's own code is not installed: timm's stands behind the method that FeatureForest calls."""
    encoder = random_encoder("dinov2")
    encoder = patchwise_encoder_of_module(encoder.module.network)
    trunk = encoder.module.network.trunk
    trunk.blocks = trunk.blocks[:1]

    def layers(pictures, n, *, return_class_token, reshape):
        assert (n, return_class_token, reshape) == (1, False, True)
        return trunk.forward_intermediates(pictures, indices=1, norm=True, intermediates_only=True)

    image = data.coins()[100:170, 100:160]
    adapter = featureforest("models.DinoV2.adapter").DinoV2Adapter(
        SimpleNamespace(get_intermediate_layers=layers), *image.shape, CPU
    )
    assert_parity(encoder, adapter, image)


def patchwise_encoder_of_module(network):
    """Return DINOv2 in FeatureForest's way around a network that has its weights."""
    spec = plan_deep(network_of("dinov2"), channels=1, interpolation="featureforest")
    return DeepEncoder(spec, RawNetwork(spec, network), plan_run(network_of("dinov2")))
