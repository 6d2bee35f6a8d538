# shellcheck shell=bash
# The tools of the packages, each at one version; the scripts that make packages source this file.

# shellcheck disable=SC2034 # The scripts use them.
readonly AUDITABLE_VERSION=0.7.7 CYCLONEDX_VERSION=0.5.9 DEB_VERSION=3.8.0

# Installs a tool into target/tools, unless this version is there or where cargo installs by default.
pinned() {
    local name=$1 version=$2
    export PATH="$PWD/target/tools/bin:$PATH"
    if ! { cargo install --list && cargo install --list --root target/tools; } 2>/dev/null | grep "^$name v$version:" >/dev/null; then
        CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --root target/tools "$name" --version "$version" >&2
    fi
}
