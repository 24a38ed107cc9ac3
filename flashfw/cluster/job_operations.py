"""What the OpenAPI document says of every job alike: the `/v2` operations, answers, headers and errors."""

from __future__ import annotations

from typing import Any

Json = Any

JOB_API = "Job API"

PROBLEMS = {
    "409": "The job was cancelled.",
    "413": "The body is larger than the endpoint takes.",
    "415": "The body is not JSON by its content type.",
    "422": "The input does not fit the function; `errors` names the fields.",
    "429": "The queue is full; `Retry-After` says when to come back.",
    "500": "The handler raised, or its result cannot be JSON.",
    "502": "The worker was lost.",
    "503": "No worker could be started.",
    "504": "The job ran out of time, or waited past its time to live.",
}
"""Status of a plain POST to what it means, for every job."""

_STATES = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
_TEXT: Json = {"type": "string"}
_COUNTS: Json = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(properties: dict[str, Json], *required: str) -> Json:
    made: dict[str, Json] = {"type": "object", "properties": properties}
    return {**made, "required": list(required)} if required else made


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
            "policy": _object(
                {
                    "executionTimeout": {"type": "integer", "description": "Milliseconds of one attempt."},
                    "ttl": {"type": "integer", "description": "Milliseconds that it may wait."},
                    "lowPriority": {"type": "boolean"},
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
            "error": _TEXT,
        },
        "id",
        "status",
    ),
    "flashfw.Stream": _object(
        {
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
        "parameters": {
            "Prefer": _header("Prefer", "`wait=N`: answer 202 after N seconds (90); `respond-async`: at once."),
        },
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
    both = [function, job]
    submit = {"parameters": [function], "requestBody": body}
    return {
        "/v2/{function}/run": {"post": _operation("run", "Submit a job", status, **submit)},
        "/v2/{function}/runsync": {"post": _operation("runsync", "Submit a job and wait", status, **submit)},
        "/v2/{function}/status/{job}": {"get": _operation("status", "Look at a job", status, parameters=both)},
        "/v2/{function}/stream/{job}": {"get": _operation("stream", "Take new chunks", stream, parameters=both)},
        "/v2/{function}/cancel/{job}": {"post": _operation("cancel", "Cancel a job", status, parameters=both)},
        "/v2/{function}/retry/{job}": {"post": _operation("retry", "Run it again", status, parameters=both)},
        "/v2/{function}/purge-queue": {"post": _operation("purge", "Drop what waits", purged, parameters=[function])},
        "/v2/{function}/health": {"get": _operation("health", "Jobs and workers", health, parameters=[function])},
        "/_flashfw/jobs/{job}/events": {"get": _operation("events", "A job's story", events, parameters=[job])},
    }


def _operation(name: str, summary: str, answer: Json, **more: Json) -> dict[str, Json]:
    unknown = {"description": "There is no such function, or no such job of it."}
    return {
        "operationId": f"v2.{name}",
        "tags": [JOB_API],
        "summary": summary,
        **more,
        "responses": {"200": answer, "404": unknown},
    }


def _parameter(name: str, schema: Json, text: str) -> dict[str, Json]:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def _header(name: str, text: str) -> dict[str, Json]:
    return {"name": name, "in": "header", "required": False, "schema": _TEXT, "description": text}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/flashfw.{name}"}


def _answer(text: str, name: str) -> dict[str, Json]:
    return {"description": text, "content": {"application/json": {"schema": _ref(name)}}}
