"""When a cron fires: cron expressions in a time zone, as Debian's cron reads them.

Five fields (minute, hour, day of month, month, day of week), a sixth at their end for the seconds, or a word such as
`@daily`. Days of the month and of the week are alternatives where both are restricted. Where clocks are put forward, a
time that is skipped fires as soon as it is over; where they are put back, a time of day fires once, and what is said
in steps (`*/30 * * * *`) goes on through both hours.

Pure functions of a schedule and a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from changeover.errors import InvalidRequest

LENGTH_LIMIT = 255
WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked expression and its time zone."""

    expression: str
    zone: tzinfo

    @classmethod
    def parse(cls, expression: str, timezone: str | None) -> Schedule:
        """Raises `InvalidRequest` (`bad-schedule`, `bad-timezone`), also for what never comes."""
        zone = zone_of(timezone)
        schedule = cls(_seconds_first(expression), zone)
        try:
            schedule.after(datetime.now(UTC).timestamp())
        except CronSimError as error:
            raise _bad(str(error)) from None
        except StopIteration:
            raise _bad("there is no such time") from None
        return schedule

    def after(self, time: float) -> float:
        """The first time that it fires after `time`, both in Unix seconds. Raises `StopIteration` if none comes."""
        times = CronSim(self.expression, datetime.fromtimestamp(time, UTC).astimezone(self.zone))
        found = next(times).timestamp()
        while found <= time:  # in an hour that comes twice, the first of its two
            found = next(times).timestamp()
        return found


def next_time(expression: str, timezone: str | None, after: float, end: float | None) -> float | None:
    """When a stored schedule fires next; None if that is never, or not before its end. Raises as `parse` does."""
    try:
        found = Schedule(_seconds_first(expression), zone_of(timezone)).after(after)
    except CronSimError as error:
        raise _bad(str(error)) from None
    except StopIteration:
        return None
    return None if end is not None and found > end else found


def zone_of(name: str | None) -> tzinfo:
    """A time zone of the IANA's list; UTC where none is named."""
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, a folder of zones, or no name at all
        raise InvalidRequest(
            f"timezone: there is no '{name[:100]}'", code="bad-timezone", hint="an IANA name, as Europe/Berlin"
        ) from None


def _seconds_first(expression: str) -> str:
    """Clients write seconds last; cronsim reads them first."""
    if len(expression) > LENGTH_LIMIT:
        raise _bad(f"longer than {LENGTH_LIMIT} characters")
    fields = WORDS.get(expression.strip().lower(), expression).split()
    return " ".join([fields[-1], *fields[:-1]] if len(fields) == 6 else fields)


def _bad(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"schedule: {reason}",
        code="bad-schedule",
        hint="minute hour day month weekday, as in '0 9 * * MON-FRI'",
    )
