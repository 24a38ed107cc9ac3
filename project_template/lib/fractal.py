"""The Mandelbrot set, on a GPU through torch where both are there, else in plain Python."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

SHADES = " .:-=+*#%@"


def find_device() -> str:
    """`cuda` with torch and a GPU that it can use, else `cpu`."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Fractal:
    """Draws the set row by row; `device` is where it computes."""

    device: str

    def draw_row(self, row: int, *, width: int, height: int, steps: int) -> str:
        points = [complex(-2.2 + 3.2 * x / width, -1.2 + 2.4 * row / height) for x in range(width)]
        counts = _escape_python(points, steps) if self.device == "cpu" else _escape_torch(points, steps, self.device)
        return "".join(SHADES[count * (len(SHADES) - 1) // steps] for count in counts)


def _escape_python(points: list[complex], steps: int) -> list[int]:
    return [_escape(point, steps) for point in points]


def _escape(point: complex, steps: int) -> int:
    z = 0j
    for step in range(steps):
        if abs(z) > 2:
            return step
        z = z * z + point
    return steps


def _escape_torch(points: list[complex], steps: int, device: str) -> list[int]:
    torch: Any = importlib.import_module("torch")
    c = torch.tensor(points, dtype=torch.complex128, device=device)
    z = torch.zeros_like(c)
    counts = torch.zeros(len(points), dtype=torch.int64, device=device)
    inside = torch.ones(len(points), dtype=torch.bool, device=device)
    for _ in range(steps):
        inside &= z.abs() <= 2
        counts += inside
        z = torch.where(inside, z * z + c, z)
    result: list[int] = counts.tolist()
    return result
