"""Triton's kernels without a GPU: interpreted on the CPU against torch, or compiled for GPUs to look at their code.

    python tests/triton_kernels.py FUNCTION

`torch_routes.run_kernels` starts it.
"""

import re
import sys

import numpy as np
import torch

from forestbridge.encoders import torch_filters, triton_correlate
from forestbridge.encoders.filters import open_filter_bank
from forestbridge.engine import predict, torch_forest, triton_forest
from forestbridge.engine.torch_forest import TorchForest
from random_forests import random_forest

GPUS = (75, 80, 90, 100)
"""Compute capabilities: Turing to Blackwell."""


def interpret_forest() -> None:
    """Compare with the compiled engine; the interpreter takes as long for a large block as for a small one."""
    torch_forest.triton_runs_on = lambda device: True
    planes = np.round(np.random.default_rng(0).normal(size=(7, 17, 23)) * 3).astype(np.float32)
    planes[3] = 7.0
    planes[4] *= np.float32(1e-41)  # below the normal numbers
    kinds = [(12, 6, 12, False), (20, 4, 2, True)]
    single = [(1, 0, 2, True), (1, 5, 2, False), (3, 1, 3, True), (3, 35, 4, False), (2, 3, 40, False), (3, 3, 1, True)]
    for block, cases in ((64, kinds), (1024, kinds + single)):
        triton_forest.BLOCK = block
        for n_trees, depth, n_classes, pure in cases:
            forest = random_forest(planes, seed=n_trees, n_trees=n_trees, depth=depth, n_classes=n_classes, pure=pure)
            found = TorchForest(forest)(torch.from_numpy(planes)).numpy()
            np.testing.assert_array_equal(found, predict(forest, planes))
            print(f"{n_trees} trees of depth {depth}, {n_classes} classes: equal")


def interpret_filters() -> None:
    """Compare with sums of shifted arrays."""
    triton_correlate.BLOCK = 8192
    for shape, compute_in_2d in (((2, 30, 41), True), ((1, 9, 20, 17), False), ((1, 1, 9), True)):
        image = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, shape).astype(np.float32))
        bank = open_filter_bank(channels=shape[0], compute_in_2d=compute_in_2d)
        core = tuple(slice(0, n) for n in shape[1:])
        found = []
        for uses_triton in (False, True):
            torch_filters.triton_runs_on = lambda device, answer=uses_triton: answer
            found.append(torch_filters.encode(bank, image, core).double())
        deviation = (found[1] - found[0]).abs()
        print(f"{int((deviation > 0).sum())} of {deviation.numel()} differ, at most {float(deviation.max()):.2g}")
        squared = torch.tensor([name.startswith("Structure") for name in bank.spec.feature_names])
        unit = torch.where(squared, 65536.0**2, 65536.0).reshape(-1, *(1,) * len(core))
        assert bool((deviation <= 1.2e-7 * found[0].abs() + 1e-12 * unit).all())


def compiled() -> None:
    """Print for each GPU which floats the kernels compute: instructions of the forest's, then of the correlation's."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tables = {
        "threshold": "*fp32",
        "feature": "*i32",
        "child": "*i32",
        "row": "*i32",
        "roots": "*i32",
        "n_trees": "i32",
    }
    walk = {"values": "*fp32", "n_pixels": "i32", **tables, "votes": "*i32", "n_classes": "i32", "sums": "*i32"}
    correlate = {
        "source": "*fp64",
        "taps": "*fp64",
        "n_taps": "i32",
        "step": "i32",
        "size_in": "i32",
        "size_out": "i32",
    }
    walks = [
        (triton_forest._walk, walk, {"COUNTED": counted, "SIZE": triton_forest.BLOCK}, {"num_warps": 1}, False)
        for counted in (1, 2, triton_forest.CLASSES)
    ]
    lines = {**correlate, "n": "i32", "target": "*fp64"}
    kernels = [*walks, (triton_correlate._correlate, lines, {"SIZE": triton_correlate.BLOCK}, {}, True)]
    for capability in GPUS:
        for kernel, arguments, constants, options, fused in kernels:
            source = ASTSource(
                fn=kernel, signature={**arguments, **dict.fromkeys(constants, "constexpr")}, constexprs=constants
            )
            options = {**options, "enable_fp_fusion": fused}
            code = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]
            found = sorted(set(re.findall(r"\b(\w+)\.(?:[\w.]*\.)?f(?:16|32|64)\b", code)))
            print(capability, kernel.__name__, *found, "ftz" if ".ftz" in code else "")


if __name__ == "__main__":
    functions = {"interpret_forest": interpret_forest, "interpret_filters": interpret_filters, "compiled": compiled}
    functions[sys.argv[1]]()
