from __future__ import annotations

from flashfw import Job

from endpoints.gpu_fractal.handler import handler
from lib.fractal import Fractal, find_device


def test_draws_on_the_device_that_is_there() -> None:
    job = Job()

    picture = handler(job, width=32, height=8, steps=20, model=Fractal(find_device()))

    assert picture.device in ("cpu", "cuda")
    assert [len(row) for row in picture.rows] == [32] * 8
    assert "@" in "".join(picture.rows)
    assert job.latest == 1.0
