#!/usr/bin/env bash
# What: npm's cron computes a run that is not on the schedule when the clock moves by half an hour. On Lord Howe
#   Island, 4 October 2026, the clock goes from 02:00 to 02:30. "45 2 * * *" runs at 01:45 and again at 02:45, though
#   02:45 exists on that day. In zones whose change is a whole hour the same expression runs once.
# Why it matters: a job that sends one scan a day sends two, the first one half an hour too early.
# Instead: compute in UTC, or keep what has run for which local date, and test a zone with a change of 30 minutes.
# Needs: Node.js 20 and npm. The rules of both zones have been the same for years.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --no-save --prefix "$work" cron@4.4.0 luxon@3.7.2 >/dev/null
cat >"$work/run.cjs" <<'JS'
const { CronTime } = require("cron");
const { version } = require("cron/package.json");

function runs(expression, zone, from, count) {
  const time = new CronTime(expression, zone);
  const found = [];
  let at = new Date(from);
  for (let i = 0; i < count; i += 1) {
    at = time.getNextDateFrom(at, zone).toJSDate();
    found.push(at.toISOString());
  }
  return found;
}

const half = runs("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 3);
const whole = runs("45 3 * * *", "Australia/Sydney", "2026-10-03T12:00:00Z", 3);
const local = (iso, zone) =>
  new Date(iso).toLocaleString("sv-SE", { timeZone: zone, timeZoneName: "longOffset" });

console.log(`package:  cron ${version} (npm) on Node.js ${process.version}`);
console.log("expected: 45 2 * * * runs once a day, at 02:45");
console.log("          (the package's README: the fields are minute, hour, and so on; the time zone is honoured)");
console.log("seen:     Australia/Lord_Howe, where 02:00 becomes 02:30:");
for (const iso of half) console.log(`              ${iso} = ${local(iso, "Australia/Lord_Howe")}`);
console.log("          Australia/Sydney, where 02:00 becomes 03:00, with 45 3 * * *:");
for (const iso of whole) console.log(`              ${iso} = ${local(iso, "Australia/Sydney")}`);

const surprise =
  half[0] === "2026-10-03T15:15:00.000Z" &&
  half[1] === "2026-10-03T15:45:00.000Z" &&
  half[2] === "2026-10-04T15:45:00.000Z" &&
  whole[0] === "2026-10-03T16:45:00.000Z" &&
  whole[1] === "2026-10-04T16:45:00.000Z";
console.log(surprise ? "the surprise is still there" : "CHANGED: the behaviour is not as described");
process.exit(surprise ? 0 : 1);
JS
node "$work/run.cjs"
