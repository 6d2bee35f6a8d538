#!/usr/bin/env bash
# What: a systemd timer whose OnCalendar= time falls into the hour that the spring change leaves out does not run at
#   all on that day. It is neither moved to the next minute that exists, nor caught up on by Persistent=true, since
#   systemd never computes an elapse for that day. "Sun *-*-* 02:00:00", a usual time for weekly work, is hit in full:
#   the United States and central Europe both leave out 02:00 to 03:00 on a Sunday, so that there are two weeks
#   between two runs. In autumn a timer for every hour leaves a hole of two hours.
# Why it matters: a weekly sweep of a fleet is a sweep that once a year is not weekly, and no unit has failed.
# Instead: write UTC behind the time, or choose a time from 04:00 to 23:00 on a day that has no change.
# Known upstream: systemd/systemd issues 5595 (spring) and 8647 (autumn), both open. systemd.time(7) does not name it.
# Needs: apt-get and dpkg on Debian 12. The time zone is given as a rule, so no zone files are read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version="252.39-1~deb12u2"
(cd "$work" && apt-get download "systemd=$version" "libsystemd-shared=$version" >/dev/null 2>&1)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
library=$(dirname "$(find "$work/root" -name 'libsystemd-shared-*.so')")

elapses() { # BASE COUNT EXPRESSION: the next elapses, in local time
    TZ="EST5EDT,M3.2.0,M11.1.0" LC_ALL=C LD_LIBRARY_PATH="$library" \
        "$work/root/usr/bin/systemd-analyze" calendar --base-time="$1" --iterations="$2" "$3" |
        sed -nE 's/^ *(Next elapse|Iter\. #[0-9]+): /              /p'
}

weekly=$(elapses "2026-02-28 12:00:00" 3 "Sun *-*-* 02:00:00")
weekly_utc=$(elapses "2026-02-28 12:00:00" 3 "Sun *-*-* 07:00:00 UTC")
hourly=$(elapses "2026-11-01 00:30:00" 2 "*-*-* *:00:00")

echo "package:  systemd $version (Debian 12), zone EST5EDT: no 02:00 on 2026-03-08, 01:00 twice on 2026-11-01"
echo "expected: three Sundays in a row (systemd.time(7), CALENDAR EVENTS: * stands for any value, Sun for each Sunday)"
echo "seen:     Sun *-*-* 02:00:00:"
echo "$weekly"
echo "          Sun *-*-* 07:00:00 UTC:"
echo "$weekly_utc"
echo "expected: each hour (systemd.time(7): hourly is *-*-* *:00:00)"
echo "seen:     *-*-* *:00:00 across the autumn change:"
echo "$hourly"

if [[ $weekly == *"2026-03-01 02:00:00"*"2026-03-15 02:00:00"* && $weekly != *2026-03-08* ]] &&
    [[ $weekly_utc == *2026-03-01*2026-03-08*2026-03-15* ]] &&
    [[ $hourly == *"01:00:00 EDT"*"02:00:00 EST"* ]]; then
    echo "the surprise is still there"
else
    echo "CHANGED: the behaviour is not as described"
    exit 1
fi
