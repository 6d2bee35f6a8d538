#!/usr/bin/env bash
# What: univers translates version ranges of package managers to `vers`, the notation of CycloneDX, CSAF and VEX tools.
#   It reads npm's "<=1.2" as <=1.2.0, so 1.2.5 is outside. npm reads it as below 1.3.0. ">1.2" is wrong the other way:
#   1.2.5 is inside for univers and outside for npm. "~1.2" and "1.2.3 - 2.3" are translated rightly.
# Why it matters: an advisory for "<=1.2" does not match a machine that has 1.2.5, and none of the tools warns.
# Instead: ask the package manager's own library (npm's semver), or write all three numbers in a range.
# Needs: python3 with venv, Node.js 20 and npm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "univers==32.0.1"
npm install --silent --no-audit --no-fund --prefix "$work" semver@7.7.2 >/dev/null
cat >"$work/range.cjs" <<'JS'
const semver = require("semver");
const [range, version] = process.argv.slice(2);
console.log(JSON.stringify({ range: semver.validRange(range), inside: semver.satisfies(version, range) }));
JS
"$work/venv/bin/python" - "$work/range.cjs" <<'PY'
import json
import subprocess
import sys
from importlib.metadata import version

from univers.version_range import NpmVersionRange
from univers.versions import SemverVersion

candidate = "1.2.5"
seen = {}
print("packages: univers", version("univers"), "(PyPI) and semver 7.7.2 (npm)")
print("expected: both agree on", candidate)
print("          (node-semver README, X-ranges: a partial version is an X-range, so <=1.2 is <1.3.0 and >1.2 is >=1.3.0)")
for text in ("<=1.2", ">1.2", "~1.2", "1.2.3 - 2.3"):
    ours = NpmVersionRange.from_native(text)
    npm = json.loads(subprocess.check_output(["node", sys.argv[1], text, candidate]))
    seen[text] = (SemverVersion(candidate) in ours, npm["inside"])
    print(f"seen:     {text:12} univers: {ours!s:27} {seen[text][0]!s:6} npm: {npm['range']:17} {seen[text][1]}")

surprise = seen == {"<=1.2": (False, True), ">1.2": (True, False), "~1.2": (True, True), "1.2.3 - 2.3": (True, True)}
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
