"""What a machine attains: large matrix products, large copies, on the CPU or on the accelerator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.harness import Call, take_turns

Rates = Mapping[str, float]


def product_rates(before: Rates | None = None) -> dict[str, float]:
    """Operations per second of a large matrix product by type, the best of several libraries.

    The better of now and `before`: on a busy machine both may be low, never too high.
    """
    import torch
    from scipy.linalg import get_blas_funcs

    side, rates = 1536, {}
    for dtype in ("float32", "float64"):
        a = np.random.default_rng(0).random((side, side)).astype(dtype)
        (gemm,) = get_blas_funcs(("gemm",), dtype=a.dtype)
        tensor = torch.from_numpy(a)
        calls: dict[str, Call] = {
            "numpy": lambda a=a: a @ a,
            "scipy": lambda a=a, gemm=gemm: gemm(1.0, a.T, a.T),
            "torch": lambda t=tensor: torch.mm(t, t),
        }
        best = min(min(values) for values in take_turns(calls, 4).seconds.values())
        rates[dtype] = max(2 * side**3 / best, before[dtype] if before else 0.0)
    return rates


def copy_rate() -> float:
    """Bytes per second, read and written, of a copy of 200 MB: the best of several."""
    source = np.ones(50_000_000, np.float32)
    target = np.empty_like(source)
    seconds = take_turns({"copy": lambda: np.copyto(target, source)}, 6).seconds["copy"]
    return 2 * source.nbytes / min(seconds)


def limit_seconds(work: Rates, rates: Rates) -> float:
    """Seconds that operations of each type need at the rate of that type."""
    return sum(work[name] / rates[name] for name in work)


def card_rates() -> dict[str, float]:
    """The same on the CUDA card: operations per second by type, and ``copy`` in bytes per second.

    ``tf32`` is float32 with factors rounded to ten bits.
    """
    import torch

    rates, before = {}, torch.backends.cuda.matmul.allow_tf32
    for name in ("float64", "float32", "tf32", "bfloat16"):
        side = 4096 if name in ("float64", "float32") else 8192
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        dtype = getattr(torch, "float32" if name == "tf32" else name)
        a, b = (torch.randn(side, side, device="cuda").to(dtype) for _ in range(2))
        rates[name] = 2 * side**3 / card_seconds(lambda a=a, b=b: torch.mm(a, b))
    torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    rates["copy"] = 2 * 4 * 2**28 / card_seconds(lambda: target.copy_(source))
    return rates


def card_seconds(call: Call, repeats: int = 10) -> float:
    """Median seconds of a call on the card, by its own clock, after three for warmth."""
    import torch

    seconds = []
    for _ in range(3 + repeats):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        seconds.append(first.elapsed_time(last) / 1e3)
    return float(np.median(seconds[3:]))
