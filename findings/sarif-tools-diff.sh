#!/usr/bin/env bash
# What: sarif-tools cuts a message that begins with the rule's id, as many linters write it, down to one character.
#   The CSV file has an empty description, and `sarif diff` sees no difference between two different results of one
#   rule: one repaired and one new are "no changes".
# Why it matters: the comparison of two builds hides a new result, though the files differ.
# Instead: compare by ruleId, whole message and location, or by partialFingerprints, which SARIF has for that purpose.
# Known upstream: microsoft/sarif-tools issue 109, with pull request 115, not in this release.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "sarif-tools==3.0.5"

log() { # MESSAGE: a SARIF file with one warning
    cat <<JSON
{"version": "2.1.0", "\$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": [{
  "tool": {"driver": {"name": "linter", "rules": [{"id": "L100"}]}},
  "results": [{"ruleId": "L100", "level": "warning", "message": {"text": "$1"},
    "locations": [{"physicalLocation": {"artifactLocation": {"uri": "a.c"}, "region": {"startLine": 3}}}]}]}]}
JSON
}
compare() { # OLD NEW: the line of `sarif diff` about warnings
    mkdir -p "$work/old" "$work/new"
    log "$1" >"$work/old/a.sarif"
    log "$2" >"$work/new/a.sarif"
    "$work/venv/bin/sarif" diff "$work/old" "$work/new" | grep '^warning level'
}

plain=$(compare "name is too short" "file is never closed")
prefixed=$(compare "L100: name is too short" "L100: file is never closed")
"$work/venv/bin/sarif" csv -o "$work/new.csv" "$work/new" >/dev/null
row=$(tail -n 1 "$work/new.csv" | tr -d '\r')

echo "package:  $("$work/venv/bin/sarif" --version)"
echo "expected: one new warning and one that is gone, with and without the rule's id in the message"
echo "          (the package's README: diff reports the difference between two sets of files; SARIF 2.1.0 section"
echo "          3.27.11: the message describes the result)"
echo "seen:     'name is too short' to 'file is never closed':             $plain"
echo "          'L100: name is too short' to 'L100: file is never closed': $prefixed"
echo "          the row of the CSV file: $row"

if [[ $plain == "warning level: +1 -1" && $prefixed == "warning level: +0 -0 no changes" &&
    $row == "linter,warning,L100,,a.c,3" ]]; then
    echo "the surprise is still there"
else
    echo "CHANGED: the behaviour is not as described"
    exit 1
fi
