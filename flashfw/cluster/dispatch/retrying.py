"""Whether and when an attempt that ended with an error of its handler is followed by another: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from flashfw.manifest import Retries

LONGEST_S = 300.0
"""What the pauses between attempts grow to, unless `backoff` itself is longer."""


def retry_in_s(retries: Retries, *, errors: int, types: Sequence[str], was_heard: bool, chance: float) -> float | None:
    """How long to wait before the next attempt; None if this error ends the job.

    `errors` are those of the handler so far, this one included; `types` the dotted names of the exception and of
    its bases. When somebody may have read its first items (`was_heard`), only an error that `on` names is tried
    again. `chance` from 0 to 1 spreads jobs that failed together.

    >>> retry_in_s(Retries(max=3, backoff_s=2.0), errors=2, types=["builtins.OSError"], was_heard=False, chance=1.0)
    4.0
    >>> retry_in_s(Retries(max=3), errors=4, types=["builtins.OSError"], was_heard=False, chance=1.0)
    """
    if errors > retries.max or (was_heard and not retries.on):
        return None
    if retries.on and not any(matches(name, cls) for name in retries.on for cls in types):
        return None
    return backoff_s(retries.backoff_s, errors=errors, chance=chance)


def backoff_s(first_s: float, *, errors: int, chance: float) -> float:
    """The pause after so many errors: doubled with each, up to 5 minutes, and up to a half of it taken off by chance.

    >>> [backoff_s(1.0, errors=errors, chance=1.0) for errors in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 300.0]
    >>> backoff_s(1.0, errors=1, chance=0.0)
    0.5
    """
    whole = min(first_s * 2.0 ** min(errors - 1, 32), max(LONGEST_S, first_s))
    return whole * (0.5 + 0.5 * chance)


def matches(name: str, cls: str) -> bool:
    """Whether a name in `retries.on` means a class: by its own name, or with its module or a package above that.

    >>> matches("OSError", "builtins.OSError"), matches("requests.Timeout", "requests.exceptions.Timeout")
    (True, True)
    >>> matches("Error", "builtins.OSError"), matches("json.Timeout", "requests.exceptions.Timeout")
    (False, False)
    """
    if name == cls:
        return True
    package, _, own = name.rpartition(".")
    module, _, last = cls.rpartition(".")
    return own == last and (not package or f"{module}.".startswith(f"{package}."))
