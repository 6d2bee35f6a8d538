#!/usr/bin/env bash
# Builds the Dockerfile and runs what comes of it, where no image can be pulled: the base images are made
# from Debian roots, with this machine's Rust toolchain copied in, and take the place of those that the
# Dockerfile names. As root, with buildah, debootstrap, systemd-container, iproute2 and jq. Prints a line for each
# check, and ends with 1 if one does not hold.
#
#   packaging/docker/verify.sh [--work FOLDER] [--mirror URL] [--suite NAME] [--no-build]
#
# --work keeps everything there, the base images for the next time too; else it is a folder that goes away.
# --no-build looks at the image that was built there the last time.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly build_image=localhost/sweepd-verify-rust:latest base_image=localhost/sweepd-verify-debian:latest
readonly image=localhost/sweepd:verify network=sweepd-verify-$$
export BUILDAH_ISOLATION=chroot
work=
build=yes
declare -a root_options=()
while (($#)); do
    case $1 in
    --work) work=${2:?--work wants a folder} && shift ;;
    --mirror | --suite) root_options+=("$1" "${2:?$1 wants a value}") && shift ;;
    --no-build) build=no ;;
    *)
        printf '%s: unknown argument %s\n' "$0" "$1" >&2
        exit 2
        ;;
    esac
    shift
done

declare -a passing=() started=()
tidy() {
    if ((${#started[@]})); then
        kill "${started[@]}" 2>/dev/null || true
        wait "${started[@]}" || true
    fi
    ip netns delete "$network" 2>/dev/null || true
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

buildah() { command buildah --storage-driver vfs --root "$work/storage" --runroot "$work/runroot" "$@"; }

exec 3>&1
# shellcheck source=packaging/checks.sh
source "$here/../checks.sh"

# Makes an image of a folder, under a name, unless there is one.
image_of() {
    local folder=$1 name=$2 container
    shift 2
    if buildah inspect --type image "$name" >/dev/null 2>&1; then
        return
    fi
    container=$(buildah from scratch)
    cp -a "$folder/." "$(buildah mount "$container")/"
    buildah unmount "$container" >/dev/null
    if (($#)); then
        buildah config "$@" "$container"
    fi
    buildah commit --quiet --rm "$container" "$name" >/dev/null
}

base_images() {
    local toolchain
    toolchain=$(rustc --print sysroot)
    "$here/../debian-root.sh" "${root_options[@]}" "$work/debian"
    image_of "$work/debian" "$base_image"
    if [[ ! -d $work/rust ]]; then
        cp -a --reflink=auto "$work/debian" "$work/rust.unfinished"
        mkdir -p "$work/rust.unfinished/usr/local/rust"
        tar -C "$toolchain" --exclude=./share/doc -c . | tar -C "$work/rust.unfinished/usr/local/rust" -x
        mv "$work/rust.unfinished" "$work/rust"
    fi
    image_of "$work/rust" "$build_image" --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --env CARGO_HOME=/usr/local/cargo
}

build() {
    # What this machine has of the dependencies need not be fetched again.
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry
    mkdir -p "$registry"
    buildah bud --pull-never --format docker --layers=false --tag "$image" \
        --build-arg "BUILD_IMAGE=$build_image" --build-arg "BASE_IMAGE=$base_image" \
        --volume "$registry:/usr/local/cargo/registry" "$here/../.." >"$work/build.log" 2>&1
}

inspect() { buildah inspect --type image "$image" | jq --compact-output ".Docker.config.$1"; }

looks_right() {
    check 'it is not root that runs it' "$(inspect User)" same "$(inspect User)" '"10464:10464"'
    check 'it has one volume' "$(inspect Volumes)" same "$(inspect Volumes)" '{"/var/lib/sweepd":{}}'
    check 'it is told to stop by SIGTERM' "$(inspect StopSignal)" same "$(inspect StopSignal)" '"SIGTERM"'
    check 'it says how its health is found out' "$(inspect Healthcheck)" fails same "$(inspect Healthcheck)" null
    check 'it holds one program of ours, under 25 MiB' "$(stat --format='%n: %s bytes' "$root/usr/local/bin/sweepd")" \
        test "$(stat --format=%s "$root/usr/local/bin/sweepd")" -lt $((25 * 1024 * 1024))
    local seen
    seen=$(buildah run "$container" -- sh -c 'id -u && sweepd --version')
    check 'buildah runs it' "$seen" same "${seen%%$'\n'*}" 10464
}

# The simulated tenant, and what the image is mounted with.
surroundings() {
    ip netns add "$network"
    ip netns exec "$network" ip link set lo up
    mkdir -p "$work/run"/{etc,secrets,state}
    ip netns exec "$network" chroot "$root" /usr/local/bin/sweepd simulator --listen 127.0.0.1:8700 >"$work/run/simulator" &
    started+=("$!")
    within 100 grep --quiet '^# [0-9a-f]' "$work/run/simulator" || true
    grep -v '^#' "$work/run/simulator" >"$work/run/etc/sweepd.toml"
    sed -n "s/^# printf '%s' '\(.*\)' > contoso-secret/\1/p" "$work/run/simulator" >"$work/run/secrets/contoso-secret"
    chmod 0400 "$work/run/secrets/contoso-secret"
    # An engine makes the points where something is mounted, whatever is read-only.
    mkdir -p "$root/etc/sweepd"
    # A volume begins as what the image has there.
    cp -a "$root/var/lib/sweepd/." "$work/run/state/"
    chown -R 10464:10464 "$work/run"/{secrets,state}
    chmod 0750 "$work/run/state"
}

# Runs a command as a container engine would run the healthcheck: inside, as the user.
inside() { nsenter --target "$process" --all --setuid 10464 --setgid 10464 -- "$@"; }

healthcheck() {
    declare -a words
    mapfile -t words < <(inspect Healthcheck | jq --raw-output '.Test[1:][]')
    inside "${words[@]}"
}

runs() {
    local each
    declare -a environment=()
    while read -r each; do environment+=("--setenv=$each"); done < <(inspect Env | jq --raw-output '.[]')
    systemd-nspawn --directory="$root" --read-only --user=sweepd --network-namespace-path="/run/netns/$network" \
        --bind="$work/run/state:/var/lib/sweepd" --bind-ro="$work/run/etc:/etc/sweepd" \
        --bind-ro="$work/run/secrets:/run/secrets" "${environment[@]}" --drop-capability=all --no-new-privileges=yes \
        --register=no --keep-unit --console=pipe --kill-signal=SIGTERM -- \
        /usr/local/bin/sweepd run </dev/null >"$work/run/log" 2>&1 &
    local container=$!
    started+=("$container")
    within 300 grep --quiet '"message":"signed in"' "$work/run/log" || true
    process=$(pgrep --oldest --uid 10464 --full '^/usr/local/bin/sweepd run$')
    check 'it runs on a read-only root, and signs in' "$(jq --raw-output .message "$work/run/log" 2>/dev/null | tail -n 2)" \
        grep --quiet '"message":"signed in"' "$work/run/log"
    check 'as the user, without privileges' "$(grep -E '^(Uid|CapEff|NoNewPrivs):' "/proc/$process/status" | tr '\t' ' ')" \
        same "$(awk '/^Uid:/ {print $2} /^CapEff:/ {print $2}' "/proc/$process/status" | tr '\n' ' ')" '10464 0000000000000000 '
    check 'nothing but the volume can be written' "$(inside sh -c 'touch /touched /etc/touched /usr/touched' 2>&1)" \
        fails inside sh -c 'touch /touched || touch /usr/touched'
    check 'the volume can' "" inside touch /var/lib/sweepd/touched
    check 'its HEALTHCHECK says that it is well' "" healthcheck
    sed -n 's/^# \([0-9a-f]\{40\}\)$/\1/p' "$work/run/simulator" | sed -n 1,20p |
        inside sh -c 'cat >/var/lib/sweepd/spool/incoming/list.part && mv /var/lib/sweepd/spool/incoming/list.part /var/lib/sweepd/spool/incoming/list.txt'
    within 300 test -e "$work/run/state/spool/processed/list.txt.receipt.json" || true
    check 'a dropped list is taken' "$(jq --compact-output '[.status, .queued]' "$work/run/state/spool/processed/list.txt.receipt.json")" \
        same "$(jq --raw-output .queued "$work/run/state/spool/processed/list.txt.receipt.json")" 20
    kill -STOP "$process"
    check 'the HEALTHCHECK of a frozen one fails' "" fails timeout 10 nsenter --target "$process" --all --setuid 10464 -- \
        bash -c "$(inspect Healthcheck | jq --raw-output '.Test[-1]')"
    kill -CONT "$process"
    kill -TERM "$process"
    local ended=0
    wait "$container" || ended=$?
    started=("${started[0]}")
    check 'SIGTERM ends it in order' "exit code $ended; $(jq --raw-output .message "$work/run/log" 2>/dev/null | tail -n 1)" same "$ended" 0
}

composes() {
    declare -a parser=(docker compose)
    docker compose version >/dev/null 2>&1 || parser=(docker-compose)
    check 'compose.yaml is what it should be' "${parser[*]}: $("${parser[@]}" --file "$here/compose.yaml" config --services 2>&1 | sort | tr '\n' ' ')" \
        "${parser[@]}" --file "$here/compose.yaml" config --quiet
}

if [[ $build == yes ]]; then
    base_images
    began=$SECONDS
    check 'the image is built' "" build
    printf '# in %s s; the log is %s\n' "$((SECONDS - began))" "$work/build.log"
fi
if ((broken)); then
    tail -n 20 "$work/build.log"
else
    rm -rf "$work/run"
    container=$(buildah from --pull-never "$image")
    root=$(buildah mount "$container")
    looks_right
    surroundings
    runs
    buildah rm "$container" >/dev/null
fi
composes
printf '%d passed, %d failed\n' "$held" "$broken"
((broken == 0))
