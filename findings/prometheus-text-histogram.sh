#!/usr/bin/env bash
# What: parse-prometheus-text-format merges all series of a histogram into one. The labels are gone, sum and count are
#   gone, and the buckets are those of the last series in the text. Counters and gauges keep their labels.
# Why it matters: a health check that reads a latency per tenant from /metrics reads one tenant's, without its name.
# Instead: read _bucket, _sum and _count as plain samples, and group them by all labels but `le`.
# Needs: Node.js 20 and npm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --prefix "$work" parse-prometheus-text-format@1.1.1 >/dev/null
cat >"$work/read.mjs" <<'JS'
import module from "parse-prometheus-text-format";

const parse = module.default ?? module;
const series = (tenant, low, all, sum) => `call_seconds_bucket{tenant="${tenant}",le="0.1"} ${low}
call_seconds_bucket{tenant="${tenant}",le="+Inf"} ${all}
call_seconds_sum{tenant="${tenant}"} ${sum}
call_seconds_count{tenant="${tenant}"} ${all}
`;
const histogram = `# TYPE call_seconds histogram\n${series("a", 1, 2, 3.5)}${series("b", 7, 9, 1.5)}`;
const counter = '# TYPE calls_total counter\ncalls_total{tenant="a"} 2\ncalls_total{tenant="b"} 9\n';

const found = parse(histogram)[0].metrics;
const counted = parse(counter)[0].metrics;
console.log("package:  parse-prometheus-text-format 1.1.1 (npm)");
console.log("expected: two series, one for each tenant, each with its buckets, sum and count");
console.log("          (Prometheus exposition formats, section on histograms: a histogram is a set of samples per label set)");
console.log(`seen:     histogram: ${JSON.stringify(found)}`);
console.log(`          counter:   ${JSON.stringify(counted)}`);

const surprise =
  JSON.stringify(found) === '[{"buckets":{"0.1":"7","+Inf":"9"}}]' &&
  counted.length === 2 && counted[0].labels.tenant === "a";
console.log(surprise ? "the surprise is still there" : "CHANGED: the behaviour is not as described");
process.exit(surprise ? 0 : 1);
JS
node "$work/read.mjs"
