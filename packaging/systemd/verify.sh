#!/usr/bin/env bash
# Shows that the package and its unit hold what they promise, on a real systemd: makes a minimal Debian
# root, boots it twice in systemd-nspawn, and has verify-inside.sh look. As root, with debootstrap and
# systemd-container. Prints a line for each check, and ends with 1 if one does not hold.
#
#   packaging/systemd/verify.sh [--work FOLDER] [--mirror URL] [--suite NAME] [--no-build]
#
# --work keeps everything there, the root for the next time too; else it is a folder that goes away.
# --no-build packages target/release/sweepd as it is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly patience=600
work=
declare -a root_options=() build_options=()
while (($#)); do
    case $1 in
    --work) work=${2:?--work wants a folder} && shift ;;
    --mirror | --suite) root_options+=("$1" "${2:?$1 wants a value}") && shift ;;
    --no-build) build_options+=(--no-build) ;;
    *)
        printf '%s: unknown argument %s\n' "$0" "$1" >&2
        exit 2
        ;;
    esac
    shift
done

declare -a passing=()
container=
tidy() {
    if [[ -n $container ]]; then
        kill "$container" 2>/dev/null || true
        wait "$container" || true
    fi
    if ((${#passing[@]})); then
        rm -rf -- "${passing[@]}"
    fi
}
trap tidy EXIT
if [[ -z $work ]]; then
    work=$(mktemp -d)
    passing+=("$work")
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)

"$here/../debian-root.sh" "${root_options[@]}" "$work/root" systemd systemd-sysv dbus ca-certificates jq

rm -rf "$work/share" "$work/machine"
mkdir "$work/share"
# The same program under two versions: what an upgrade does is the package's, not the program's.
"$here/../deb/build.sh" "${build_options[@]}" --fast --deb-version 0.0.1-1 --output "$work/share/older.deb" >&2
"$here/../deb/build.sh" --no-build --fast --output "$work/share/newer.deb" >&2
cp "$here/verify-inside.sh" "$here/../checks.sh" "$work/share/"

# A machine of its own each time: what a run leaves behind must not help the next.
cp -a --reflink=auto "$work/root" "$work/machine"
passing+=("$work/machine")
cat >"$work/machine/etc/systemd/system/verify.service" <<'END'
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash /verify/verify-inside.sh

[Install]
WantedBy=graphical.target
END
mkdir -p "$work/machine/etc/systemd/system/graphical.target.wants"
ln -s ../verify.service "$work/machine/etc/systemd/system/graphical.target.wants/verify.service"
ln -sf /lib/systemd/system/graphical.target "$work/machine/etc/systemd/system/default.target"
mkdir "$work/machine/verify"

# Boots the machine, and shows what is written there until it is off.
boot() {
    local report=$work/share/report
    timeout --kill-after=30 "$patience" \
        systemd-nspawn --directory="$work/machine" --bind="$work/share:/verify" --private-network \
        --register=no --keep-unit --boot --console=pipe </dev/null >"$work/share/console-$1" 2>&1 &
    container=$!
    tail --follow --lines="+$(($(wc -l <"$report") + 1))" --pid="$container" "$report"
    wait "$container" || printf 'not ok - the machine ended with %s\n' "$?" >>"$report"
    container=
}

: >"$work/share/report"
for phase in first second; do
    printf '%s\n' "$phase" >"$work/share/phase"
    printf '# the %s boot\n' "$phase" >>"$work/share/report"
    boot "$phase"
done

held=$(grep -c '^ok ' "$work/share/report" || true)
broken=$(grep -c '^not ok ' "$work/share/report" || true)
if ! grep -q '^# all was looked at$' "$work/share/report"; then
    printf 'not ok - the checks ended before their end; the last words of the console and the journal:\n'
    tail -n 20 "$work/share/console-first" "$work/share/console-second" "$work/share/journal" 2>/dev/null || true
    broken=$((broken + 1))
fi
printf '%d passed, %d failed\n' "$held" "$broken"
((broken == 0))
