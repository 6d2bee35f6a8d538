#!/usr/bin/env bash
# What: PyPI's systemd-watchdog measures the time since its last message with the clock on the wall. When that clock
#   is set back by an hour, ping() sends nothing for an hour, and says so only by returning False. systemd counts
#   WatchdogSec= by the monotonic clock, so it kills a service that is well.
# Why it matters: the first correction by NTP after a boot, or a resumed virtual machine, ends a healthy daemon.
# Instead: measure intervals with the monotonic clock, and test a daemon with a clock that is set back.
# Needs: python3 with venv, apt-get and dpkg on Debian 12 (for libfaketime, which sets the clock for one process).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "systemd-watchdog==1.0.1"
(cd "$work" && apt-get download "libfaketime=0.9.10-2.1" >/dev/null 2>&1)
dpkg -x "$work"/libfaketime_*.deb "$work/root"
faketime=$(find "$work/root" -name libfaketime.so.1)
cat >"$work/run.py" <<'PY'
import os
import select
import socket
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version

from systemd_watchdog import WatchDog

work = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(f"{work}/notify")
os.environ.update(NOTIFY_SOCKET=f"{work}/notify", WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))
watchdog = WatchDog()


def messages():
    """What systemd receives while the daemon calls ping() at least every 20 ms for two seconds, ten watchdog periods."""
    count, end = 0, time.monotonic() + 2
    while time.monotonic() < end:
        watchdog.ping()
        if select.select([manager], [], [], 0.02)[0]:
            count += manager.recv(100).startswith(b"WATCHDOG=1")
    return count


def clock():
    return datetime.now(tz=timezone.utc).strftime("%H:%M")


before_clock, before = clock(), messages()
with open(f"{work}/offset", "w", encoding="ascii") as file:
    file.write("-1h\n")
after_clock, after = clock(), messages()

print("package:  systemd-watchdog", version("systemd-watchdog"), "with WatchdogSec=200ms")
print("expected: at least 10 messages in 2 s, whatever happens to the clock")
print("          (sd_watchdog_enabled(3): a message every half of the interval; the README: ping() sends when it is due)")
print(f"seen:     {before} messages in 2 s, and {after} in 2 s after the clock was set back by an hour")

set_back = before_clock != after_clock
surprise = set_back and before >= 10 and after == 0
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
echo "+0h" >"$work/offset"
LD_PRELOAD=$faketime FAKETIME_TIMESTAMP_FILE="$work/offset" FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
    "$work/venv/bin/python" "$work/run.py" "$work"
