"""Segment Anything with random weights: the packages' own code on small models, weights from files, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import call
from forestbridge.errors import ImageError, ResourceError
from forestbridge.objects import sam
from forestbridge.objects.sam import Sam, open_sam
from forestbridge.objects.segmentation import Unit

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
modeling = pytest.importorskip("segment_anything.modeling", reason="needs the extra 'torch'")

Y, X = np.mgrid[:90, :120]
LABELS = (((Y - 40) ** 2 + (X - 30) ** 2 < 300) * 1 + ((Y - 50) ** 2 + (X - 90) ** 2 < 300) * 2).astype(np.uint8)
IMAGE = fb.as_image((LABELS * 90 + 30).astype(np.uint16))


def small_model() -> object:
    """Return Segment Anything with one small layer of each kind."""
    torch.manual_seed(0)
    encoder = modeling.ImageEncoderViT(
        depth=1,
        embed_dim=16,
        img_size=128,
        num_heads=2,
        patch_size=16,
        out_chans=16,
        use_rel_pos=True,
        window_size=0,
    )
    prompts = modeling.PromptEncoder(
        embed_dim=16, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=4
    )
    transformer = modeling.TwoWayTransformer(depth=1, embedding_dim=16, mlp_dim=32, num_heads=2)
    decoder = modeling.MaskDecoder(num_multimask_outputs=3, transformer=transformer, transformer_dim=16)
    return modeling.Sam(encoder, prompts, decoder).eval()


def test_boxes_ask_for_each_region_on_the_image() -> None:
    from segment_anything import SamPredictor

    model = small_model()
    found = Sam(model, IMAGE).refine(LABELS, Unit(0, None), 255)
    predictor = SamPredictor(model)
    picture = np.rint((np.asarray(IMAGE.plane()[0], float) - 30) * (255 / 180)).astype(np.uint8)
    predictor.set_image(np.stack([picture] * 3, axis=-1))
    logits = []
    for k in (1, 2):
        rows, columns = np.nonzero(k == LABELS)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        logits.append(predictor.predict(box=box, multimask_output=False, return_logits=True)[0][0])
    expected = np.where(np.max(logits, axis=0) > 0, np.argmax(logits, axis=0) + 1, 0)
    np.testing.assert_array_equal(found, expected)
    assert (expected > 0).any()


def test_other_classes_and_empty_planes_stay() -> None:
    classes = np.where(LABELS == 2, 255, LABELS).astype(np.uint8)
    found = Sam(small_model(), IMAGE).refine(classes, Unit(0, None), 255)
    np.testing.assert_array_equal(found == 255, classes == 255)
    empty = np.zeros_like(LABELS)
    np.testing.assert_array_equal(Sam(small_model(), IMAGE).refine(empty, Unit(0, None), 255), empty)
    stack = fb.Image(np.stack([np.asarray(IMAGE.plane()[0])] * 2), "ZYX", {})
    planes = Sam(small_model(), stack).refine(np.stack([classes, empty]), Unit(0, None), 255)
    np.testing.assert_array_equal(planes, np.stack([found, empty]))


def test_auto_takes_the_smallest_mask_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {"pred_iou_thresh": -9.0, "stability_score_thresh": -1.0, "crop_n_points_downscale_factor": 4}
    monkeypatch.setattr(sam, "AUTO", {**sam.AUTO, **everything})
    model = Sam(small_model(), IMAGE, "auto", 0.05, points_per_side=4)
    made = sam._generator(model.model, 4).generate(model._picture(Unit(0, None)))
    found = model.refine(LABELS, Unit(0, None), 255)
    assert made
    fitting = [
        m for m in made if (m["segmentation"] & (LABELS == 1)).sum() / (m["segmentation"] | (LABELS == 1)).sum() > 0.05
    ]
    if not fitting:
        assert not (found == 1).any()
    else:
        smallest = min(fitting, key=lambda m: m["area"])["segmentation"]
        assert not (found == 1)[~smallest].any()


def test_auto_without_any_mask_drops_the_regions(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert not Sam(small_model(), IMAGE, "auto", points_per_side=8).refine(LABELS, Unit(0, None), 255).any()
    assert "2 of 2 regions have no mask that fits" in caplog.text


def test_postprocess_with_sam() -> None:
    model = Sam(small_model(), IMAGE)
    found = fb.postprocess(LABELS, smooth=0, min_area=0, sam=model)
    np.testing.assert_array_equal(found, model.refine(LABELS, Unit(0, None), 255))
    with pytest.raises(ImageError, match="expected labels of the size of array"):
        fb.postprocess(LABELS[:50], sam=model)


def test_weights_of_sam2_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = sam._empty_model("sam2_tiny").state_dict()
    torch.save({"model": weights}, tmp_path / "w.pt")
    opened = open_sam(tmp_path / "w.pt", IMAGE, model="sam2_tiny")
    assert all(torch.equal(value, weights[name]) for name, value in opened.model.state_dict().items())
    assert not opened.model.training
    with pytest.raises(
        ResourceError, match=r"expected the weights of sam2_small in .*w\.pt, found a file without them"
    ):
        open_sam(tmp_path / "w.pt", IMAGE, model="sam2_small")


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"no weights at all")
    with pytest.raises(ResourceError, match="found a file without them"):
        open_sam(tmp_path / "w.pt", IMAGE, model="sam2_tiny")
    with pytest.raises(ImageError, match="found nothing there"):
        open_sam(tmp_path / "none.pt", IMAGE)
    with pytest.raises(ImageError, match="expected one channel or three"):
        Sam(None, fb.as_image(np.zeros((2, 9, 9), np.uint8)))
    with pytest.raises(ValueError, match="expected an IoU from 0 to 1"):
        Sam(None, IMAGE, "auto", 2.0)
    tifffile.imwrite(tmp_path / "l.tif", LABELS)
    for message, *arguments in (
        ("with --sam-boxes or --sam-auto", "--sam-weights", tmp_path / "w.pt"),
        ("expected --image and --sam-weights", "--sam-boxes"),
        ("found both", "--sam-boxes", "--sam-auto"),
        (
            "expected the weights of sam2_tiny",
            *("--sam-boxes", "--sam-weights", tmp_path / "w.pt"),
            *("--image", tmp_path / "l.tif"),
            *("--sam-model", "sam2_tiny"),
        ),
    ):
        ended = call("postprocess", tmp_path / "l.tif", "-o", tmp_path / "o.tif", *arguments)
        assert ended.code in (2, 6) and message in ended.err
        assert not (tmp_path / "o.tif").exists()
