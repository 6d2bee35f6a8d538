# shellcheck shell=bash
# What the scripts that verify packages have in common; they source it. Checks are told on file descriptor 3.

held=0
broken=0
# Tells of a check: its name, what was seen, and the words of a test that has to hold.
check() {
    local name=$1 seen=${2//$'\n'/; }
    shift 2
    if "$@" >/dev/null 2>&1; then
        held=$((held + 1))
        printf 'ok - %s%s\n' "$name" "${seen:+ # $seen}" >&3
    else
        broken=$((broken + 1))
        printf 'not ok - %s%s\n' "$name" "${seen:+ # $seen}" >&3
    fi
}

same() { [[ $1 == "$2" ]]; }
holds() { [[ $1 == *"$2"* ]]; }
fails() { ! "$@"; }
between() { (($1 >= $2 && $1 <= $3)); }

# Waits for a command to hold; at most so many tenths of a second.
within() {
    local tenths=$1
    shift
    for ((i = 0; i < tenths; i++)); do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}
