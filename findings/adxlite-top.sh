#!/usr/bin/env bash
# What: adxlite runs Kusto queries on SQLite. `top 1 by alerts` returns the machine with the fewest alerts, because it
#   sorts ascending where Kusto's default is descending. `contains` regards case, where Kusto's does not.
# Why it matters: a hunting query that is tested locally passes or fails for the opposite reason, and says nothing.
# Instead: write `desc` and `asc` in every query, and `tolower()` around both sides, if it has to run in two places.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "adxlite==0.2.3" "adxpandas==0.2.3" "pandas<3"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import pandas as pd
from adxlite import AdxLiteClient

client = AdxLiteClient()
client.ingest("M", pd.DataFrame({"host": ["SRV-1", "srv-2", "db-3"], "alerts": [1, 9, 5]}))


def hosts(query):
    return list(client.query(query)["host"])


top, top_desc = hosts("M | top 1 by alerts"), hosts("M | top 1 by alerts desc")
contains, startswith = hosts('M | where host contains "srv"'), hosts('M | where host startswith "srv"')

print("package:  adxlite", version("adxlite"), "with adxpandas", version("adxpandas"))
print("machines: SRV-1 with 1 alert, srv-2 with 9, db-3 with 5")
print("expected: top 1 by alerts => srv-2 (KQL reference, top operator: the default is desc)")
print("          host contains \"srv\" => SRV-1 and srv-2 (KQL reference, string operators: contains is case-insensitive)")
print("seen:     top 1 by alerts        =>", top)
print("          top 1 by alerts desc   =>", top_desc)
print('          host contains "srv"    =>', contains)
print('          host startswith "srv"  =>', startswith)

surprise = top == ["SRV-1"] and top_desc == ["srv-2"] and contains == ["srv-2"] and len(startswith) == 2
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
