"""The lines of `flashfw dev`: each event of the cluster as text for a terminal, or nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from flashfw.build.words import some
from flashfw.cli import output
from flashfw.cluster.events import Event
from flashfw.cluster.explaining.moments import duration
from flashfw.cluster.workers.gpus import Gpus
from flashfw.manifest import Endpoint, Manifest

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_RESET = "\x1b[0m"
_TOLD_BY_STATE = {"TIMED_OUT": "timeout", "CANCELLED": "cancelled"}


class Lines:
    """Turns events into lines.

    Remembers which start-up failure it has shown, to show each once, which workers ended by one, and which live.
    """

    def __init__(self) -> None:
        self._failed: dict[str | None, str] = {}
        self._stillborn: set[str] = set()
        self._living: dict[str, str | None] = {}
        self._has_problems = False
        self._store_error: str | None = None
        self._is_stopping = False
        self._renderers: dict[str, Callable[[Event], Iterator[str]]] = {
            "serving": _serving,
            "problems": self._problems,
            "request": _request,
            "job": self._job,
            "job_requeued": _requeued,
            "job_retry": _retry,
            "function_missing": _function_missing,
            "function_gone": _function_gone,
            "output": _output,
            "worker": self._worker,
            "start_failed": self._start_failed,
            "scale": _scale,
            "environment": _environment,
            "rollout": _rollout,
            "removed": _removed,
            "described": self._described,
            "reloaded": self._reloaded,
            "renewed": self._renewed,
            "replacing": _replacing,
            "waiting": _waiting,
            "schedules": _schedules,
            "schedule": _schedule,
            "webhook": _webhook,
            "stopping": self._stopping,
            "system_missing": _system_missing,
            "store_failed": self._store_failed,
            "store_back": self._store_back,
            "internal": _internal,
        }

    def render(self, event: Event) -> list[str]:
        """The lines of an event, without line ends; none for what people need not see."""
        renderer = self._renderers.get(event.name)
        return [] if renderer is None else [showable(line) for line in renderer(event)]

    def _start_failed(self, event: Event) -> Iterator[str]:
        self._stillborn.add(event.fields["worker"])
        yield from self._failure(event.endpoint, event.fields["failure"])

    def _described(self, event: Event) -> Iterator[str]:
        if failure := event.fields.get("failure"):
            yield from self._failure(event.endpoint, failure)

    def _failure(self, endpoint: str | None, failure: dict[str, Any]) -> Iterator[str]:
        text = failure_text(failure)
        if self._failed.get(endpoint) != text:
            self._failed[endpoint] = text
            first, *rest = text.split("\n")
            yield _line(endpoint, _paint("cannot start: ", "red") + first)
            yield from (f"    {line}" for line in rest)
            if endpoint in self._living.values():
                yield _line(endpoint, "the code before serves on")

    def _reloaded(self, event: Event) -> Iterator[str]:
        fields = event.fields
        for name in (*fields["roll"], *fields["removed"]):
            self._failed.pop(name, None)
        files = some(fields["changed"])  # a change of branch saves hundreds
        for verb, key in (("restarting", "restart"), ("added", "added"), ("removed", "removed")):
            if fields[key]:
                yield f"{verb} {some(sorted(fields[key]))}  ({files})"

    def _renewed(self, event: Event) -> Iterator[str]:
        self._failed.pop(event.endpoint, None)
        yield f"reloaded {event.endpoint}  ({some(event.fields['files'])})  {duration(event.fields['took_s'])}"

    def _problems(self, event: Event) -> Iterator[str]:
        """What follows from the problems; they themselves are shown as `flashfw check` shows them."""
        for name in event.fields.get("held", ()):
            serves = name in self._living.values()
            yield _line(
                name, "serves its last good code" if serves else "has no worker: calls fail until that is mended"
            )
        had, self._has_problems = self._has_problems, bool(event.fields["problems"])
        if had and not self._has_problems:
            yield _paint("no problems any more", "green")

    def _worker(self, event: Event) -> Iterator[str]:
        fields = event.fields
        state, why = fields["state"], fields["why"]
        if state == "IDLE" and "start_s" in fields:
            parts = [f"import {duration(fields['import_s'])}"]
            parts += [f"{name} {duration(seconds)}" for name, seconds in fields["fixtures_s"].items()]
            self._failed.pop(event.endpoint, None)
            self._living[fields["worker"]] = event.endpoint
            yield _line(event.endpoint, f"worker ready in {duration(fields['start_s'])}  ({', '.join(parts)})")
        elif state == "GONE":
            is_told = self._is_stopping or fields["worker"] in self._stillborn
            self._stillborn.discard(fields["worker"])
            self._living.pop(fields["worker"], None)
            if why and not is_told:
                yield _line(event.endpoint, f"worker {fields['worker']} gone: {why}")
        elif state == "SWEPT":
            yield f"ended process {fields['worker']}: {why}"
        elif state in ("UNHEALTHY", "SILENT"):
            yield _line(event.endpoint, f"worker {fields['worker']} {why}: it gets no new calls")

    def _job(self, event: Event) -> Iterator[str]:
        self._store_error = None  # its end was kept
        yield from _job(event)

    def _store_failed(self, event: Event) -> Iterator[str]:
        """Once for each outage: the same is met by every round and every call until it is over."""
        had, self._store_error = self._store_error, str(event.fields["error"])
        if had is None:
            yield _paint(f"the job store cannot write: {self._store_error}; trying again", "red")

    def _store_back(self, event: Event) -> Iterator[str]:
        self._store_error = None
        yield _paint("the job store works again", "green")

    def _stopping(self, event: Event) -> Iterator[str]:
        self._is_stopping = True
        if running := event.fields["running"]:
            jobs = output.plural(running, "running job")
            yield f"waiting {event.fields['grace_s']:g} s for {jobs}; what is not done goes back to the queue"
        if queued := event.fields["queued"]:
            yield f"{output.plural(queued, 'queued job')} kept for the next `flashfw dev`"


def _replacing(event: Event) -> Iterator[str]:
    files, why = event.fields["files"], event.fields["why"]
    yield f"restarting {event.endpoint}  ({why if any(file in why for file in files) else f'{some(files)}: {why}'})"


def showable(line: str) -> str:
    """The line as a terminal may get it: its colours, if it shows colours, and no other control character.

    >>> showable("a\\tb\\x1b[2J")
    'a\\tb\\\\x1b[2J'
    """
    if line.isprintable():
        return line
    parts = _COLOUR.split(line)
    if not output.shows_colours(sys.stderr):
        return _escaped("".join(parts[::2]))
    text = "".join(part if _COLOUR.fullmatch(part) else _escaped(part) for part in parts)
    return text if parts[-2:-1] in ([], [_RESET]) else text + _RESET


def short(job: str) -> str:
    """The end of a job's id: ids begin with the time, so that jobs of one minute differ in their ends only.

    >>> short("01a1fc26-2261-7233-b45d-26597e28603c")
    '7e28603c'
    """
    return job[-8:]


def failure_text(failure: dict[str, Any]) -> str:
    """A failure of user code: what, where, and the user's own frames."""
    place = f"{failure['place']}: " if failure.get("place") else ""
    fixture = f" (fixture {failure['fixture']!r})" if failure.get("fixture") else ""
    kind = failure.get("type") or "Error"
    head = f"{place}{kind}: {failure.get('message', '')}{fixture}"
    trace = str(failure.get("traceback") or "").rstrip()
    return f"{head}\n{trace}" if trace else head


def header(version: str, root: str, config: str) -> str:
    """The first line: which flashfw serves which project, by which file."""
    return f"{_paint('flashfw', 'bold')} {version}  {root}  ({config})"


def _serving(event: Event) -> Iterator[str]:
    manifest: Manifest = event.fields["manifest"]
    width = max((len(function.id) for endpoint in manifest.endpoints for function in endpoint.functions), default=0)
    for endpoint in manifest.endpoints:
        for function in endpoint.functions:
            verb = {"job": "POST", "app": "ANY"}.get(function.kind, function.method).replace("WEBSOCKET", "WS")
            yield f"  {function.id:<{width}}  {verb:<6} {function.route}"
        if note := _hardware(endpoint, event.fields["gpus"]):
            yield f"  {'':<{width}}  {_paint(note, 'dim')}"
    url = event.fields["url"]
    yield f"{_paint('ready', 'green')}  {_paint(url, 'bold')}  docs: {url}/docs  (Ctrl-C stops)"
    if secret := event.fields.get("webhook_secret"):
        yield f"  {_paint(f'webhooks are signed with the secret in {secret}', 'dim')}"
    if key := event.fields.get("key"):
        yield f"  others can reach this server; they need the header  Authorization: Bearer {key}"


def _hardware(endpoint: Endpoint, gpus: Gpus) -> str:
    """What a GPU endpoint gets here: `dev` ignores the type that it asks for, and must say so."""
    if not endpoint.gpu:
        return ""
    many = len(endpoint.gpu)
    asked = " or ".join(endpoint.gpu) if many <= 2 else f"one of {many} GPU types"
    if not gpus.devices:
        return f"asks for {asked}; this machine has no GPU, so it runs on the CPU"
    here = ", ".join(sorted({device.name for device in gpus.devices}))
    return f"asks for {asked}; dev shares what is here: {here}"


def _request(event: Event) -> Iterator[str]:
    fields = event.fields
    status, path = fields["status"], str(fields["path"])
    if path.startswith("/_flashfw/") or (path == "/openapi.json" and status == 200):
        return  # what `flashfw call` and the page ask for themselves
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    took = duration(fields["duration_s"])
    cut = f"  cut off: {fields['cut']}" if fields.get("cut") else ""
    why = f"  {fields['refused']}" if fields.get("refused") else ""
    where = path.replace("\n", "\\n")  # a caller writes no lines of this log
    yield f"{_paint(str(status), colour)} {fields['method']} {where}  {took}{cut}{why}"


def _job(event: Event) -> Iterator[str]:
    fields = event.fields
    state = fields["state"]
    colour = "green" if state == "COMPLETED" else "red"
    times = f"waited {duration(fields['delay_s'])}, ran {duration(fields['run_s'])}"
    reason = f" {fields['reason']}" if fields.get("reason") not in (None, _TOLD_BY_STATE.get(state)) else ""
    yield f"{_paint(state, colour)}{reason} {fields['function']} {short(fields['id'])}  {times}"
    if fields.get("error"):
        error = json.loads(fields["error"])
        told = failure_text(error).split("\n")
        # A start that failed was told with its traceback when it did; who says no by an HTTPError needs none.
        is_short = fields["reason"] == "startup" or error.get("status", 500) < 500
        yield from (f"    {line}" for line in (told[:1] if is_short else told))


def _requeued(event: Event) -> Iterator[str]:
    alone = "; it runs alone from now on" if event.fields.get("alone") else ""
    what = f"job {short(event.fields['id'])} is back in the queue: {_message(event.fields['why'])}{alone}"
    yield _line(event.endpoint, what)


def _retry(event: Event) -> Iterator[str]:
    fields = event.fields
    what = f"attempt {fields['attempt']} of {fields['function']} {short(fields['id'])} failed, the next is in"
    yield f"{_paint('RETRY', 'yellow')} {what} {duration(fields['in_s'])}"
    if fields.get("error"):
        yield f"    {failure_text({**json.loads(fields['error']), 'traceback': ''})}"


def _function_missing(event: Event) -> Iterator[str]:
    fields = event.fields
    jobs = output.plural(fields["jobs"], "queued job")
    yield f"{fields['function']} is not served: {jobs} will end in {duration(fields['in_s'])} unless it comes back"


def _function_gone(event: Event) -> Iterator[str]:
    jobs = "1 job that waited has" if event.fields["jobs"] == 1 else f"{event.fields['jobs']} jobs that waited have"
    yield f"{event.fields['function']} is gone: {jobs} ended; they can be retried once it is back"


def _output(event: Event) -> Iterator[str]:
    job = event.fields.get("job")
    tag = f"{event.endpoint} {short(job)}" if job else event.endpoint
    for line in str(event.fields["text"]).rstrip("\n").split("\n"):
        # A progress bar overwrites its line by carriage returns: what it came to is what a screen would show.
        yield f"{_paint(f'[{tag}]', 'cyan')} {line.rstrip(chr(13)).rpartition(chr(13))[2]}"


def _scale(event: Event) -> Iterator[str]:
    if event.fields["wanted"] > 1:
        yield _line(event.endpoint, event.fields["reason"])


def _environment(event: Event) -> Iterator[str]:
    yield _line(event.endpoint, event.fields["text"])


def _rollout(event: Event) -> Iterator[str]:
    fields = event.fields
    which = f"release {fields['release']} (rollout {fields['number']}, by {fields['by']})"
    if fields["state"] == "done":
        yield f"{which} is served"
    else:
        at = f" at {fields['endpoint']}" if fields["endpoint"] else ""
        yield f"{which} failed{at}: {fields['why'].partition(chr(10))[0]}"


def _removed(event: Event) -> Iterator[str]:
    yield f"all releases, jobs and secrets were removed by {event.fields['by']}"


def _system_missing(event: Event) -> Iterator[str]:
    packages = ", ".join(event.fields["packages"])
    yield _line(event.endpoint, f"this machine lacks the system packages {packages}: {event.fields['install']}")


def _waiting(event: Event) -> Iterator[str]:
    jobs: dict[str, int] = event.fields["jobs"]
    many = ", ".join(f"{name} {count}" for name, count in sorted(jobs.items()))
    yield f"{output.plural(sum(jobs.values()), 'job')} of the last run in the queue  ({many})"


def _schedules(event: Event) -> Iterator[str]:
    count, tick = event.fields["count"], event.fields["next"]
    what = "1 schedule" if count == 1 else f"{count} schedules"
    if not event.fields["on"]:
        yield f"  {_paint(f'{what} off: jobs are started by the clock with --cron', 'dim')}"
    elif tick is not None:
        when = datetime.fromtimestamp(tick).astimezone()
        yield f"  {what}; the next job is of {event.fields['function']}, at {when:%Y-%m-%d %H:%M %Z}"


def _schedule(event: Event) -> Iterator[str]:
    fields = event.fields
    what = f"job {short(fields['job'])}" if "job" in fields else f"skipped: {fields['skipped']}"
    yield _line(event.endpoint, f"schedule of {fields['function']} ({fields['cron']}): {what}")


def _webhook(event: Event) -> Iterator[str]:
    fields = event.fields
    if fields["state"] == "delivered":
        return
    then = "given up" if fields["state"] == "given_up" else f"again in {duration(fields['retry_in_s'])}"
    what = f"webhook of job {short(fields['id'])}, {fields['url']}: {fields['error']} (try {fields['tries']}, {then})"
    yield _line(event.endpoint, _paint(what, "yellow"))


def _internal(event: Event) -> Iterator[str]:
    fields = event.fields
    head = f"a defect of flashfw, survived while {fields['where']}: {fields['error']}"
    yield _line(event.endpoint, _paint(head, "red"))
    yield from (f"    {line}" for line in str(fields["traceback"]).rstrip().split("\n"))


def _paint(text: str, colour: str) -> str:
    return output.paint(text, colour, sys.stderr)


def _escaped(text: str) -> str:
    return "\t".join(output.printable(part) for part in text.split("\t"))


def _line(endpoint: str | None, text: str) -> str:
    return f"{_paint(f'[{endpoint}]', 'cyan')} {text}" if endpoint else text


def _message(why: str) -> str:
    try:
        return str(json.loads(why)["message"])
    except (ValueError, KeyError, TypeError):
        return why
