"""Stride, centre and halo of networks that are known, measured on their packages."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import torch
from torch import nn

import forestbridge as fb
from foreign_encoders import Maps, foreign_package
from forestbridge.encoders.networks import Layer, reach, sampling
from forestbridge.encoders.package import PackageEncoder
from forestbridge.encoders.package_geometry import plan_halo

Chain = tuple[Layer, ...]

CHAINS: dict[str, tuple[Chain, ...]] = {
    "odd kernels": ((Layer(3, 1, 1),), (Layer(3, 2, 1),), (Layer(5, 2, 2),)),
    "even kernels": ((Layer(2, 2, 0),), (Layer(2, 2, 0),)),
    "even with padding": ((Layer(4, 2, 1),), (Layer(3, 1, 1), Layer(4, 2, 1))),
    "patches": ((Layer(16, 16, 0),),),
    "thirds": ((Layer(3, 3, 0),), (Layer(3, 1, 1),)),
    "fewer pixels than the stride": ((Layer(1, 2, 0),),),
    "wide": ((Layer(17, 1, 8), Layer(17, 1, 8)),),
}


def network_of(chains: tuple[Chain, ...]) -> Maps:
    """Return convolutions of these kernels, strides and paddings, with a step between them that is not linear."""
    width, layers = 1, []
    for chain in chains:
        layers.append([])
        for k in chain:
            layers[-1] += [nn.Conv2d(width, 6, k.kernel, k.stride, k.padding), nn.LeakyReLU(0.3)]
            width = 6
    return Maps(*layers)


def encoder_of(path: Path, **options: object) -> PackageEncoder:
    encoder = fb.open_encoder(path, **options)
    assert isinstance(encoder, PackageEncoder)
    return encoder


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [None, 192], ids=["any size", "one size"])
def test_geometry_is_that_of_the_layers(tmp_path: Path, name: str, size: int | None) -> None:
    chains = CHAINS[name]
    step = 48 if name == "thirds" else 16
    package = foreign_package(tmp_path / "a.zip", network_of(chains), size=size, least=step, step=step)
    spec = encoder_of(package).spec
    whole = [sum(chains[: n + 1], ()) for n in range(len(chains))]
    assert [(m.stride, m.offset) for m in spec.maps] == [sampling(chain) for chain in whole]
    coarsest = max(int(sampling(chain)[0]) for chain in whole)
    # between a core's last cell and the halo's first lie pixels: both must see all that they would see elsewhere
    wanted = max(reach(c) + (0 if sampling(c) == (1, 0) else int(sampling(c)[0])) for c in whole)
    halo = -(-wanted // coarsest) * coarsest
    assert spec.halo == (halo, halo)
    assert spec.tile is not None
    assert spec.tile[0] + 2 * halo == (size or (480 if name == "thirds" else 512))


def test_measured_twice_is_the_same(tmp_path: Path) -> None:
    package = foreign_package(tmp_path / "a.zip", network_of(CHAINS["odd kernels"]))
    assert encoder_of(package).spec.fingerprint() == encoder_of(package).spec.fingerprint()


def test_pooled_and_enlarged_again(tmp_path: Path) -> None:
    """Cells of such a network see different neighbourhoods in turn; their centres are right on average."""
    layers = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.AvgPool2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Upsample(scale_factor=4),
    ]
    spec = encoder_of(foreign_package(tmp_path / "a.zip", Maps(layers))).spec
    assert [(m.stride, m.offset) for m in spec.maps] == [(1, 0)]
    assert spec.halo == (8, 8)  # the last of 4 pixels that are pooled sees 3 + 4 + 1 to the left


class UNet(nn.Module):
    """Down twice and up again, by a transposed convolution and by interpolation: what cells see fades outwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b, self.c = self._block(1, 8), self._block(8, 16), self._block(16, 32)
        self.up, self.d, self.e = nn.ConvTranspose2d(32, 16, 2, 2), self._block(32, 16), self._block(24, 8)
        self.pool, self.enlarge = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.eval()

    def _block(self, before: int, after: int) -> nn.Module:
        layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(after, after, 3, padding=1), nn.SiLU())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return maps of strides 1, 2 and 4."""
        a = self.a(x)
        b = self.b(self.pool(a))
        c = self.c(self.pool(b))
        d = self.d(torch.cat([self.up(c), b], 1))
        return self.e(torch.cat([self.enlarge(d), a], 1)), d, c


class FaintlyWhole(UNet):
    """All cells see a trace of the whole tile."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return maps of strides 1, 2 and 4."""
        return tuple(m + 3e-5 * x.mean() for m in super().forward(x))


@pytest.mark.parametrize("kind", [UNet, FaintlyWhole])
def test_deep_networks_are_centred(tmp_path: Path, kind: type[UNet]) -> None:
    spec = encoder_of(foreign_package(tmp_path / "a.zip", kind())).spec
    assert [(m.stride, m.offset) for m in spec.maps] == [(1, 0), (2, 0.5), (4, 1.5)]
    assert 20 <= spec.halo[0] <= 28


class WholeTile(nn.Module):
    """Patches of 8 pixels, to which the mean of all patches is added."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 5, 8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return one (N, 5, y, x) map."""
        patches = self.patch(x)
        return (patches + patches.mean(dim=(2, 3), keepdim=True),)


def test_cells_that_see_all_get_an_eighth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = encoder_of(foreign_package(tmp_path / "a.zip", WholeTile())).spec
    assert (spec.tile, spec.halo) == ((384, 384), (64, 64))
    assert [(m.stride, m.offset) for m in spec.maps] == [(8, 3.5)]
    assert "cells see further than the halo of (64, 64) pixels" in caplog.text


def test_tiles_are_one_whole_picture_inside(tmp_path: Path) -> None:
    """The store of a picture of several tiles holds what the network says of the whole picture, away from its border."""
    network = network_of(CHAINS["odd kernels"])
    encoder = encoder_of(foreign_package(tmp_path / "a.zip", network), tile=96)
    assert encoder.spec.tile is not None and encoder.spec.tile[0] < 96
    picture = np.random.default_rng(3).normal(size=(256, 304)).astype(np.float32)
    store = fb.extract(picture, encoder, tmp_path / "a.features.ome.zarr")
    with torch.no_grad():
        maps = network(torch.from_numpy(picture)[None, None])
    found = fb.features(picture, encoder)
    points = np.array([(0, 0, 64, 64), (0, 0, 128, 200), (0, 0, 88, 92), (0, 0, 160, 240)])
    for m, values, at in zip(encoder.spec.maps, maps, np.split(store.at(points), [6, 12], axis=1), strict=True):
        expected = values[0].numpy()  # (6, y, x)
        assert m.offset == 0
        cells = (points[:, 2:] // m.stride).astype(int)
        np.testing.assert_allclose(at, expected[:, cells[:, 0], cells[:, 1]].T, atol=2e-6)
        s, inner = int(m.stride), slice(16, -16)
        first = 6 * encoder.spec.maps.index(m)
        np.testing.assert_allclose(
            found[first : first + 6, ::s, ::s][:, inner, inner], expected[:, inner, inner], atol=2e-6
        )


@pytest.mark.parametrize(
    ("sides", "step", "reach", "halo"),
    [
        ((512, 512), 8, 60, 64),
        ((512, 256), 16, 100, 112),
        ((512, 256), 16, None, 64),
        ((64, 64), 32, 5, 0),
        ((96, 96), 1, 0, 0),
    ],
)
def test_halo(sides: tuple[int, int], step: int, reach: int | None, halo: int) -> None:
    found = plan_halo(sides, step, reach)
    assert found[0] == halo
    assert all(side - 2 * h >= side // 2 and h % step == 0 for side, h in zip(sides, found, strict=True))
