#!/usr/bin/env bash
# What: MSAL for Python does not read a Retry-After that holds a date. The sign-in service says "again in 2 seconds";
#   MSAL answers the following calls from its own cache, with the old error and without a request, for a minute.
#   With the same wait as a number of seconds it asks again after two seconds.
# Why it matters: the caller obeys the header, retries, and gets an error that the service has not sent.
# Instead: read both forms of Retry-After, and log whether an error came over the network.
# Needs: python3 with venv. No request leaves the machine: MSAL is given an HTTP client that answers by itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "msal==1.39.0"
"$work/venv/bin/python" - <<'PY'
import email.utils
import json
import sys
import time

import msal

TENANT = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555"
METADATA = {"token_endpoint": f"{TENANT}/oauth2/v2.0/token", "authorization_endpoint": f"{TENANT}/oauth2/v2.0/authorize",
            "issuer": f"{TENANT}/v2.0"}
TOKEN = {"access_token": "not-a-real-token", "expires_in": 3600, "token_type": "Bearer"}


class Answer:
    def __init__(self, status, body, headers=None):
        self.status_code, self.text, self.headers = status, json.dumps(body), headers or {}

    def raise_for_status(self):
        pass


class Client:
    """Answers the first request for a token with 429, and each later one with a token."""

    def __init__(self, retry_after):
        self.retry_after, self.posts = retry_after, 0

    def get(self, url, **_):
        return Answer(200, METADATA)

    def post(self, url, **_):
        self.posts += 1
        if self.posts == 1:
            return Answer(429, {"error": "temporarily_unavailable"}, {"Retry-After": self.retry_after})
        return Answer(200, TOKEN)

    def close(self):
        pass


def ask_twice(retry_after):
    client = Client(retry_after)
    app = msal.ConfidentialClientApplication(
        "66666666-7777-8888-9999-000000000000", client_credential="placeholder", authority=TENANT,
        http_client=client, instance_discovery=False)
    answers = []
    for pause in (0, 4):
        time.sleep(pause)
        answers.append(app.acquire_token_for_client(["https://api.example/.default"]))
    return ["token" if "access_token" in answer else answer["error"] for answer in answers], client.posts


in_two_seconds = email.utils.formatdate(time.time() + 2, usegmt=True)
by_number, by_date = ask_twice("2"), ask_twice(in_two_seconds)

print("package:  msal", msal.__version__)
print("expected: a second call after 4 s goes to the service, for both forms")
print("          (RFC 9110 section 10.2.3: Retry-After is an HTTP-date or a number of seconds)")
for name, (answers, posts) in (("a number, 2", by_number), ("a date in 2 s", by_date)):
    print(f"seen:     {name:14} first: {answers[0]}, after 4 s: {answers[1]}, requests sent: {posts}")

surprise = by_number == (["temporarily_unavailable", "token"], 2) and by_date == (["temporarily_unavailable"] * 2, 1)
print("the surprise is still there" if surprise else "CHANGED: the behaviour is not as described")
sys.exit(0 if surprise else 1)
PY
