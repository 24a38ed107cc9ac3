"""What the OpenAPI document says of every job alike: the `/v2` operations, answers, headers and errors."""

from __future__ import annotations

from typing import Any

Json = Any

JOB_API = "Job API"

PROBLEMS = {
    "409": "The job was cancelled, or its idempotency key came before with another input.",
    "413": "The body is larger than the endpoint takes.",
    "415": "The body is not JSON by its content type, or compressed.",
    "422": "The input does not fit the function, or an option is out of range; `errors` names the fields.",
    "429": "The queue is full; `Retry-After` says when to come back.",
    "500": "The handler raised, or its result cannot be JSON.",
    "502": "The worker was lost.",
    "503": "No worker could be started.",
    "504": "The job ran out of time, or waited past its time to live.",
}
"""Status of a plain POST to what it means, for every job."""

JOB_HEADERS: list[tuple[str, str, Json]] = [
    ("Prefer", "`wait=N`: answer 202 after N seconds (90); `respond-async`: at once.", {}),
    (
        "Idempotency-Key",
        "The same job for the same key: it is done once, however often it is sent.",
        {"maxLength": 255},
    ),
    ("Flashfw-Timeout", "Time for one attempt: `30s`, `10m`, or seconds; 5 s to 7 d.", {}),
    ("Flashfw-Ttl", "How long it may wait: `30s`, `10m`, or seconds; 10 s to 7 d.", {}),
    (
        "Flashfw-Priority",
        "Which job goes first; one of low priority starts no worker.",
        {"enum": ["low", "normal", "high"]},
    ),
    ("Flashfw-Webhook", "Where the end of the job is told.", {"format": "uri"}),
]
"""What a plain POST of a job may say in its headers: name, meaning, schema."""

_STATES = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
_TEXT: Json = {"type": "string"}
_COUNTS: Json = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(properties: dict[str, Json], *required: str) -> Json:
    made: dict[str, Json] = {"type": "object", "properties": properties}
    return {**made, "required": list(required)} if required else made


def _milliseconds(least: int, text: str) -> Json:
    return {"type": "integer", "minimum": least, "maximum": 7 * 86_400_000, "description": f"Milliseconds. {text}"}


PLATFORM_SCHEMAS: dict[str, Json] = {
    "flashfw.Problem": _object(
        {
            "id": {**_TEXT, "description": "The job, where there is one."},
            "error": _object(
                {
                    "reason": _TEXT,
                    "message": _TEXT,
                    "type": _TEXT,
                    "traceback": _TEXT,
                    "errors": {"type": "array", "items": {"type": "object"}},
                },
                "message",
            ),
        },
        "error",
    ),
    "flashfw.Accepted": _object({"id": _TEXT, "status": {"enum": _STATES}}, "id", "status"),
    "flashfw.JobRequest": _object(
        {
            "input": {"description": "What the function takes."},
            "webhook": {**_TEXT, "format": "uri", "description": "Where the end of the job is told."},
            "policy": _object(
                {
                    "executionTimeout": _milliseconds(5_000, "Of one attempt."),
                    "ttl": _milliseconds(10_000, "How long it may wait."),
                    "lowPriority": {"type": "boolean", "description": "Starts no worker by itself."},
                }
            ),
        },
        "input",
    ),
    "flashfw.JobStatus": _object(
        {
            "id": _TEXT,
            "status": {"enum": _STATES},
            "delayTime": {"type": "integer", "description": "Milliseconds in the queue."},
            "executionTime": {"type": "integer", "description": "Milliseconds on a worker."},
            "workerId": _TEXT,
            "output": {"description": "The output, or the latest progress while it runs."},
            "error": {**_TEXT, "description": "A JSON document: `error_type`, `error_message`, `error_traceback`."},
            "reason": {**_TEXT, "description": "Why it did not complete."},
            "retries": {"type": "integer", "description": "Attempts before the one that counts."},
        },
        "id",
        "status",
    ),
    "flashfw.Stream": _object(
        {
            "id": _TEXT,
            "error": _TEXT,
            "status": {"enum": _STATES},
            "stream": {"type": "array", "items": _object({"output": {}}, "output")},
        },
        "status",
        "stream",
    ),
    "flashfw.Purged": _object({"removed": {"type": "integer"}, "status": _TEXT}, "removed", "status"),
    "flashfw.Health": _object({"jobs": _COUNTS, "workers": _COUNTS}, "jobs", "workers"),
}


def platform_components() -> dict[str, Json]:
    """Parameters, answers and the security scheme that operations refer to."""
    accepted = {
        "description": "The job goes on; look at `Location`.",
        "headers": {"Location": {"schema": _TEXT, "description": "Where its status is."}},
        "content": {"application/json": {"schema": _ref("Accepted")}},
    }
    problems = {f"Problem{status}": _answer(text, "Problem") for status, text in PROBLEMS.items()}
    return {
        "parameters": {name.replace("-", ""): _header(name, text, **schema) for name, text, schema in JOB_HEADERS},
        "responses": {"Accepted": accepted, **problems},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }


def job_operations(jobs: list[str]) -> dict[str, Json]:
    """The paths of operations that exist for every job function, each written once."""
    function = _parameter("function", {**_TEXT, "enum": jobs}, "The id of a job function; its slashes stay.")
    job = _parameter("job", _TEXT, "The id of a job of this function.")
    body = {"required": True, "content": {"application/json": {"schema": _ref("JobRequest")}}}
    status = _answer("The job.", "JobStatus")
    health = _answer("Jobs of the function, workers of its endpoint.", "Health")
    purged = _answer("How many jobs were dropped.", "Purged")
    stream = _answer("Chunks that no earlier call has taken.", "Stream")
    events = {
        "description": "Server-sent events: queued, started, progress, chunk, restart and how it ended.",
        "content": {"text/event-stream": {"schema": _TEXT}},
    }
    file = {"description": "The file.", "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    both = [function, job]
    wait, once = _query("wait", 300_000), {"$ref": "#/components/parameters/IdempotencyKey"}
    refusals = {status: _problem(status) for status in ("409", "413", "415", "429", "503")}
    refusals["400"] = _answer("The body is no request, or an option is out of range.", "Problem")
    submit = {"parameters": [function, once], "requestBody": body, "refusals": refusals}
    waiting = {**submit, "parameters": [function, once, wait]}
    ended = {"409": _answer("Only failed and timed out jobs are retried.", "Problem")}
    return {
        "/v2/{function}/run": {"post": _operation("run", "Submit a job", status, **submit)},
        "/v2/{function}/runsync": {"post": _operation("runsync", "Submit a job and wait", status, **waiting)},
        "/v2/{function}/status/{job}": {"get": _operation("status", "Look at a job", status, parameters=both)},
        "/v2/{function}/status-sync/{job}": {
            "get": _operation("statusSync", "Wait for a job's end", status, parameters=[*both, wait])
        },
        "/v2/{function}/stream/{job}": {
            "get": _operation("stream", "Take new chunks", stream, parameters=[*both, wait])
        },
        "/v2/{function}/cancel/{job}": {"post": _operation("cancel", "Cancel a job", status, parameters=both)},
        "/v2/{function}/retry/{job}": {
            "post": _operation("retry", "Run it again", status, parameters=both, refusals=ended)
        },
        "/v2/{function}/purge-queue": {"post": _operation("purge", "Drop what waits", purged, parameters=[function])},
        "/v2/{function}/health": {"get": _operation("health", "Jobs and workers", health, parameters=[function])},
        "/_flashfw/jobs/{job}/files/{file}": {
            "get": _operation("file", "A file of a job", file, parameters=[job, _parameter("file", _TEXT, "Its name.")])
        },
        "/_flashfw/jobs/{job}/events": {"get": _operation("events", "A job's story", events, parameters=[job])},
    }


def _operation(name: str, summary: str, answer: Json, refusals: Json = None, **more: Json) -> dict[str, Json]:
    unknown = {"description": "There is no such function, or no such job of it."}
    return {
        "operationId": f"v2.{name}",
        "tags": [JOB_API],
        "summary": summary,
        **more,
        "responses": {"200": answer, "404": unknown, **(refusals or {})},
    }


def _parameter(name: str, schema: Json, text: str) -> dict[str, Json]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def _header(name: str, text: str, **schema: Json) -> dict[str, Json]:
    return {"name": name, "in": "header", "required": False, "schema": {**_TEXT, **schema}, "description": text}


def _query(name: str, most: int) -> dict[str, Json]:
    schema = {"type": "integer", "minimum": 1_000, "maximum": most}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": "Milliseconds."}


def _problem(status: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/Problem{status}"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/flashfw.{name}"}


def _answer(text: str, name: str) -> dict[str, Json]:
    return {"description": text, "content": {"application/json": {"schema": _ref(name)}}}
