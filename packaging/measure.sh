#!/usr/bin/env bash
# Measures what sweepd takes: how large the program is, how soon it is ready with a long queue, and how
# much memory and processor it takes when it has nothing to do. Fails if that is more than is promised.
#
#   packaging/measure.sh [--binary FILE] [--machines N] [--seconds N]
#
# --machines is the length of the queue (a million), --seconds how long it is watched while idle (300).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
binary=$here/../target/release/sweepd
machines=1000000
seconds=300
while (($#)); do
    case $1 in
    --binary) binary=${2:?--binary wants a file} ;;
    --machines) machines=${2:?--machines wants a number} ;;
    --seconds) seconds=${2:?--seconds wants a number} ;;
    *)
        printf '%s: unknown argument %s\n' "$0" "$1" >&2
        exit 2
        ;;
    esac
    shift 2
done

work=$(mktemp -d)
declare -a started=()
daemon=
tidy() {
    kill ${daemon:+"$daemon"} "${started[@]}" 2>/dev/null || true
    wait
    rm -rf -- "$work"
}
trap tidy EXIT

broken=0
# Tells a figure in thousandths of its unit, and what it may be at most.
figure() {
    local name=$1 value=$2 most=$3 unit=$4 verdict=ok
    if ((value > most)); then
        verdict='not ok'
        broken=$((broken + 1))
    fi
    printf '%s - %s: %d.%03d %s, of at most %d.%03d\n' "$verdict" "$name" $((value / 1000)) $((value % 1000)) "$unit" $((most / 1000)) $((most % 1000))
}

sweepd() { "$binary" --config "$work/sweepd.toml" "$@"; }

# Starts the daemon; returns when it is ready, with the milliseconds in `took`.
start() {
    local began=${EPOCHREALTIME/./} line
    exec 3< <(exec "$binary" --config "$work/sweepd.toml" run 2>&1)
    daemon=$!
    while read -r line <&3 && [[ $line != *'"message":"ready"'* ]]; do :; done
    took=$(((${EPOCHREALTIME/./} - began) / 1000))
    cat <&3 >/dev/null &
}

stop() {
    kill "$daemon"
    tail --pid="$daemon" --follow /dev/null
    daemon=
}

ticks() { awk '{print $14 + $15}' "/proc/$daemon/stat"; }
resident() { awk '/^VmRSS:/ {print int($2 * 1000 / 1024)}' "/proc/$daemon/status"; }

idle() {
    local name=$1 before hertz
    # The first minute has the sign-in and the first look at the list.
    sleep 60
    before=$(ticks)
    hertz=$(getconf CLK_TCK)
    sleep "$seconds"
    figure "processor, $name, over $seconds s" $((($(ticks) - before) * 100000 / hertz / seconds)) 100 '% of a core'
    figure "memory, $name" "$(resident)" 30000 MiB
}

figure 'the program' $(($(stat --format=%s "$binary") * 1000 / 1024 / 1024)) 25000 MiB

"$binary" simulator --machines 10 >"$work/simulator" &
started+=("$!")
until grep --quiet '^# [0-9a-f]' "$work/simulator"; do sleep 0.1; done
sed -n "s/^# printf '%s' '\(.*\)' > contoso-secret/\1/p" "$work/simulator" | install -m 0600 /dev/stdin "$work/contoso-secret"
{
    grep -v '^#' "$work/simulator"
    printf '[daemon]\nstate_dir = "%s/state"\n[http]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n[intake]\nhold_above = 0\n' "$work"
} >"$work/sweepd.toml"

start
idle 'with nothing to do'
sweepd pause >/dev/null
seq 1 "$machines" | awk '{printf "%040x\n", $1}' >"$work/state/spool/incoming/.list"
mv "$work/state/spool/incoming/.list" "$work/state/spool/incoming/list.txt"
until [[ -e $work/state/spool/processed/list.txt.receipt.json ]]; do sleep 0.2; done
stop
printf '# %s jobs are a database of %s\n' "$machines" "$(du --human-readable "$work/state/sweepd.db" | cut -f 1)"
for _ in 1 2 3 4 5; do
    start
    figure "from start to ready with $machines jobs queued" "$took" 1000 s
    stop
done
start
for _ in 1 2 3 4 5; do
    began=${EPOCHREALTIME/./}
    sweepd status >/dev/null
    figure "status with $machines jobs queued" $((${EPOCHREALTIME/./} - began)) 100000 ms
done
idle "with $machines jobs queued, paused"
stop
((broken == 0))
