"""A job that wants a GPU and also runs without one: draws the Mandelbrot set, says where it was computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from flashfw import Job, injected

from lib.fractal import Fractal

Size = Annotated[int, Field(ge=1, le=1000)]


@dataclass
class Picture:
    device: str
    rows: list[str]


def handler(job: Job, width: Size = 64, height: Size = 20, steps: Size = 60, model: Fractal = injected) -> Picture:
    rows = []
    for row in range(height):
        rows.append(model.draw_row(row, width=width, height=height, steps=steps))
        job.progress((row + 1) / height)
    return Picture(device=model.device, rows=rows)
