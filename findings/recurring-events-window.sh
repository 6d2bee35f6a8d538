#!/usr/bin/env bash
# What: a maintenance window written as an iCalendar event with DURATION has the wrong length on the day of a change
#   to or from summer time. recurring-ical-events adds the duration to the clock on the wall. A window of one hour at
#   02:30 has no length at all on the spring day; one of eight hours has seven in spring and nine in autumn.
# Why it matters: "scan only inside the window" never scans on that day, or scans an hour into the working day.
# Instead: turn the start into UTC, add hours, minutes and seconds there, and add only days and weeks on the wall clock.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    "recurring-ical-events==3.8.2" "icalendar==7.3.2" "tzdata==2026.6"
"$work/venv/bin/python" - <<'PY'
import sys
from datetime import timedelta, timezone
from importlib.metadata import version

import icalendar
import recurring_ical_events

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example//window//EN
BEGIN:VEVENT
UID:window@example.org
DTSTAMP:20260101T000000Z
DTSTART;TZID=America/New_York:{start}
DURATION:{duration}
RRULE:FREQ=DAILY;COUNT=2
END:VEVENT
END:VCALENDAR
"""


def lengths(start, duration, first, last):
    calendar = icalendar.Calendar.from_ical(EVENT.format(start=start, duration=duration).replace("\n", "\r\n"))
    found = []
    for event in recurring_ical_events.of(calendar).between(first, last):
        begin, end = event["DTSTART"].dt, event["DTEND"].dt
        found.append((begin, end, end.astimezone(timezone.utc) - begin.astimezone(timezone.utc)))
    return found


cases = [
    ("PT1H", lengths("20260307T023000", "PT1H", (2026, 3, 6), (2026, 3, 12))),
    ("PT8H", lengths("20260307T230000", "PT8H", (2026, 3, 6), (2026, 3, 12))),
    ("PT8H", lengths("20261030T230000", "PT8H", (2026, 10, 29), (2026, 11, 4))),
]
print("package:  recurring-ical-events", version("recurring-ical-events"), "with icalendar", version("icalendar"))
print("expected: PT1H lasts 1:00:00 and PT8H lasts 8:00:00 on every day")
print("          (RFC 5545 section 3.3.6: days and weeks are nominal; hours, minutes and seconds are accurate)")
for duration, found in cases:
    for begin, end, length in found:
        print(f"seen:     {duration}: {begin} to {end} lasts {length}")

hour = timedelta(hours=1)
surprise = [[length for _, _, length in found] for _, found in cases] == [
    [hour, 0 * hour],
    [7 * hour, 8 * hour],
    [8 * hour, 9 * hour],
]
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
