import time
from pathlib import Path

import flashfw


def handler(file: str, job: flashfw.Job) -> str:
    """Wait until a file is there."""
    while not Path(file).exists():
        job.progress(f"no {Path(file).name} yet")
        time.sleep(0.02)
    return "open"
