#!/usr/bin/env bash
# Makes the Debian package. Needs cargo-deb (`cargo install cargo-deb --locked`) and dpkg-dev.
#
#   packaging/deb/build.sh [--no-build] [--fast] [--deb-version VERSION] [--output FILE]
#
# --no-build takes target/release/sweepd as it is; --fast makes a larger package sooner. The path of the package goes to standard output.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

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
    cargo build --release --locked --bin sweepd
fi
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

# The same commit makes the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
cat >"$made/changelog" <<END
sweepd ($version) unstable; urgency=medium

  * What changed for users is in /usr/share/doc/sweepd/changelog.gz.

 -- $maintainer  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END

cargo deb "${options[@]}" --no-build --quiet --locked --deb-version "$version" --output "$output" >&2
printf '%s\n' "$output"
