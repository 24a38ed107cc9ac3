"""A cron line and a time zone to the moments that they name, as pure functions of the time.

A line names local times, and each local time ticks once. One that the clocks skip in spring ticks as long after the
hour as it would have (02:30 becomes 03:30); one that they show twice in autumn ticks the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

MOST = 100
_NEAR = timedelta(hours=25)
"""How far from a change of the clocks the order of local times may not be that of moments: Samoa once skipped a day."""


def due(cron: str, tz: str, *, after: float, now: float, limit: int = MOST) -> list[float]:
    """The ticks later than `after` and not later than `now`, oldest first; of more than `limit` the latest.

    Times are seconds since the epoch.

    >>> due("30 * * * *", "UTC", after=0.0, now=7200.0)
    [1800.0, 5400.0]
    """
    zone, found = ZoneInfo(tz), set[float]()
    slack = _slack(zone, now)
    enough = limit + (24 * 60 * 2 if slack else 0)
    for tick in _walk(cron, zone, _local(zone, now) + slack + timedelta(seconds=1), back=True):
        if tick <= after - _slack(zone, after).total_seconds() or len(found) >= enough:
            break
        if after < tick <= now:
            found.add(tick)
    return sorted(found)[-limit:]


def upcoming(cron: str, tz: str, *, after: float) -> float | None:
    """The first tick later than `after`, or None if there is none in the next years.

    >>> upcoming("0 6 * * *", "UTC", after=0.0)
    21600.0
    """
    zone = ZoneInfo(tz)
    first: float | None = None
    slack = _slack(zone, after)
    for tick in _walk(cron, zone, _local(zone, after) - slack, back=False):
        if first is not None and tick > first + slack.total_seconds():
            break
        if tick > after and (first is None or tick < first):
            first = tick
        if first is not None and not slack:
            break
    return first


def _walk(cron: str, zone: ZoneInfo, start: datetime, *, back: bool) -> Iterator[float]:
    """The ticks from a local time on, without those of that time itself."""
    from croniter import CroniterBadDateError, croniter

    times = croniter(cron, start)
    step = times.get_prev if back else times.get_next
    try:
        while True:
            yield step(datetime).replace(tzinfo=zone).timestamp()
    except (CroniterBadDateError, OverflowError):
        return


def _local(zone: ZoneInfo, at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc).astimezone(zone).replace(tzinfo=None, microsecond=0)


def _slack(zone: ZoneInfo, at: float) -> timedelta:
    """How far local times and moments may be out of order around a moment: not at all, but near a change."""
    is_near = _is_near_change(zone, int(at // 3600))
    return _NEAR if is_near else timedelta()


@lru_cache(maxsize=1024)
def _is_near_change(zone: ZoneInfo, hour: int) -> bool:
    moment = datetime.fromtimestamp(hour * 3600, timezone.utc)
    around = (moment + timedelta(hours=step) for step in range(-27, 29))
    return len({one.astimezone(zone).utcoffset() for one in around}) > 1
