#!/usr/bin/env bash
# Builds target/release/sweepd as it is shipped: the program lists the crates that it is made of (`cargo auditable`),
# holds no path of the machine that built it, and is the same byte for byte wherever this commit is built with
# this toolchain. `cargo build --release` makes a program that does the same without any of that.
#
#   packaging/release.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=packaging/tools.sh
source packaging/tools.sh

pinned cargo-auditable "$AUDITABLE_VERSION"
# Before the folders below are listed: they hold the sources of the crates.
cargo fetch --quiet --locked

home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
commit=$(rustc --version --verbose | sed -n 's/^commit-hash: //p')
declare -a moved=("$PWD=/usr/src/sweepd" "$sysroot/lib/rustlib/src/rust=/rustc/$commit")
for each in "$home"/registry/src/*/; do
    moved+=("${each%/}=/usr/src/crates")
done

# Both replace what this machine's environment and configuration say.
flags=
CFLAGS=
for each in "${moved[@]}"; do
    flags+=${flags:+$'\x1f'}--remap-path-prefix=$each
    # SQLite and the cryptography are C.
    CFLAGS+=" -ffile-prefix-map=$each"
done
export CARGO_ENCODED_RUSTFLAGS=$flags CFLAGS CARGO_TARGET_DIR=$PWD/target
cargo auditable build --quiet --release --locked --bin sweepd

readonly binary=target/release/sweepd
for each in "$PWD" "$home" "$sysroot"; do
    if grep --quiet --text --fixed-strings -e "$each/" "$binary"; then
        printf '%s: %s holds the path %s: it must not be shipped\n' "$0" "$binary" "$each" >&2
        exit 1
    fi
done
if ! readelf --wide --section-headers "$binary" | grep --quiet --fixed-strings .dep-v0; then
    printf '%s: %s does not list its crates (no section .dep-v0): it must not be shipped\n' "$0" "$binary" >&2
    exit 1
fi
