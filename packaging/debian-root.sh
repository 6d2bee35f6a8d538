#!/usr/bin/env bash
# Makes a minimal Debian root with debootstrap, as root. One that is there already is left as it is.
#
#   packaging/debian-root.sh [--mirror URL] [--suite NAME] FOLDER [PACKAGE]...
#
# Without --mirror, Debian's packages come from where this machine's own apt has them from.
set -euo pipefail

mirror=
suite=bookworm
while [[ ${1:-} == --* ]]; do
    case $1 in
    --mirror) mirror=${2:?--mirror wants a URL} ;;
    --suite) suite=${2:?--suite wants a name} ;;
    *)
        printf '%s: unknown argument %s\n' "$0" "$1" >&2
        exit 2
        ;;
    esac
    shift 2
done
readonly folder=${1:?which folder?}
shift

if [[ -d $folder ]]; then
    exit 0
fi
if [[ -z $mirror ]]; then
    # shellcheck disable=SC2016 # apt puts the site in.
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" | sed -n 1p)
fi
if [[ -z $mirror ]]; then
    printf '%s: apt has no %s here; say --mirror URL\n' "$0" "$suite" >&2
    exit 2
fi
packages=$(IFS=, && printf '%s' "$*")
printf '%s: making %s, which takes some minutes\n' "$0" "$folder" >&2
rm -rf -- "$folder.unfinished"
mkdir -p -- "$folder.unfinished"
if ! debootstrap --variant=minbase ${packages:+--include="$packages"} "$suite" "$folder.unfinished" "$mirror" >"$folder.log" 2>&1; then
    tail -n 20 "$folder.log" >&2
    exit 1
fi
rm -f -- "$folder.log"
mv -- "$folder.unfinished" "$folder"
