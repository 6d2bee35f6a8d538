#!/usr/bin/env bash
# What: p-throttle's strict mode promises that the limit is not exceeded for any interval. It books a time for each
#   call in advance and never looks at when the call was really made. When the event loop is busy past that time, the
#   late calls run together with the next ones: six calls within one second, where three are allowed.
# Why it matters: the server counts what it receives. Every pause of a process turns into a 429.
# Instead: count from the time at which a call was made, and book the next one from there.
# Needs: Node.js 20 and npm. The pause is made on purpose, with a wait that blocks the loop, as a large parse would.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --prefix "$work" p-throttle@8.1.1 >/dev/null
cat >"$work/run.mjs" <<'JS'
import pThrottle from "p-throttle";

const limit = 3;
const interval = 1000;

async function times(pause) {
  const start = performance.now();
  const made = [];
  const call = pThrottle({ limit, interval, strict: true })(() => made.push(Math.round(performance.now() - start)));
  const calls = Array.from({ length: 9 }, () => call());
  setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause), interval - 100);
  await Promise.all(calls);
  return made;
}

const most = (made) => Math.max(...made.map((from) => made.filter((at) => at >= from && at < from + interval).length));
const busy = await times(900);

console.log("package:  p-throttle 8.1.1 (npm), limit 3, interval 1000 ms, strict, nine calls at once");
console.log("expected: at most 3 calls in any 1000 ms");
console.log("          (the package's README, option strict: it ensures that the limit is not exceeded for any interval)");
console.log(`seen:     with a pause of 900 ms before the second interval, calls at ${busy.join(", ")} ms`);
console.log(`          most calls in 1000 ms: ${most(busy)}`);

const surprise = most(busy) >= 5;
console.log(surprise ? "the surprise is still there" : "CHANGED: the behaviour is not as described");
process.exit(surprise ? 0 : 1);
JS
node "$work/run.mjs"
