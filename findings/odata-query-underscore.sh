#!/usr/bin/env bash
# What: odata-query's SQL visitors translate contains(name,'srv_01') to LIKE '%srv__01%'. The underscore is doubled,
#   and there is no ESCAPE clause. In SQL two underscores mean "any two characters", so the name itself is not found.
# Why it matters: machine names hold underscores. A filter that finds nothing looks like a machine that is not there.
# Instead: build the pattern yourself with an escape character and ESCAPE, or use instr(), and test it with '_' and '%'.
# Needs: python3 with venv. The warning about the type of `name` has nothing to do with it: srv-01 has it too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "odata-query==0.10.0"
"$work/venv/bin/python" - <<'PY'
import sqlite3
import sys
from importlib.metadata import version

from odata_query.grammar import ODataLexer, ODataParser
from odata_query.sql import AstToSqliteSqlVisitor

names = ["srv_01", "srv-01", "srvxx01"]
db = sqlite3.connect(":memory:")
db.execute("CREATE TABLE machine (name TEXT)")
db.executemany("INSERT INTO machine VALUES (?)", [(name,) for name in names])

seen = {}
for literal in ("srv_01", "srv-01"):
    tree = ODataParser().parse(ODataLexer().tokenize(f"contains(name,'{literal}')"))
    where = AstToSqliteSqlVisitor().visit(tree)
    rows = [row[0] for row in db.execute(f"SELECT name FROM machine WHERE {where}")]
    seen[literal] = (where, rows)

print("package:  odata-query", version("odata-query"), "with SQLite", sqlite3.sqlite_version)
print("machines:", names)
print("expected: contains(name,'srv_01') finds srv_01 and nothing else")
print("          (OData 4.01 part 2, URL conventions, function contains: the second string is a substring of the first)")
for literal, (where, rows) in seen.items():
    print(f"seen:     contains(name,'{literal}') => {where} => {rows}")

surprise = seen["srv_01"][1] == ["srvxx01"] and seen["srv-01"][1] == ["srv-01"]
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
