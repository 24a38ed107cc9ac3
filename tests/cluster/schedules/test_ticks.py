"""When a cron line ticks: by hand, and against a walk through every minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashfw.cluster.schedules.ticks import MOST, due, upcoming

ZONES = (
    *("UTC", "Europe/Prague", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe"),
    *("Pacific/Apia", "Africa/Casablanca", "Europe/Dublin", "America/St_Johns"),
)
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def at(text: str, tz: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()


def shown(ticks: list[float], tz: str) -> list[str]:
    return [f"{datetime.fromtimestamp(tick, ZoneInfo(tz)):%d %H:%M}" for tick in ticks]


def test_the_end_counts_and_the_begin_does_not() -> None:
    hour = at("2026-03-01T12:00")

    assert due("0 * * * *", "UTC", after=hour - 3600, now=hour) == [hour]
    assert due("0 * * * *", "UTC", after=hour, now=hour + 3599.9) == []
    assert upcoming("0 * * * *", "UTC", after=hour) == hour + 3600
    assert upcoming("0 * * * *", "UTC", after=hour - 0.001) == hour


def test_a_line_means_local_time() -> None:
    found = due("0 6 * * 1-5", "Europe/Prague", after=at("2026-07-03T00:00"), now=at("2026-07-07T00:00"))

    assert shown(found, "UTC") == ["03 04:00", "06 04:00"]


def test_a_time_that_the_clocks_skip_ticks_after_the_gap() -> None:
    begin, end = at("2026-03-29T00:00"), at("2026-03-29T12:00")

    assert shown(due("30 2 * * *", "Europe/Prague", after=begin, now=end), "Europe/Prague") == ["29 03:30"]
    hourly = due("0 * * * *", "Europe/Prague", after=begin, now=at("2026-03-29T03:00"))
    assert shown(hourly, "Europe/Prague") == ["29 03:00", "29 04:00", "29 05:00"]


def test_a_time_that_the_clocks_show_twice_ticks_once() -> None:
    begin, end = at("2026-10-25T00:00", "Europe/Prague"), at("2026-10-25T05:00", "Europe/Prague")

    found = due("30 * * * *", "Europe/Prague", after=begin, now=end)

    assert shown(found, "UTC") == ["24 22:30", "24 23:30", "25 00:30", "25 02:30", "25 03:30"]


def test_of_many_the_latest_count() -> None:
    now = at("2026-03-01T12:00")

    found = due("* * * * *", "UTC", after=0.0, now=now)

    assert found == [now - 60 * step for step in reversed(range(MOST))]


def test_a_line_that_never_ticks() -> None:
    assert upcoming("0 0 30 2 *", "UTC", after=0.0) is None
    assert due("0 0 30 2 *", "UTC", after=0.0, now=1e9) == []


def test_a_leap_day() -> None:
    assert upcoming("0 0 29 2 *", "UTC", after=at("2026-01-01T00:00")) == at("2028-02-29T00:00")


def field(least: int, most: int) -> st.SearchStrategy[str]:
    numbers = st.lists(st.integers(least, most), min_size=1, max_size=3, unique=True)
    lists = numbers.map(lambda found: ",".join(str(one) for one in sorted(found)))
    if (least, most) in (RANGES[2], RANGES[4]):  # of days, `*/1` may mean a restriction or none
        return st.one_of(st.just("*"), lists)
    steps = st.integers(1, max(1, (most - least) // 2)).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), steps, lists)


lines = st.tuples(*(field(*bounds) for bounds in RANGES)).map(" ".join)
days = st.integers(int(at("2011-12-20T00:00")) // 86_400, int(at("2027-01-01T00:00")) // 86_400)
changes = st.sampled_from(
    [
        int(at(day) // 86_400)
        for day in (
            *("2026-03-28T00:00", "2026-10-24T00:00", "2026-03-07T00:00", "2026-10-31T00:00", "2011-12-29T00:00"),
            *("2026-04-04T00:00", "2026-10-03T00:00", "2018-11-03T00:00", "2018-02-17T00:00", "2026-02-14T00:00"),
        )
    ]
)


def values(text: str, least: int, most: int) -> set[int]:
    if text == "*":
        return set(range(least, most + 1))
    if text.startswith("*/"):
        return set(range(least, most + 1, int(text[2:])))
    return {int(one) for one in text.split(",")}


def matches(cron: str, local: datetime) -> bool:
    texts = cron.split()
    minute, hour, day, month, weekday = (values(text, *bounds) for text, bounds in zip(texts, RANGES, strict=True))
    in_month, in_week = local.day in day, local.isoweekday() % 7 in weekday
    either = texts[2] != "*" and texts[4] != "*"  # as in every cron: two restrictions of the day are alternatives
    is_day = in_month or in_week if either else in_month and in_week
    return local.minute in minute and local.hour in hour and local.month in month and is_day


def every_minute(tz: str, after: float, now: float) -> Iterator[tuple[float, datetime]]:
    """Each minute with the local times that mean it: what the clock shows the first time, and what it skipped."""
    zone = ZoneInfo(tz)
    first = datetime.fromtimestamp(after - after % 60, timezone.utc)
    moment = first
    while moment.timestamp() <= now:
        local = moment.astimezone(zone)
        if local.fold == 0:
            yield moment.timestamp(), local.replace(tzinfo=None)
        for hours in (0.5, 1, 2, 24):  # a time that does not exist is read with the offset before the change
            before = (moment - timedelta(hours=hours)).astimezone(zone).utcoffset()
            assert before is not None
            skipped = (moment + before).replace(tzinfo=None)
            if before != local.utcoffset() and is_skipped(skipped, zone, moment):
                yield moment.timestamp(), skipped
        moment += timedelta(minutes=1)


def is_skipped(local: datetime, zone: ZoneInfo, moment: datetime) -> bool:
    read = local.replace(tzinfo=zone)
    back = read.astimezone(timezone.utc).astimezone(zone).replace(tzinfo=None)
    return back != local and read.timestamp() == moment.timestamp()


@settings(deadline=None, max_examples=100)
@given(lines, st.sampled_from(ZONES), st.one_of(changes, days), st.integers(0, 1440), st.integers(1, 900))
def test_due_is_what_a_walk_through_every_minute_finds(cron: str, tz: str, day: int, minute: int, long: int) -> None:
    after = day * 86_400.0 + minute * 60
    now = after + long * 60
    walked = every_minute(tz, after, now)
    expected = sorted({moment for moment, local in walked if moment > after and matches(cron, local)})

    assert due(cron, tz, after=after, now=now, limit=10_000) == expected
    assert due(cron, tz, after=after, now=now) == expected[-MOST:]
    first = upcoming(cron, tz, after=after)
    assert (first if first is not None and first <= now else None) == (expected[0] if expected else None)


@settings(deadline=None, max_examples=50)
@given(lines, st.sampled_from(ZONES), changes, st.lists(st.integers(1, 600), min_size=1, max_size=10))
def test_steps_find_each_tick_once(cron: str, tz: str, day: int, steps: list[int]) -> None:
    """However often and whenever it is asked, nothing is told twice or left out."""
    begin = now = day * 86_400.0
    told: list[float] = []
    for step in steps:
        told += due(cron, tz, after=now, now=now + step * 60, limit=10_000)
        now += step * 60

    assert told == due(cron, tz, after=begin, now=now, limit=10_000)


@pytest.mark.parametrize("tz", ZONES)
def test_a_daily_line_ticks_once_a_day(tz: str) -> None:
    begin, end = at("2026-01-01T00:00"), at("2027-01-01T00:00")

    found = due("30 2 * * *", tz, after=begin, now=end, limit=400)

    assert len(found) in (364, 365, 366)
    assert min(later - earlier for earlier, later in zip(found, found[1:], strict=False)) >= 22 * 3600
