#!/usr/bin/env bash
# Makes the Debian package. Needs dpkg-dev; the cargo tools that are missing are installed into target/tools.
#
#   packaging/deb/build.sh [--no-build] [--fast] [--deb-version VERSION] [--output FILE]
#
# --no-build takes target/release/sweepd as it is; --fast makes a larger package sooner. The path of the package goes to standard output.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=packaging/tools.sh
source packaging/tools.sh

build=yes
version=
output=
declare -a options=()
while (($#)); do
    case $1 in
    --no-build) build=no ;;
    --fast) options+=(--fast) ;;
    --deb-version) version=${2:?--deb-version wants a version} && shift ;;
    --output) output=${2:?--output wants a file} && shift ;;
    *)
        printf '%s: unknown argument %s\n' "$0" "$1" >&2
        exit 2
        ;;
    esac
    shift
done

readonly binary=target/release/sweepd made=target/packaging
if [[ $build == yes ]]; then
    packaging/release.sh
fi
pinned cargo-cyclonedx "$CYCLONEDX_VERSION"
pinned cargo-deb "$DEB_VERSION"
if [[ -z $version ]]; then
    version=$(cargo pkgid | sed 's/.*[#@]//')-1
fi
output=${output:-target/debian/sweepd_${version}_$(dpkg --print-architecture).deb}

rm -rf "$made"
mkdir -p "$made/completions"
"$binary" man --all "$made/man"
"$binary" completions bash >"$made/completions/sweepd.bash"
"$binary" completions zsh >"$made/completions/_sweepd"
"$binary" completions fish >"$made/completions/sweepd.fish"

# The same commit makes the same package: packaging/reproduce.sh.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

# What the program is made of, for tools that know CycloneDX. With SOURCE_DATE_EPOCH it gets no random serial number;
# it is written beside Cargo.toml and names this folder.
cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename sweepd.cdx >&2
sed "s|path+file://$PWD#|path+file:///usr/src/sweepd#|" sweepd.cdx.json >"$made/sweepd.cdx.json"
rm sweepd.cdx.json

maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
cat >"$made/changelog" <<END
sweepd ($version) unstable; urgency=medium

  * What changed for users is in /usr/share/doc/sweepd/changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END

cargo deb "${options[@]}" --no-build --quiet --locked --deb-version "$version" --output "$output" >&2
printf '%s\n' "$output"
