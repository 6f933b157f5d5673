#!/usr/bin/env bash
# Checks the dependencies against deny.toml: bans, licences, sources.
#
# cargo-deny is built once and kept in the cache folder ($AIRFLEET_CACHE, else ~/.cache/airfleet).
# CARGO_DENY names one that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
cache="${AIRFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/airfleet}"
root="$cache/cargo-deny-$version"
deny="${CARGO_DENY:-$root/bin/cargo-deny}"

if [[ ! -x "$deny" ]]; then
  echo "building cargo-deny $version into $root (once; a few minutes)" >&2
  # Unoptimised: it builds in a third of the time and checks this workspace in seconds. Its own
  # target folder, removed afterwards, so that the workspace's is not mixed with its settings.
  target=$(mktemp -d)
  trap 'rm -rf "$target"' EXIT
  CARGO_TARGET_DIR="$target" CARGO_PROFILE_DEV_DEBUG=0 \
    cargo install --quiet --locked --debug --no-default-features --root "$root" \
    --version "$version" cargo-deny
fi

"$deny" --log-level warn --locked check bans licenses sources
