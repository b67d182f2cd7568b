"""The filter bank against ilastik's numbers, an independent oracle, vigra, and itself cut into tiles."""

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

import scipy_filters
from filter_oracle import IDS, allowance, oracle_features
from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders.eigenvalues import eigenvalues_2d, eigenvalues_3d
from forestbridge.encoders.filters import FilterBank, open_filter_bank
from forestbridge.tiles import plan_tiles
from vigra_here import require_vigra, run_vigra

ODD_SCALES = (0.3, 0.5, 0.7, 1.0, 1.6, 2.3, 3.5, 5.0, 7.7, 10.0)


def everything(scales: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(IDS, scales)


def encode_whole(bank: FilterBank, image: NDArray) -> NDArray[np.float32]:
    (features,) = bank.encode(image.astype(np.float32), tuple(slice(0, n) for n in image.shape[1:]))
    return features


def encode_tiled(bank: FilterBank, image: NDArray, core: tuple[int, ...], halo: tuple[int, ...]) -> NDArray[np.float32]:
    shape = image.shape[1:]
    features = np.full((bank.spec.n_features, *shape), np.nan, np.float32)
    for tile in plan_tiles(shape, core, halo):
        inside, tile_core = tile.inside(shape)
        (features[(slice(None), *tile.core)],) = bank.encode(image[(slice(None), *inside)], tile_core)
    return features


def noise(*shape: int, high: int = 256, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.float32)


def cells(height: int = 90, width: int = 100) -> NDArray[np.float32]:
    """(1, y, x): a piece of a micrograph that ends in the middle of things."""
    return data.cell()[None, 240 : 240 + height, 180 : 180 + width].astype(np.float32)


def stack(depth: int = 14) -> NDArray[np.float32]:
    """(2, z, 40, 44): a bright ball in noise, and the same turned round with 16-bit intensities."""
    z, y, x = np.ogrid[:depth, :40, :44]
    ball = 150.0 * ((z - depth / 2) ** 2 + (y - 25) ** 2 + (x - 12) ** 2 < 60)
    first = ball + noise(depth, 40, 44, high=60, seed=1)
    return np.stack([first, np.round(first[:, ::-1] * 311)]).astype(np.float32)


def assert_near(got: NDArray, expected: NDArray, atol: NDArray) -> None:
    assert got.shape == expected.shape
    deviation = np.abs(got - expected).reshape(len(got), -1).max(axis=1)
    worst = (deviation - atol).argmax()
    assert (deviation <= atol).all(), f"feature {worst} deviates by {deviation[worst]:.3g}, allowed {atol[worst]:.3g}"


# ilastik 1.4.2 with fastfilters 0.3-4 (AVX2): all features at (scale, y, x) and (scale, z, y, x).
ILASTIK_2D = {  # (7·y² + 13·x·y + 29·x) mod 256, 48 × 60
    (0.7, 0, 0): [32.4515, 67.4064, 0, 8.40697, 437.06, 111.597, 43.2307, 24.1758],
    (0.7, 20, 33): [113.099, 61.943, 14.5793, 9.15289, 796.316, 108.034, 76.0953, -14.1522],
    (1.6, 0, 0): [67.0565, 33.9855, 0, 9.64573, 307.756, 85.1435, 19.5712, 14.4143],
    (1.6, 20, 33): [124.228, 2.78587, 2.77948, 1.10371, 51.7797, 17.9319, 6.57275, -3.78688],
    (10.0, 0, 0): [127.319, 0.0184744, 0, 0.00502014, 0.000755272, 5.71448e-05, 0.0278814, -0.00940696],
    (10.0, 20, 33): [126.478, -0.0171879, 0.170293, -0.00448608, 0.0288967, 0.000172456, -0.000199223, -0.0169887],
}
ILASTIK_3D = {  # (5·z² + 3·z·y + 7·y² + 13·x·y + 29·x) mod 256, 40 × 40 × 44
    (0.7, 0, 0, 0): [38.4046, 82.1013, 0, 10.2364, 463.973, 127.593, 40.4413, 43.2272, 26.5251, 12.349],
    (0.7, 17, 20, 33): [173.703, -88.9037, 26.4658, -11.999, 1792.91, 194.198, 70.8578, 0.409454, -19.8768, -69.4363],
    (1.6, 0, 0, 0): [81.5011, 40.9231, 0, 11.8338, 259.896, 80.9632, 40.2251, 16.7335, 14.6924, 9.49729],
    (1.6, 17, 20, 33): [143.209, -18.428, 13.5767, -5.87537, 254.559, 50.6522, 35.1443, 1.94306, -7.71624, -12.6549],
    (10.0, 17, 20, 33): [
        *(127.551, -0.0057829, 0.0933162, -0.00156403, 0.00874874, 4.00875e-05, 2.89903e-06),
        *(0.00274308, 0.00158011, -0.0101061),
    ],
}


def assert_at_pixel(got: NDArray, expected: list[float], tensor: slice) -> None:
    """Compare in units of the intensity, and the structure tensor, which can be far smaller, in units of itself."""
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got[tensor], expected[tensor], rtol=2e-3)


@pytest.mark.parametrize("place", ILASTIK_2D)
def test_2d_gives_ilastiks_numbers(place):
    y, x = np.mgrid[:48, :60]
    image = ((7 * y * y + 13 * x * y + 29 * x) % 256)[None]
    scale, *pixel = place
    got = encode_whole(open_filter_bank(selection=everything((scale,))), image)
    assert_at_pixel(got[:, *pixel], ILASTIK_2D[place], slice(4, 6))


@pytest.mark.parametrize("place", ILASTIK_3D)
def test_3d_gives_ilastiks_numbers(place):
    z, y, x = np.mgrid[:40, :40, :44]
    volume = ((5 * z * z + 3 * z * y + 7 * y * y + 13 * x * y + 29 * x) % 256)[None]
    scale, *voxel = place
    got = encode_whole(open_filter_bank(selection=everything((scale,)), compute_in_2d=False), volume)
    assert_at_pixel(got[:, *voxel], ILASTIK_3D[place], slice(4, 7))


def test_2d_equals_the_oracle():
    image = np.concatenate([cells(), noise(1, 90, 100, high=65536)])
    in_2d = dict.fromkeys(ODD_SCALES, True)
    got = encode_whole(open_filter_bank(selection=everything(ODD_SCALES), channels=2), image)
    expected = oracle_features(image, everything(ODD_SCALES), in_2d)
    assert_near(got, expected, allowance(image, everything(ODD_SCALES), in_2d, expected))


@pytest.mark.parametrize("depth", [3, 14])
@pytest.mark.parametrize("flat", [(), (1.0, 5.0, 10.0), (0.3, 0.7, 1.6)], ids=["3D", "mixed", "mixed2"])
def test_3d_and_mixed_equal_the_oracle(depth, flat):
    image, scales = stack(depth), (0.3, 0.7, 1.0, 1.6, 5.0, 10.0)
    in_2d = {scale: scale in flat for scale in scales}
    got = encode_whole(open_filter_bank(selection=everything(scales), channels=2, compute_in_2d=in_2d), image)
    expected = oracle_features(image, everything(scales), in_2d)
    assert_near(got, expected, allowance(image, everything(scales), in_2d, expected))


SHAPES = [(1, 1, 1), (1, 1, 9), (1, 2, 40), (1, 63, 257), (1, 130, 300), (2, 70, 81)]
SHAPES_3D = [(1, 3, 5, 6), (1, 17, 20, 30), (1, 20, 66, 131), (2, 14, 40, 44)]


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", [*SHAPES, *SHAPES_3D], ids=str)
def test_compiled_equals_scipy(shape, offset):
    """The same arithmetic in another order: they differ where a value is rounded to float32, and hardly there."""
    image = noise(*shape, seed=len(shape)) + np.float32(offset)
    selections = [
        everything(fk.DEFAULT_SCALES),
        {IDS[4]: (0.2, 1.6)},
        {IDS[0]: (3.5,), IDS[5]: (3.5,)},
        {IDS[2]: (1.0,)},
    ]
    for selection in selections:
        scales = sorted({s for chosen in selection.values() for s in chosen})
        for flat in (True,) if len(shape) == 3 else (False, {s: s in (1.6, 10.0) for s in scales}):
            bank = open_filter_bank(selection=selection, channels=shape[0], compute_in_2d=flat)
            core = tuple(slice(0, n) for n in shape[1:])
            got, expected = encode_whole(bank, image), scipy_filters.encode(bank, image, core)
            intensity = float(image.max())
            squared = np.array([name.startswith("Structure") for name in bank.spec.feature_names])
            # 3 × 3 eigenvalues come from a quotient whose digits go where two of them meet
            digits = 1e-12 if len(core) == 2 else 1e-7
            allowed = (
                1.2e-7 * np.abs(expected)
                + (digits * np.where(squared, intensity**2, intensity))[:, None, None][
                    (..., *(None,) * (len(core) - 2))
                ]
            )
            assert (np.abs(got - expected) <= allowed).all()


def test_structure_tensor_is_exact_relative_to_itself():
    """The allowance of the structure tensor grows with the squared intensity and would hide a wrong border."""
    chosen = {"StructureTensorEigenvalues": ODD_SCALES}
    got = encode_whole(open_filter_bank(selection=chosen), cells())
    expected = oracle_features(cells(), chosen, dict.fromkeys(ODD_SCALES, True))
    largest = np.abs(expected).reshape(len(got) // 2, -1).max(axis=1)  # of both eigenvalues: one is 0 at scale 0.3
    assert_near(got, expected, 1e-5 * np.repeat(largest, 2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 5, 5), (1, 2, 40), (1, 1, 1, 1), (1, 2, 5, 5)])
def test_images_smaller_than_the_kernels(shape):
    image, in_2d = noise(*shape), dict.fromkeys(ODD_SCALES, len(shape) == 3)
    got = encode_whole(open_filter_bank(selection=everything(ODD_SCALES), compute_in_2d=in_2d), image)
    assert np.isfinite(got).all()
    expected = oracle_features(image, everything(ODD_SCALES), in_2d)
    assert_near(got, expected, allowance(image, everything(ODD_SCALES), in_2d, expected))


def test_large_offset_keeps_the_precision():
    image, in_2d = cells() + 1e4, dict.fromkeys(fk.DEFAULT_SCALES, True)
    got = encode_whole(open_filter_bank(), image)
    expected = oracle_features(image, fk.DEFAULT_SELECTION, in_2d)
    assert_near(got, expected, allowance(image, fk.DEFAULT_SELECTION, in_2d, expected))


@pytest.mark.parametrize("value", [0.0, 7.0, 65535.0, -3.5])
@pytest.mark.parametrize("compute_in_2d", [True, False])
def test_constant_image(value, compute_in_2d):
    shape = (1, 30, 40) if compute_in_2d else (1, 6, 20, 20)
    bank = open_filter_bank(compute_in_2d=compute_in_2d)
    features = encode_whole(bank, np.full(shape, value))
    smoothing = np.array([name.startswith("Gaussian Smoothing") for name in bank.spec.feature_names])
    np.testing.assert_allclose(features[smoothing], value, rtol=1e-6)
    assert np.abs(features[~smoothing]).max() <= 5e-6 * abs(value)


@pytest.mark.parametrize("case", ["2D", "3D", "mixed"])
def test_equals_vigra(tmp_path, case):
    require_vigra()
    scales = tuple(s for s in ODD_SCALES if s >= 0.5 and (case == "2D" or s < 5))
    in_2d = {s: case == "2D" or (case == "mixed" and s > 1.5) for s in scales}
    image = cells() if case == "2D" else stack()
    np.savez(tmp_path / "in.npz", image=image, scales=scales, compute_in_2d=list(in_2d.values()))
    run_vigra("vigra_reference.py", tmp_path / "in.npz", tmp_path / "out.npy")
    expected = np.load(tmp_path / "out.npy")
    got = encode_whole(open_filter_bank(selection=everything(scales), channels=len(image), compute_in_2d=in_2d), image)
    assert_near(got, expected, allowance(image, everything(scales), in_2d, expected))


def assert_same(tiled: NDArray, whole: NDArray) -> None:
    """The promise is 1e-6 of a feature's largest value; measured: not a bit differs."""
    assert_near(tiled, whole, 1e-6 * np.abs(whole).reshape(len(whole), -1).max(axis=1))
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize("core", [(64, 64), (37, 53), (5, 170), (400, 400)])
def test_tiled_equals_whole_2d(core):
    image, bank = noise(1, 150, 170), open_filter_bank()
    assert_same(encode_tiled(bank, image, core, bank.spec.halo), encode_whole(bank, image))


@pytest.mark.parametrize("core", [(8, 40, 44), (7, 16, 23), (1, 40, 30)])
@pytest.mark.parametrize("flat", [(), (1.6,)])
def test_tiled_equals_whole_3d(core, flat):
    scales = (0.3, 0.7, 1.6)
    in_2d = {s: s in flat for s in scales}
    bank = open_filter_bank(selection=everything(scales), channels=2, compute_in_2d=in_2d)
    assert bank.spec.halo == ((4, 7, 7) if flat else (7, 7, 7))
    assert_same(encode_tiled(bank, stack(20), core, bank.spec.halo), encode_whole(bank, stack(20)))


@pytest.mark.parametrize("scale", fk.DEFAULT_SCALES)
def test_halo_one_pixel_smaller_is_too_small(scale):
    image = noise(1, 120, 130)
    bank = open_filter_bank(selection=everything((scale,)))
    whole = encode_whole(bank, image)
    bound = 1e-5 * np.abs(whole).reshape(len(whole), -1).max(axis=1)[:, None, None]
    for axis in (0, 1):
        halo = tuple(h - (n == axis) for n, h in enumerate(bank.spec.halo))
        assert (np.abs(encode_tiled(bank, image, (40, 40), halo) - whole) > bound).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_halo_one_pixel_smaller_is_too_small_3d(axis):
    image = noise(1, 30, 40, 44)
    bank = open_filter_bank(selection=everything((0.7, 1.6)), compute_in_2d=False)
    whole = encode_whole(bank, image)
    bound = 1e-5 * np.abs(whole).reshape(len(whole), -1).max(axis=1)[:, None, None, None]
    halo = tuple(h - (n == axis) for n, h in enumerate(bank.spec.halo))
    assert (np.abs(encode_tiled(bank, image, (10, 16, 20), halo) - whole) > bound).any()


def test_one_bad_pixel_reaches_as_far_as_the_halo():
    image = cells(180, 180)
    image[0, 100, 100] = np.nan
    blank = np.isnan(encode_whole(open_filter_bank(), image)).any(axis=0)
    expected = np.zeros_like(blank)
    expected[62:139, 62:139] = True  # 100 ± 38
    np.testing.assert_array_equal(blank, expected)


RADII = [  # scale, radius of the presmoothing, of a filter, total halo
    (0.3, 1, 1, 2),
    (0.7, 2, 1, 4),
    (1.0, 4, 2, 7),
    (1.6, 4, 2, 7),
    (3.5, 12, 2, 15),
    (5.0, 17, 2, 20),
    (10.0, 35, 2, 38),
]


@pytest.mark.parametrize(("scale", "presmoothing", "smoothing", "total"), RADII)
def test_radii_and_halos(scale, presmoothing, smoothing, total):
    assert fk.radius(fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW) == presmoothing
    assert fk.filter_radius("GaussianSmoothing", scale) == smoothing
    assert open_filter_bank(selection=everything((scale,))).spec.halo == (total, total)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0, 2.1])
def test_kernels_answer_to_polynomials(sigma):
    x = np.arange(-fk.radius(sigma, 3.5), fk.radius(sigma, 3.5) + 1.0)
    answers = [[(fk.kernel(order, sigma, 3.5) * p).sum() for p in (1 + 0 * x, x, x * x / 2)] for order in range(3)]
    np.testing.assert_allclose(np.array(answers)[:2, :2], [[1, 0], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(answers[2], [0, 0, 1], atol=1e-5 / sigma**2)
    with pytest.raises(ValueError, match="expected order 0, 1 or 2, found 3"):
        fk.kernel(3, sigma, 3.5)


def random_symmetric(n: int) -> NDArray:
    """(1000, n, n) in float32 precision, half of them with two eigenvalues nearly or exactly equal."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(1000, n))
    values[:500, 1] = values[:500, 0] * (1 + rng.choice([0, 1e-7, 1e-4], 500))
    rotation = np.linalg.qr(rng.normal(size=(1000, n, n))).Q
    matrices = (rotation * values[:, None, :]) @ rotation.transpose(0, 2, 1)
    matrices[::50] = np.diag(np.arange(n))  # equidistant, axis-parallel
    matrices[1::50] = 0
    matrices *= 10.0 ** rng.integers(-12, 12, (1000, 1, 1))
    return np.tril(matrices).astype(np.float32) + np.tril(matrices, -1).astype(np.float32).transpose(0, 2, 1)


@pytest.mark.parametrize("n", [2, 3])
def test_eigenvalues(n):
    m = random_symmetric(n).astype(np.float64)
    expected = np.linalg.eigvalsh(m)[:, ::-1].T  # (n, 1000), largest first
    if n == 2:
        got = np.array([eigenvalues_2d(a[0, 0], a[1, 1], a[0, 1]) for a in m]).T
    else:
        got = np.array([eigenvalues_3d(a[0, 0], a[1, 1], a[2, 2], a[0, 1], a[0, 2], a[1, 2]) for a in m]).T
    assert got.dtype == np.float64
    assert (np.diff(got, axis=0) <= 0).all()
    assert (np.abs(got - expected) <= 3e-7 * np.abs(m).max(axis=(1, 2))).all()


def test_same_image_same_bytes():
    image, bank = cells(), open_filter_bank()
    before = image.copy()
    first = encode_whole(bank, image)
    assert first.dtype == np.float32 and first.flags.c_contiguous
    (turned,) = bank.encode(np.asfortranarray(image), (slice(0, 90), slice(0, 100)))
    assert first.tobytes() == encode_whole(open_filter_bank(), image).tobytes() == turned.tobytes()
    np.testing.assert_array_equal(image, before)


def test_order_is_feature_scale_channel_eigenvalue():
    image = np.concatenate([cells(), noise(1, 90, 100)])
    chosen = {"StructureTensorEigenvalues": (1.6, 0.7), "GaussianSmoothing": (5.0, 1.0)}  # not in ilastik's order
    got = encode_whole(open_filter_bank(selection=chosen, channels=2), image)
    one_by_one = [
        encode_whole(open_filter_bank(selection={feature: (scale,)}), channel[None])
        for feature, scale in [(IDS[0], 1.0), (IDS[0], 5.0), (IDS[4], 0.7), (IDS[4], 1.6)]
        for channel in image
    ]
    np.testing.assert_array_equal(got, np.concatenate(one_by_one))
    assert (got[4::2] >= got[5::2]).all()
