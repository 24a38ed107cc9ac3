"""Begins a rollout and follows it to its end, over broken connections and servers that start anew."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable

from flashfw.bundle.release import Release
from flashfw.errors import TargetError
from flashfw.ship.plan import Plan
from flashfw.ship.target import Event, RefusedError, Rollout, Target, UnansweredError

PATIENCE_S = 60.0
"""How long a server may be gone while a rollout of it is followed."""

TRIES = 3
"""How often more a rollout is asked for whose answer was lost; a server that starts anew may lose a few."""

_PAUSE_S = 1.0


def author() -> str:
    """Who ships, as others shall read it: `me@laptop`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return f"{user}@{socket.gethostname()}"


def begin(target: Target, release: Release, plan: Plan, *, by: str) -> int | None:
    """Ask for the rollout of a plan whose layers were uploaded; its number, None if it is done by the time it is known.

    Raises:
        ConflictError, BusyError: as `Target.apply`.
    """
    for _ in range(TRIES):
        try:
            return target.apply(release, expected=plan.old, removes=plan.removes, by=by)
        except UnansweredError:
            # It may have begun. To ask again is safe: a second rollout beside it is refused as busy.
            found = target.situation()
            if found.rollout is not None and found.rollout.release == release.id:
                return found.rollout.number
            if found.current is not None and found.current.id == release.id:
                return None
    return target.apply(release, expected=plan.old, removes=plan.removes, by=by)


def follow(
    target: Target,
    number: int,
    tell: Callable[[Event], None],
    *,
    patience_s: float = PATIENCE_S,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Rollout:
    """The rollout once it has ended; `tell` hears each of its events once, as it comes.

    Raises:
        TargetError: the server refuses, or is gone for longer than `patience_s`; the rollout goes on there.
    """
    after, lost_at = 0, None
    while True:
        try:
            rollout = target.wait(number, after=after)
        except RefusedError:
            raise
        except TargetError as error:
            lost_at = monotonic() if lost_at is None else lost_at
            if monotonic() - lost_at > patience_s:
                hint = f"the rollout goes on there, if it runs; look with: flashfw status {target.name}"
                raise TargetError(f"lost the server during rollout {number}: {error.what}", hint=hint) from error
            pause(_PAUSE_S)
            continue
        lost_at = None
        for event in rollout.events:
            if event.seq > after:
                after = event.seq
                tell(event)
        if rollout.state != "running":
            return rollout
