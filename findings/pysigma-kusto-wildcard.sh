#!/usr/bin/env bash
# What: pySigma's Kusto backend turns a Sigma value with a wildcard inside, such as prog?.exe, into
#   `matches regex "prog.\\.exe"`. The same rule without the wildcard becomes `=~`, the whole value without regard to
#   case. The regex has no anchors and regards case, so one character in a rule widens and narrows it at once.
# Why it matters: in Defender's advanced hunting the rule misses PROG1.EXE and reports myprog1.exe.bak.
# Instead: read the query before it is saved, and write such rules with the modifiers `re` and `i`, with ^ and $.
# Needs: python3 with venv. The regex is run by Python's re: anchors and case mean the same there as in Kusto's RE2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "pySigma==1.5.1" "pySigma-backend-kusto==1.0.1"
"$work/venv/bin/python" - <<'PY'
import json
import re
import sys
from importlib.metadata import version

from sigma.backends.kusto import KustoBackend
from sigma.collection import SigmaCollection
from sigma.pipelines.microsoftxdr import microsoft_xdr_pipeline

RULE = """
title: A program by name
status: test
logsource: {{category: process_creation, product: windows}}
detection:
    selection: {{OriginalFileName: '{value}'}}
    condition: selection
"""


def convert(value):
    rules = SigmaCollection.from_yaml(RULE.format(value=value))
    return KustoBackend(processing_pipeline=microsoft_xdr_pipeline()).convert(rules)[0].splitlines()[-1]


plain, wild = convert("prog1.exe"), convert("prog?.exe")
pattern = wild.split(" matches regex ", 1)[1] if " matches regex " in wild else '""'
regex = re.compile(json.loads(pattern))
found = {name: bool(regex.search(name)) for name in ("prog1.exe", "PROG1.EXE", "myprog1.exe.bak")}

print("package:  pySigma-backend-kusto", version("pySigma-backend-kusto"), "with pySigma", version("pySigma"))
print("expected: prog?.exe stands for the whole value, with one character for ?, without regard to case")
print("          (Sigma rules specification, sections on general value handling and on string wildcards)")
print("          Kusto's `matches regex` is not anchored and regards case (KQL reference, matches regex, regex syntax)")
print("seen:    ", plain)
print("         ", wild)
for name, match in found.items():
    print(f"          {name}: {'reported' if match else 'not reported'}")

surprise = "=~" in plain and found == {"prog1.exe": True, "PROG1.EXE": False, "myprog1.exe.bak": True}
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
