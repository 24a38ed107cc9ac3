"""Mosec with one worker process, which takes up to `ECHO_BATCH` calls at once. The options are Mosec's own."""

from __future__ import annotations

import os
from typing import Any

from mosec import Server, Worker

BATCH = int(os.environ.get("ECHO_BATCH", "1"))


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data  # one object, or where batches are on a list of them


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=1, max_batch_size=BATCH)
    server.run()
