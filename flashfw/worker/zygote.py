"""A warm process that workers are forked off: it imports what every worker imports, then forks on request.

One packet each way over its socket, in order. First it says `{"warm": NAMES}`, the top-level names that it imported
and a fresh worker has not when the project becomes importable, or `{"unfit": WHY}`. Then it is asked:

- `{"do": "fork"}` with three descriptors: the worker's link, its output, and a file with its `root` and `environ`. The
  answer is `{"pid": N}`, or `{"refused": WHY}`.
- `{"do": "reap", "pid": N}` of a worker that has ended: `{"code": N}`. Until then its id is its own.

The file is read in the child alone: no secret ever lies in this process, whose memory all its workers share.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

WHAT_MANY_IMPORT = ("pydantic.main", "pydantic.type_adapter", "starlette.applications", "starlette.routing", "anyio")
"""Imported late by a worker, by most of them."""

NVIDIA = "/dev/nvidia"
_PACKET_BYTES = 1 << 16
_KEPT = "LC_CTYPE"
"""Python itself sets it under the C locale, before it runs anything."""

Handlers = Mapping[int, Callable[[int, FrameType | None], Any] | int | None]


class Unfit(Exception):
    """A process that must not be forked, and why."""


def main(descriptor: int, preload: Sequence[str]) -> None:
    """Forks workers until the other end of the socket is gone. Returns in no process: a child runs `run_worker.py`."""
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    handlers = _handlers()
    own = _descriptors()
    try:
        names = warm(preload)
        end_threads()
        check_threads()
        check_descriptors(own)
    except Unfit as error:
        _say(control, {"unfit": str(error)})
        os._exit(0)
    gc.collect()
    gc.freeze()  # what a collection touches in a child is copied
    _say(control, {"warm": names})
    script = str(Path(sys.argv[0]).with_name("run_worker.py"))
    link = _serve(control, handlers)
    sys.argv = [script, str(link)]
    run(script)


def warm(preload: Sequence[str]) -> list[str]:
    """Import what workers import, and `preload`; the top-level names that a fresh worker has not from the start.

    Raises:
        Unfit: something cannot be imported.
    """
    _import("flashfw.worker.main")
    from_the_start = _names()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith(("_", "run_")):
            _import(f"flashfw.worker.{file.stem}")
    for name in (*WHAT_MANY_IMPORT, *preload):
        _import(name)
    _rehearse()
    importlib.import_module("flashfw.worker.load").mark()
    return sorted(_names() - from_the_start)


def end_threads() -> None:
    """End the threads of libraries that end theirs for a fork and begin anew after it, as OpenBLAS does, by a fork."""
    if len(os.listdir("/proc/self/task")) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks with threads, and look at them before
            pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)


def check_threads() -> None:
    """Whether this thread is the only one: a fork has no other, and would meet the locks that others hold.

    Raises:
        Unfit: it is not.
    """
    others = len(os.listdir("/proc/self/task")) - 1
    if others:
        raise Unfit(f"what is preloaded runs {others} thread{'s' if others > 1 else ''} of its own")


def check_descriptors(own: frozenset[str]) -> None:
    """Whether nothing is open but `own`, those that this process began with, and CUDA is not initialised.

    Raises:
        Unfit: something is, and what.
    """
    opened = sorted(_descriptors() - own)
    if is_cuda_initialized(opened):
        raise Unfit("what is preloaded has initialised CUDA, which cannot be forked")
    if opened:
        raise Unfit(f"what is preloaded keeps files open: {', '.join(one.partition(' ')[2] for one in opened)}")


def is_cuda_initialized(opened: Sequence[str]) -> bool:
    """Whether torch says so, or a device of NVIDIA's is open or mapped."""
    if any(NVIDIA in one for one in opened) or NVIDIA in Path("/proc/self/maps").read_text(errors="replace"):
        return True
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def become(link: int, output: int, told: int, handlers: Handlers, *, spare: int) -> None:
    """Turn a forked child into what a fresh interpreter with these descriptors is; `spare` stays open as well."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    with open(told, "rb", closefd=False) as file:
        spec = json.load(file)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in (link, spare):
            _close(number)  # one of them was that of the listing
    os.set_inheritable(link, True)  # as an exec would have left it
    _restore(handlers)
    os.chdir(spec["root"])
    environ = {_KEPT: os.environ[_KEPT], **spec["environ"]} if _KEPT in os.environ else spec["environ"]
    os.environ.clear()
    os.environ.update(environ)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.path[0] = str(Path(sys.argv[0]).parent)
    reseed()


def reseed() -> None:
    """Give this process random numbers of its own, wherever a state of them was inherited."""
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()  # those of devices are made later, since no device is initialised


def run(script: str) -> None:
    """Run a script as Python runs the one that it is given."""
    module = ModuleType("__main__")
    module.__file__ = script
    sys.modules["__main__"] = module
    exec(compile(Path(script).read_bytes(), script, "exec"), module.__dict__)


def _serve(control: socket.socket, handlers: Handlers) -> int:
    """Answer until nobody asks; returns in a forked child only, with its link."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _PACKET_BYTES, 3)
        if not data:
            os._exit(0)
        asked = json.loads(data)
        if asked["do"] == "reap":
            _, status = os.waitpid(asked["pid"], 0)
            _say(control, {"code": os.waitstatus_to_exitcode(status)})
            continue
        try:
            check_threads()
            pid = _fork(descriptors, handlers)
        except (Unfit, OSError) as error:
            _say(control, {"refused": str(error)})
        else:
            if not pid:
                control.detach()  # its number was closed, and must not be closed again
                return descriptors[0]
            _say(control, {"pid": pid})
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(descriptors: Sequence[int], handlers: Handlers) -> int:
    """Fork, and return in the parent once the child is a worker: a kill of its group finds it, and nothing failed.

    Raises:
        Unfit: the child could not become one, and has ended.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what a module printed would be printed by every child
    heard, tell = os.pipe()
    try:
        pid = os.fork()
        if not pid:
            _begin(descriptors, handlers, tell)
            return 0
    except OSError:
        os.close(heard)
        os.close(tell)
        raise
    os.close(tell)
    with open(heard, "rb") as file:
        said = file.read()
    if said:
        os.waitpid(pid, 0)
        raise Unfit(said.decode(errors="replace"))
    return pid


def _begin(descriptors: Sequence[int], handlers: Handlers, tell: int) -> None:
    """In a child: all that may fail before it runs a worker's code; `tell` says what did, nothing if all went well."""
    try:
        os.setsid()
        link, output, told = descriptors
        become(link, output, told, handlers, spare=tell)
    except BaseException as error:  # this process must not go on as a second zygote
        os.write(tell, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os.close(tell)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as error:  # a module of the user's choice, whatever it raises
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Unfit(f"'{name}' cannot be imported ahead of time: {said}") from error


def _rehearse() -> None:
    """Do once what each worker does before its first call.

    Most of that uses pydantic, which looks for its plugins at its first use. Where there are some, workers do that:
    they may want variables that are not here.
    """
    metadata = importlib.import_module("importlib.metadata")
    if not metadata.entry_points(group="pydantic"):
        importlib.import_module("flashfw.worker.rehearsal").rehearse()


def _names() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


def _descriptors() -> frozenset[str]:
    """The open descriptors of this process, each with what it is open on."""
    return frozenset(map(_described, map(int, os.listdir("/proc/self/fd")))) - {""}


def _described(descriptor: int) -> str:
    try:
        return f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}"
    except FileNotFoundError:
        return ""  # that of the listing itself


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass


def _handlers() -> Handlers:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _restore(handlers: Handlers) -> None:
    """The handlers that the interpreter began with, and no signal blocked."""
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _say(control: socket.socket, said: Mapping[str, object]) -> None:
    try:
        control.sendall(json.dumps(said).encode())
    except OSError:
        os._exit(0)  # nobody is there any more
