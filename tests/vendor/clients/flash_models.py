"""Reads answers with the models of runpod-flash, from stdin: `{"jobs": [...], "health": [...]}`."""

from __future__ import annotations

import json
import sys

from runpod_flash.core.resources.serverless import JobOutput, ServerlessHealth

given = json.load(sys.stdin)
jobs = [JobOutput.model_validate(job, strict=True).status for job in given["jobs"]]
health = [ServerlessHealth.model_validate(one, strict=True).is_ready for one in given["health"]]
print(json.dumps({"jobs": jobs, "health": health}))
