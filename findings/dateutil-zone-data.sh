#!/usr/bin/env bash
# What: python-dateutil carries zone data of its own, release 2024a, and falls back on it when the system has no zone
#   files, as in a slim container. It does not look at the package tzdata that is installed beside it. One process
#   then has two answers for a zone whose rules changed since, such as America/Vancouver in the winter of 2026.
# Why it matters: a sweep at 02:00 in Vancouver starts an hour off for half a year, in some containers and not in others.
# Instead: use zoneinfo with a pinned tzdata, install the system's tzdata too, and compare the releases at the start.
# Needs: python3 with venv. The search paths for zone files are emptied, to have what a slim container has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "python-dateutil==2.9.0.post0" "tzdata==2026.6"
PYTHONTZPATH="" "$work/venv/bin/python" - <<'PY'
import sys
import warnings
from datetime import datetime, timezone
from importlib.metadata import version
from zoneinfo import ZoneInfo

import tzdata
from dateutil import tz
from dateutil.zoneinfo import get_zonefile_instance

tz.tz.TZPATHS.clear()
noon = datetime(2026, 12, 15, 12, tzinfo=timezone.utc)
seen = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name in ("America/Vancouver", "America/Edmonton", "Africa/Casablanca", "Europe/Berlin"):
        ours, theirs = noon.astimezone(ZoneInfo(name)), noon.astimezone(tz.gettz(name))
        seen[name] = (ours.strftime("%H:%M %z"), theirs.strftime("%H:%M %z"))

print("packages: python-dateutil", version("python-dateutil"), "with zone data", get_zonefile_instance().metadata["tzversion"])
print("          tzdata", version("tzdata"), "with zone data", tzdata.IANA_VERSION)
print("expected: one local time for one instant,", noon, "(IANA time zone database, NEWS of the releases of 2026)")
for name, (ours, theirs) in seen.items():
    print(f"seen:     {name:18} zoneinfo with tzdata: {ours}  dateutil.tz.gettz: {theirs}")
print("          warnings:", [str(warning.message) for warning in caught])

differ = [name for name, (ours, theirs) in seen.items() if ours != theirs]
surprise = differ == ["America/Vancouver", "America/Edmonton", "Africa/Casablanca"] and not caught
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
