"""A schedule means what Debian's cron would mean, in every zone and through every change of clocks."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from changeover.errors import InvalidRequest
from changeover.runs.schedules import Schedule, next_time

NEW_YORK = "America/New_York"


def times(expression: str, zone: str | None, start: str, count: int) -> list[str]:
    schedule = Schedule.parse(expression, zone)
    found, at = [], datetime.fromisoformat(start).timestamp()
    for _ in range(count):
        at = schedule.after(at)
        found.append(datetime.fromtimestamp(at, UTC).isoformat()[:19])
    return found


def test_a_schedule_is_in_utc_unless_it_names_a_zone() -> None:
    assert times("0 9 * * MON-FRI", None, "2026-11-20T08:00:00+00:00", 2) == [
        "2026-11-20T09:00:00",
        "2026-11-23T09:00:00",
    ]
    assert times("0 9 * * *", "Asia/Kathmandu", "2026-11-20T00:00:00+00:00", 1) == ["2026-11-20T03:15:00"]


def test_a_time_that_is_skipped_fires_as_soon_as_it_is_over_and_only_that_day() -> None:
    assert times("30 2 * * *", NEW_YORK, "2026-03-08T05:00:00+00:00", 2) == [
        "2026-03-08T07:00:00",  # 03:00 summer time
        "2026-03-09T06:30:00",
    ]


def test_a_time_of_day_that_comes_twice_fires_once() -> None:
    assert times("30 1 * * *", NEW_YORK, "2026-11-01T04:00:00+00:00", 2) == [
        "2026-11-01T05:30:00",
        "2026-11-02T06:30:00",
    ]
    # asked between its two comings, when the first is over
    assert times("30 1 * * *", NEW_YORK, "2026-11-01T06:15:00+00:00", 1) == ["2026-11-02T06:30:00"]


def test_steps_go_on_through_both_hours() -> None:
    assert times("*/30 * * * *", NEW_YORK, "2026-11-01T05:15:00+00:00", 3) == [
        "2026-11-01T05:30:00",
        "2026-11-01T06:00:00",
        "2026-11-01T06:30:00",
    ]


def test_a_sixth_field_is_the_seconds() -> None:
    assert times("* * * * * */20", None, "2026-01-01T00:00:05+00:00", 2) == [
        "2026-01-01T00:00:20",
        "2026-01-01T00:00:40",
    ]


@pytest.mark.parametrize(
    ("word", "same"), [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), ("@weekly", "0 0 * * 0")]
)
def test_words_stand_for_schedules(word: str, same: str) -> None:
    assert times(word, None, "2026-01-01T05:00:05+00:00", 3) == times(same, None, "2026-01-01T05:00:05+00:00", 3)


@pytest.mark.parametrize(
    "expression", ["", "*", "* * * *", "60 * * * *", "* * * * * * *", "0 0 30 2 *", "x * * * *", "@never", "* " * 200]
)
def test_what_is_no_schedule_or_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Schedule.parse(expression, None)
    assert refused.value.code == "bad-schedule"


@pytest.mark.parametrize("zone", ["Nowhere/City", "", "../etc/passwd", "/etc/localtime", "America", "a\0b", "x" * 300])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Schedule.parse("* * * * *", zone)
    assert refused.value.code == "bad-timezone"


def test_nothing_is_due_after_the_end() -> None:
    start = datetime.fromisoformat("2026-01-01T08:00:00+00:00").timestamp()
    assert next_time("0 9 * * *", None, start, start + 3600) == start + 3600
    assert next_time("0 9 * * *", None, start, start + 3599) is None


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789*/,-#L WMONJAN@?²\n", max_size=30))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        schedule = Schedule.parse(text, "Europe/Berlin")
    except InvalidRequest:
        return
    with suppress(StopIteration):
        assert schedule.after(1.8e9) > 1.8e9
