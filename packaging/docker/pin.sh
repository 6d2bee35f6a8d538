#!/usr/bin/env bash
# Prints the images that the Dockerfile and compose.yaml build on, each with the digest that its tag has in its
# registry now; with --write, puts them in their place there. Needs the network, and skopeo or docker with buildx.
#
#   packaging/docker/pin.sh [--write]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
write=no
case ${1:-} in
'') ;;
--write) write=yes ;;
*)
    printf '%s: unknown argument %s\n' "$0" "$1" >&2
    exit 2
    ;;
esac
readonly -a files=(Dockerfile packaging/docker/compose.yaml)

# The digest of all platforms of an image.
digest_of() {
    if command -v skopeo >/dev/null; then
        skopeo inspect --raw "docker://$1" | sha256sum | sed 's/^\([0-9a-f]*\).*/sha256:\1/'
    else
        docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1"
    fi
}

# What is built here has neither a tag nor a registry.
mapfile -t images < <(sed -n -e 's/^ARG [A-Z]*_IMAGE=//p' -e 's/^ *image: \(.*:.*\)/\1/p' "${files[@]}")
for each in "${images[@]}"; do
    tagged=${each%@*}
    digest=$(digest_of "$tagged")
    if [[ ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
        printf '%s: no digest of %s, but: %s\n' "$0" "$tagged" "$digest" >&2
        exit 1
    fi
    printf '%s@%s\n' "$tagged" "$digest"
    if [[ $write == yes ]]; then
        sed -i "s|\([= ]\)$each\$|\1$tagged@$digest|" "${files[@]}"
    fi
done
