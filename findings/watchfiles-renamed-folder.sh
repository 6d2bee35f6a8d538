#!/usr/bin/env bash
# What: watchfiles, which is Rust's notify for Python, keeps watching a folder that was renamed, under its old name.
#   When a new folder takes the name, a file that is dropped into it is not reported. A file in the renamed folder is
#   reported with a path in the new one, where there is no such file.
# Why it matters: an operator who puts a full drop folder aside and makes an empty one has a daemon that sees no list.
# Instead: read the folder at regular times as well, compare its device and inode numbers with those at the start, and
#   check that a reported file is there.
# Known upstream for notify: notify-rs/notify issue 555, open.
# Needs: python3 with venv, on Linux: inotify(7) watches the inode and not the name, and the path is put together later.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "watchfiles==1.3.0" "anyio==4.11.0"
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

from watchfiles import watch

work = Path(sys.argv[1])
drop, aside = work / "drop", work / "aside"
drop.mkdir()
reported, stop = [], threading.Event()


def collect():
    for changes in watch(drop, stop_event=stop, debounce=100, step=20, rust_timeout=200, recursive=False):
        reported.extend((change.name, path.removeprefix(f"{work}/")) for change, path in changes)


def after(action):
    reported.clear()
    action()
    time.sleep(1.5)
    return sorted(set(reported))


thread = threading.Thread(target=collect)
thread.start()
time.sleep(1)
first = after(lambda: (drop / "a.csv").write_text("a"))
after(lambda: (drop.rename(aside), drop.mkdir()))
new = after(lambda: (drop / "b.csv").write_text("b"))
old = after(lambda: (aside / "c.csv").write_text("c"))
stop.set()
thread.join()

print("package:  watchfiles", version("watchfiles"))
print("expected: a file in drop/ is reported, and a reported path is that of a file")
print("          (the package's API reference: watch() yields the changes of the given path)")
print("seen:     a.csv into drop/:                      ", first)
print("          drop/ renamed to aside/, new drop/ made")
print("          b.csv into drop/:                      ", new)
print("          c.csv into aside/:                     ", old)
print("          drop/c.csv is there:                   ", (drop / "c.csv").exists())

surprise = ("added", "drop/a.csv") in first and not new and ("added", "drop/c.csv") in old
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
