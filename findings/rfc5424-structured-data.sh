#!/usr/bin/env bash
# What: two readers of RFC 5424 syslog, two different wrong answers for one valid line. syslog-rfc5424-parser leaves
#   the backslashes in the value. jc cuts the value off at the first escaped quote. Both keep only the last of two
#   parameters with one name, though the RFC's own example has two addresses in `origin`.
# Why it matters: a user or a rule name with a quote in it is cut or altered before anything compares it, and a
#   machine with two addresses is known by one.
# Instead: keep the parameters as a list of pairs, and remove the three escapes in one pass from left to right.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "syslog-rfc5424-parser==0.3.2" "lark-parser==0.6.7" "jc==1.26.1"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import jc
from syslog_rfc5424_parser import SyslogMessage

HEAD = "<165>1 2026-01-02T03:04:05.003Z host app - ID47 "
escaped = HEAD + r'[ex@32473 rule="the \"weekly\" sweep"] text'
repeated = HEAD + '[origin ip="192.0.2.1" ip="192.0.2.129"] text'


def with_parser(line, element):
    return SyslogMessage.parse(line).as_dict()["sd"][element]


def with_jc(line, element):
    found = jc.parse("syslog", line)[0]["structured_data"]
    return next(entry["parameters"] for entry in found if entry["identity"] == element)


a, b = with_parser(escaped, "ex@32473")["rule"], with_jc(escaped, "ex@32473")["rule"]
c, d = with_parser(repeated, "origin"), with_jc(repeated, "origin")

print("packages: syslog-rfc5424-parser", version("syslog-rfc5424-parser"), "and jc", version("jc"))
print("line:    ", escaped)
print('expected: rule is: the "weekly" sweep')
print("          (RFC 5424 section 6.3.3: inside a value the quote, the backslash and ] are escaped with a backslash)")
print("seen:     syslog-rfc5424-parser:", a)
print("          jc:                   ", repr(b))
print("line:    ", repeated)
print("expected: both addresses (RFC 5424 section 7.2.1: `origin` may hold more than one `ip`)")
print("seen:     syslog-rfc5424-parser:", c)
print("          jc:                   ", d)

last = {"ip": "192.0.2.129"}
surprise = a == r'the \"weekly\" sweep' and b.strip() == "the" and c == last and d == last
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
