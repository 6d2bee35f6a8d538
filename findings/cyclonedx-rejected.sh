#!/usr/bin/env bash
# What: cyclonedx-python-lib reads a CycloneDX 1.6 file and writes it again without `rejected`, the date on which a
#   vulnerability record was withdrawn. The vulnerability comes out as a live one. `compositions`, which says that
#   the inventory is incomplete, is lost as well, and so is `provides` of a dependency. There is no warning.
# Why it matters: a tool that only adds a property to a file brings withdrawn findings back to life.
# Instead: change the JSON itself, or compare the keys before and after, and stop if one is missing.
# Needs: python3 with venv.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "cyclonedx-python-lib[json-validation]==11.12.0"
"$work/venv/bin/python" - <<'PY'
import json
import sys
import warnings
from importlib.metadata import version

from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

source = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [{"type": "library", "bom-ref": "a", "name": "a", "version": "1"}],
    "dependencies": [{"ref": "a", "provides": ["a"]}],
    "compositions": [{"aggregate": "incomplete", "assemblies": ["a"]}],
    "vulnerabilities": [
        {"bom-ref": "v", "id": "CVE-2026-0000", "rejected": "2026-01-03T00:00:00Z", "affects": [{"ref": "a"}]}
    ],
}
valid = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(source)) is None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    result = json.loads(JsonV1Dot6(Bom.from_json(json.loads(json.dumps(source)))).output_as_string())
about_loss = [str(warning.message) for warning in caught if "reject" in str(warning.message).lower()]

print("package:  cyclonedx-python-lib", version("cyclonedx-python-lib"))
print("expected: a file that is valid after CycloneDX 1.6 keeps what it says when it is read and written as 1.6")
print("          (CycloneDX 1.6 JSON reference: vulnerabilities[].rejected, compositions, dependencies[].provides)")
print("seen:     valid by the library's own strict validator:", valid)
print("          before:", json.dumps(source["vulnerabilities"][0]))
print("          after: ", json.dumps(result["vulnerabilities"][0]))
print("          compositions kept:", "compositions" in result)
print("          provides kept:    ", any("provides" in entry for entry in result["dependencies"]))
print("          warnings about it:", about_loss)

surprise = (
    valid
    and "rejected" not in result["vulnerabilities"][0]
    and "compositions" not in result
    and not any("provides" in entry for entry in result["dependencies"])
    and not about_loss
)
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
