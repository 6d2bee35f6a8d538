#!/usr/bin/env bash
# What: PyPI's crontab computes no run in the second pass of the hour that the autumn change repeats. The next run of
#   "0 * * * *" after 01:00 EDT is 02:00 EST, two hours later. The package contradicts itself: test() says that
#   01:00 EST is on the schedule.
# Why it matters: an hourly budget or an hourly health check has a hole of two hours, once a year, at night.
# Instead: give it times in UTC for anything that runs by the hour, or ask test() once a minute.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "crontab==1.0.5" "tzdata==2026.6"
"$work/venv/bin/python" - <<'PY'
import sys
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from zoneinfo import ZoneInfo

from crontab import CronTab

zone = ZoneInfo("America/New_York")
hourly = CronTab("0 * * * *")
first = datetime(2026, 11, 1, 5, tzinfo=timezone.utc).astimezone(zone)
second = datetime(2026, 11, 1, 6, tzinfo=timezone.utc).astimezone(zone)
seconds = hourly.next(first, default_utc=False)
run = (first.astimezone(timezone.utc) + timedelta(seconds=seconds)).astimezone(zone)

print("package:  crontab", version("crontab"))
print("expected: 0 * * * * after", first, "runs at", second, "3600 s later")
print("          (the package's README: */2 in the hour field is every 2 hours, so * is every hour; test() agrees)")
print("seen:     next() is", int(seconds), "s, at", run)
print("          test() says that", second, "matches:", hourly.test(second))

surprise = int(seconds) == 7200 and hourly.test(second)
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
