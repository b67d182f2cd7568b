"""The transformers with random weights in the official layouts: against their authors' code, their geometry, and as every encoder."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.config import set_fused_attn, use_fused_attn
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deep_weights import (
    encoder_of,
    mobile_sam_shapes,
    mobile_sam_state,
    random_encoder,
    randomise,
    sam2_file,
    sam2_of_its_authors,
)
from forestbridge.encoders.base import NAMES, open_encoder
from forestbridge.encoders.conformance import EncoderConformance
from forestbridge.encoders.deep import DeepEncoder
from forestbridge.encoders.deep_module import build_module, convert_checkpoint, family_of
from forestbridge.encoders.networks import (
    ALIASES,
    NETWORKS,
    Layer,
    network_of,
    plan_spec,
    reach,
    sampling,
    split_name,
)
from forestbridge.errors import MissingExtraError

TOLERANCE = 1e-5
"""Of the largest value of a map."""


def plan(name: str, **options: Any):
    return plan_spec(network_of(name), **{"channels": 1, "low": [0], "high": [255], "weights": "0" * 64, **options})


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def picture(side: int, channels: int = 3, *, seed: int = 0) -> Tensor:
    """Return (1, channels, side, side) bytes as float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, channels, side, side), generator=generator).float()


COLOURS = {"channels": 3, "low": [0, 0, 0], "high": [255, 255, 255]}
SMALL = {"mobile_sam": 128, "micro_sam_lm": 64, "dinov2": 84, "sam2_base": 128}
"""Encoders that run here, and a small tile of each: one of each family; the large ones are the same code with other numbers."""


def every_map(name: str) -> list[str]:
    return [m.name for m in network_of(name).maps]


@cache
def small_encoder(name: str, *maps: str) -> DeepEncoder:
    return random_encoder(name, tile=SMALL[name], zoom=1, maps=maps or every_map(name))


class TestConformance(EncoderConformance):
    @pytest.fixture(params=SMALL)
    def encoder(self, request: pytest.FixtureRequest) -> DeepEncoder:
        return small_encoder(request.param)


class TestConformanceOfAZoomedTile(EncoderConformance):
    @pytest.fixture
    def encoder(self) -> DeepEncoder:
        return random_encoder("mobile_sam", tile=64, zoom=2, maps=["patch", "stage2"], channels=3)


def test_names() -> None:
    assert ("filters", *(n.name for n in NETWORKS)) == NAMES
    assert set(ALIASES.values()) == {n.name for n in NETWORKS}
    assert split_name("\u00b5SAM_LM:neck") == ("micro_sam_lm", ["neck"])
    assert split_name("\u03bcSAM_EM_Organelles") == ("micro_sam_em", None)
    with pytest.raises(ValueError, match=r"expected one of the encoders filters, mobile_sam, .* found 'sam3'"):
        open_encoder("sam3")


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forestbridge.encoders.base.find_spec", lambda name: None if name == "timm" else object())
    with pytest.raises(MissingExtraError, match=r"the encoder dinov2 needs the extra 'torch'"):
        open_encoder("DinoV2", low=[0], high=[1])


@pytest.mark.parametrize(
    ("name", "tile", "halo", "input_size", "maps"),
    [
        ("mobile_sam", 384, 64, 1024, [("neck", 256, 8, -0.25), ("patch", 64, 2, -0.25)]),
        ("sam_vit_h", 384, 64, 1024, [("neck", 256, 8, 3.5), ("patch", 1280, 8, 3.5)]),
        ("micro_sam_em", 384, 64, 1024, [("neck", 256, 8, 3.5), ("patch", 768, 8, 3.5)]),
        ("dinov2", 378, 70, None, [("tokens", 384, 14, 6.5)]),
        ("sam2_large", 384, 64, 1024, [("s4", 256, 2, -0.25), ("s8", 256, 4, 0.75), ("s16", 256, 8, 2.75)]),
        ("sam2_base", 384, 64, 1024, [("s4", 256, 2, -0.25), ("s8", 256, 4, 0.75), ("s16", 256, 8, 2.75)]),
        (
            "cellpose_cyto3",
            384,
            64,
            None,
            [("s1", 32, 1, 0), ("s2", 64, 2, 0.5), ("s4", 128, 4, 1.5), ("s8", 256, 8, 3.5)],
        ),
    ],
)
def test_default_specs(name: str, tile: int, halo: int, input_size: int | None, maps: list) -> None:
    """Maps are FeatureForest's; strides and offsets are worked out by hand in pixels of the image."""
    spec = plan(name)
    assert (spec.tile, spec.halo, spec.dtype) == ((tile, tile), (halo, halo), "float16")
    assert spec.input_size == (None if input_size is None else (input_size, input_size))
    assert [(m.name, len(m.channels), m.stride, m.offset) for m in spec.maps] == maps


def test_tile_of_1024_has_zoom_1() -> None:
    spec = plan("sam2_base", tile=1024, maps=["trunk32", "s4"])
    assert (spec.tile, spec.halo, spec.input_size) == ((768, 768), (128, 128), None)
    assert [(m.name, m.stride, m.offset) for m in spec.maps] == [("s4", 4, 0), ("trunk32", 32, 14)]


def test_geometry_by_hand() -> None:
    assert sampling((Layer(16, 16, 0),)) == (16, 7.5)
    assert sampling((Layer(3, 2, 1),) * 4) == (16, 0)
    assert sampling((Layer(7, 4, 3), Layer(2, 2, 0), Layer(2, 2, 0))) == (16, 6)
    assert (reach((Layer(3, 1, 1),)), reach((Layer(2, 2, 0),)), reach((Layer(3, 1, 1), Layer(2, 2, 0)))) == (1, 0, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dinov2", {"tile": 512}, r"a tile of a multiple of 14 pixels from 42 on, .* found tile 512"),
        ("sam2_base", {"tile": 500}, r"a multiple of 16 pixels from 48 on, .* found tile 500 and zoom 2"),
        ("sam2_base", {"tile": 4}, r"found tile 4 and zoom 256"),
        ("sam2_base", {"maps": ["neck"]}, r"expected maps of sam2_base among s4, s8, s16, trunk4, .* found neck"),
        ("sam2_base", {"maps": ["s4", "s4"]}, r"each once, found s4, s4"),
        ("mobile_sam", {"channels": 2, "low": [0, 0], "high": [1, 1]}, r"expected 1 or 3 channels .* the filter bank"),
        ("sam2_base", {"tile": 128, "zoom": 8, "maps": ["s4"]}, r"map s4 of stride 0.5 at zoom 8; leave this map out"),
    ],
)
def test_refused_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(name, **options)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_parameters_are_those_of_the_networks(network) -> None:
    with torch.device("meta"):
        module = family_of(network.name).build_network(network.name, [m.name for m in network.maps])
    assert sum(p.numel() for p in module.parameters()) == network.parameters


# SAM


@cache
def sam_b() -> nn.Module:
    from segment_anything import sam_model_registry

    return randomise(sam_model_registry["vit_b"]())


def test_sam_equals_segment_anything() -> None:
    """ViT-B from SAM's own layout, at 256 pixels: SAM's code runs there with its table of positions resampled."""
    sam, raw = sam_b(), picture(256)
    assert len(sam.state_dict()) == 314
    positions = sam.image_encoder.pos_embed
    with torch.inference_mode():
        sam.image_encoder.pos_embed = nn.Parameter(resample_abs_pos_embed_nhwc(positions, [16, 16]))
        standardised = (raw - sam.pixel_mean) / sam.pixel_std
        expected = (
            sam.image_encoder(standardised),
            sam.image_encoder.patch_embed(standardised).permute(0, 3, 1, 2),
        )
        sam.image_encoder.pos_embed = positions
        found = encoder_of(sam.state_dict(), "micro_sam_lm", tile=256, zoom=1, **COLOURS).module(raw)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b)


def test_layouts_of_micro_sam() -> None:
    state = sam_b().state_dict()
    convert = convert_checkpoint(network_of("micro_sam_em"))
    combined = {
        "model_state": {f"sam.{k}": v for k, v in state.items()},
        "decoder_state": {"out.weight": torch.zeros(1)},
    }
    plain = convert(state)
    assert len(plain) == 177
    for content in (combined, {"model_state": state, "decoder_state": {}}, {f"sam.{k}": v for k, v in state.items()}):
        other = convert(content)
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[k], other[k]) for k in plain)


def test_sam_h_loads_strictly() -> None:
    """On torch's device without memory: 2.5 GB of parameters, of which names and shapes are compared."""
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        state = sam_model_registry["vit_h"]().state_dict()
    assert len(state) == 594
    part = convert_checkpoint(network_of("sam_vit_h"))(state)
    assert len(part) == 457
    build_module(plan("sam_vit_h"), part)
    with pytest.raises(ValueError, match=r"expected the 177 tensors of micro_sam_lm, found others \(280 unknown"):
        convert_checkpoint(network_of("micro_sam_lm"))(state)


# SAM 2


def test_sam2_equals_its_authors_code() -> None:
    original, raw = randomise(sam2_of_its_authors("sam2_base")), picture(256)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1),
    )
    maps = [m.name for m in network_of("sam2_base").maps]
    with torch.inference_mode():
        standardised = (raw / 255 - mean) / std
        expected = [*original(standardised)["backbone_fpn"], *original.trunk(standardised)]
        content = sam2_file(original)
        found = encoder_of(content, "sam2_base", tile=256, zoom=1, maps=maps, **COLOURS).module(raw)
        fine = encoder_of(content, "sam2_base", tile=256, zoom=1, maps=["s4"], **COLOURS).module(raw)
    assert maps == ["s4", "s8", "s16", "trunk4", "trunk8", "trunk16", "trunk32"]
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b)
    assert torch.equal(fine[0], found[0])


class RealLinspace(TorchFunctionMode):
    """SAM 2 asks for numbers of a linspace when it is built."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def test_sam2_large_loads_strictly() -> None:
    """On torch's device without memory, as SAM's ViT-H."""
    with torch.device("meta"), RealLinspace():
        content = sam2_file(sam2_of_its_authors("sam2_large"))
    part = convert_checkpoint(network_of("sam2_large"))(content)
    assert len(part) == 594
    build_module(plan("sam2_large"), part)
    with pytest.raises(ValueError, match=r"expected the 306 tensors of sam2_base, found others"):
        convert_checkpoint(network_of("sam2_base"))(content)


# MobileSAM


def test_mobile_sam_loads_its_published_layout() -> None:
    """302 tensors and 6 065 532 parameters, as its authors published it."""
    shapes = mobile_sam_shapes()
    assert len(shapes) == 302
    parameters = [np.prod(s) for k, s in shapes.items() if not k.endswith(("running_mean", "running_var", "tracked"))]
    assert sum(parameters) == 6_065_532
    state = mobile_sam_state()
    encoder = encoder_of(state, "mobile_sam", tile=128, zoom=1)
    network = encoder.module.network
    official = {k.removeprefix("image_encoder."): v for k, v in state.items()}
    for ours, theirs in {
        "trunk.patch_embed.conv2.conv.weight": "patch_embed.seq.2.c.weight",
        "trunk.stages.0.blocks.1.conv3.bn.running_var": "layers.0.blocks.1.conv3.bn.running_var",
        "trunk.stages.1.downsample.conv1.conv.weight": "layers.0.downsample.conv1.c.weight",
        "trunk.stages.2.blocks.5.attn.attention_biases": "layers.2.blocks.5.attn.attention_biases",
        "trunk.stages.3.downsample.conv3.bn.weight": "layers.2.downsample.conv3.bn.weight",
        "neck.2.weight": "neck.2.weight",
    }.items():
        assert torch.equal(network.state_dict()[ours], official[theirs])
    assert [m.shape for m in encoder.module(picture(128, 1))] == [(1, 256, 8, 8), (1, 64, 32, 32)]
    del state["image_encoder.neck.1.weight"]
    with pytest.raises(ValueError, match=r"1 missing, such as neck.1.weight"):
        encoder_of(state, "mobile_sam")


def test_mobile_sam_stages() -> None:
    encoder = small_encoder("mobile_sam")
    trunk = encoder.module.network.trunk
    assert [(m.name, len(m.channels), m.stride) for m in encoder.spec.maps] == [
        ("neck", 256, 16),
        ("patch", 64, 4),
        ("stage1", 64, 4),
        ("stage2", 128, 8),
        ("stage3", 160, 16),
        ("stage4", 320, 16),
    ]
    windows = [[b.window_size for b in stage.blocks] for stage in trunk.stages[1:]]
    assert windows == [[7] * 2, [14] * 6, [7] * 2]


# DINOv2


def dinov2_state() -> dict[str, Tensor]:
    """Return random weights in DINOv2's published layout: 176 tensors."""
    module = randomise(random_encoder("dinov2", tile=84).module.network.trunk)
    state = dict(module.state_dict())
    generator = torch.Generator().manual_seed(1)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.randn(1, 1, 384, generator=generator), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 384)
    return state


def test_dinov2_equals_timm() -> None:
    """From the published layout as timm itself reads it; the class token counts with the position of its own."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    state, raw = dinov2_state(), picture(84)
    assert (len(state), state["pos_embed"].shape, state["register_tokens"].shape) == (176, (1, 1370, 384), (1, 4, 384))
    model = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(checkpoint_filter_fn(dict(state), model), strict=True)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1),
    )
    with torch.inference_mode():
        expected = model.forward_intermediates((raw / 255 - mean) / std, indices=1, norm=True, intermediates_only=True)
        found = encoder_of(state, "dinov2", tile=84, **COLOURS).module(raw)
    assert_near(found[0], expected[0])


# What they have in common


def chain_of(convolutions: list[nn.Conv2d]) -> tuple[Layer, ...]:
    return tuple(Layer(c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions)


def test_chains_are_those_of_the_modules() -> None:
    """Kernels, strides and paddings that decide where cells lie, read from the networks that run."""
    plans = {(n.name, m.name): m.chain for n in NETWORKS for m in n.maps}
    trunk = small_encoder("mobile_sam").module.network.trunk
    stem = [trunk.patch_embed.conv1.conv, trunk.patch_embed.conv2.conv]
    halvings = [stage.downsample.conv2.conv for stage in trunk.stages[1:]]
    assert plans["mobile_sam", "patch"] == chain_of(stem)
    assert sampling(plans["mobile_sam", "stage3"]) == sampling(chain_of([*stem, *halvings[:2]]))
    assert sampling(plans["mobile_sam", "neck"]) == sampling(chain_of([*stem, *halvings]))
    trunk = small_encoder("sam2_base").module.network.trunk
    pools = tuple(Layer(b.q_stride[0], b.q_stride[0], 0) for b in trunk.blocks if b.q_stride)
    assert plans["sam2_base", "trunk32"] == (*chain_of([trunk.patch_embed.proj]), *pools)
    for name in ("micro_sam_lm", "dinov2"):
        trunk = small_encoder(name).module.network.trunk
        assert plans[name, network_of(name).maps[-1].name] == chain_of([trunk.patch_embed.proj])


@pytest.mark.parametrize(("name", "map_name"), [("mobile_sam", "patch"), ("micro_sam_lm", "patch")])
def test_stem_sees_where_the_spec_says(name: str, map_name: str) -> None:
    """The centre of mass of a cell's gradient lies at offset + stride · cell."""
    encoder = small_encoder(name, map_name)
    (m,) = encoder.spec.maps
    k = 3
    raw = picture(SMALL[name], 1).requires_grad_()
    encoder.module(raw)[0][0, :, k, 1].square().sum().backward()
    rows = raw.grad.square().sum(dim=(0, 1, 3))
    assert float((rows * torch.arange(len(rows))).sum() / rows.sum()) == pytest.approx(
        m.offset + m.stride * k, abs=0.15 * m.stride
    )


class Calls(TorchFunctionMode):
    """Counts calls of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.fused += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SMALL)
def test_exportable_attention_is_written_out(name: str) -> None:
    """Same weights and values; timm's switch is left as it was."""
    results = []
    for exportable in (False, True):
        encoder = (
            random_encoder(name, tile=SMALL[name], zoom=1, maps=every_map(name), exportable=True)
            if exportable
            else small_encoder(name)
        )
        with torch.inference_mode(), Calls() as calls:
            results.append(encoder.module(picture(SMALL[name], 1)))
        assert (calls.fused == 0) == exportable
    for a, b in zip(*results, strict=True):
        assert_near(a, b)
    assert use_fused_attn()


def test_timms_switch_stays_off_for_who_turned_it_off() -> None:
    set_fused_attn(False)
    try:
        random_encoder("dinov2", tile=84)
        assert not use_fused_attn()
    finally:
        set_fused_attn(True)


def test_preprocessing_of_featureforest() -> None:
    """No mean and standard deviation: the same network sees 0 to 1."""
    ours, theirs = (
        random_encoder("mobile_sam", tile=64, zoom=1, preprocessing=p, maps=["patch"])
        for p in ("network", "featureforest")
    )
    assert ours.spec.options["mean"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-3)
    assert (theirs.spec.options["mean"], theirs.spec.options["std"]) == (None, None)
    assert ours.spec.fingerprint() != theirs.spec.fingerprint()
    raw = picture(64, 1)
    with torch.inference_mode():
        expected = theirs.module.network((raw / 255).expand(-1, 3, -1, -1))
        assert_near(theirs.module(raw)[0], expected[0])
        assert not torch.allclose(ours.module(raw)[0], expected[0])


def test_grey_is_three_equal_colours() -> None:
    grey = random_encoder("mobile_sam", tile=128, zoom=1, maps=["patch"])
    colours = random_encoder("mobile_sam", tile=128, zoom=1, maps=["patch"], **COLOURS)
    raw = picture(128, 1)
    with torch.inference_mode():
        assert torch.equal(grey.module(raw)[0], colours.module(raw.expand(-1, 3, -1, -1))[0])


def test_page_has_the_maps_of_every_network() -> None:
    """The table of docs/encoders.md: features and stride of each map, those of the default in bold."""
    page = (Path(__file__).parent.parent / "docs" / "encoders.md").read_text(encoding="utf-8")
    rows = {
        name: row
        for names, row in re.findall(r"^\| (`.*?) \| (\*\*.*?) \|$", page, re.MULTILINE)
        for name in names.split(", ")
    }
    assert set(rows) == {f"`{n.name}`" for n in NETWORKS}
    for network in NETWORKS:
        bold, others = re.fullmatch(r"\*\*(.*?)\*\*(?:; (.*))?", rows[f"`{network.name}`"]).groups()
        for text, default in ((bold, True), (others, False)):
            maps = [m for m in network.maps if m.default == default]
            spec = plan(network.name, maps=[m.name for m in maps]) if maps else None
            expected = [f"{m.name} {len(m.channels)} @ {m.stride:g}" for m in spec.maps] if spec else []
            assert (text.split(", ") if text else []) == expected
