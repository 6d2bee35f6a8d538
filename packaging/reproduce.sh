#!/usr/bin/env bash
# Shows that a commit makes the same package wherever it is built: clones it into two folders, builds both, and compares
# program, SBOM and package byte for byte. Takes the time of two release builds. Ends with 1 if anything differs.
#
#   packaging/reproduce.sh [COMMIT]
#
# It shows it for this machine's toolchain: another version of rustc, gcc or a library of C makes another program.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
commit=$(git rev-parse --verify "${1:-HEAD}^{commit}")
repository=$PWD
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# Paths of different lengths, so that a path which is left in the program cannot go unnoticed.
readonly -a folders=("$work/one" "$work/another/and/longer")
for each in "${folders[@]}"; do
    git clone --quiet --no-checkout "$repository" "$each"
    git -C "$each" checkout --quiet --detach "$commit"
    mkdir -p "$repository/target/tools" "$each/target"
    ln -s "$repository/target/tools" "$each/target/tools"
    "$each/packaging/deb/build.sh" --output "$each/target/sweepd.deb" >/dev/null
done

broken=0
for each in release/sweepd packaging/sweepd.cdx.json sweepd.deb; do
    if cmp "${folders[0]}/target/$each" "${folders[1]}/target/$each"; then
        printf 'ok - %s # %s\n' "$each" "$(sha256sum <"${folders[0]}/target/$each" | cut -d' ' -f1)"
    else
        printf 'not ok - %s differs\n' "$each"
        broken=1
    fi
done
exit "$broken"
