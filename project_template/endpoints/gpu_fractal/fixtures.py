"""What a worker builds once, before it takes work, and hands to the handler by the parameter's name."""

from __future__ import annotations

from lib.fractal import Fractal, find_device


def model() -> Fractal:
    fractal = Fractal(find_device())
    print(f"fractal: computes on {fractal.device}")
    return fractal
