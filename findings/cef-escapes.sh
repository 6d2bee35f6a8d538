#!/usr/bin/env bash
# What: two readers of ArcSight's Common Event Format on one valid line. jc undoes the escape \n before the escape \\,
#   so that the path C:\temp\new, written C:\\temp\\new, gets a line break in it. pycef, which jc builds on, undoes no
#   escape. Both rename a custom field by its label, and a label that is called as another field overwrites that field.
# Why it matters: the path of a threat is the one thing that an alert is about. It is changed in silence.
# Instead: undo the escapes in one pass from left to right, and keep custom fields apart from the fixed ones.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "jc==1.26.1" "pycef==1.11"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import jc
import pycef

path = r"C:\temp\new"
line = r"CEF:0|Vendor|Scanner|1.0|100|found|5|filePath=C:\\temp\\new msg=the first cs1=the second cs1Label=msg"
with_jc, with_pycef = jc.parse("cef", line)[0], pycef.parse(line)

print("packages: jc", version("jc"), "and pycef", version("pycef"))
print("line:    ", line)
print("expected: filePath is", path, "and msg is: the first")
print("          (Implementing ArcSight Common Event Format, section on character encoding: a backslash is written")
print("          as two backslashes; \\n stands for a line break)")
print("seen:     jc:    filePath", repr(with_jc["filePath"]), "msg", repr(with_jc["msg"]))
print("          pycef: filePath", repr(with_pycef["filePath"]), "msg", repr(with_pycef["msg"]))

surprise = (
    "\n" in with_jc["filePath"]
    and with_jc["msg"] == "the second"
    and with_pycef["filePath"] == r"C:\\temp\\new"
)
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
