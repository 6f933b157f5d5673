#!/usr/bin/env bash
# Checks the style of the .proto files against proto/buf.yaml.
#
# buf comes from npm, pinned, and is kept in the cache folder ($AIRFLEET_CACHE, else
# ~/.cache/airfleet).
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.75.0
cache="${AIRFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/airfleet}"
root="$cache/buf-$version"
buf="$root/node_modules/.bin/buf"

if [[ ! -x "$buf" ]]; then
  if ! command -v npm >/dev/null; then
    echo "npm is missing; buf comes from there: apt-get install npm" >&2
    exit 1
  fi
  mkdir -p "$root"
  npm install --silent --no-audit --no-fund --no-save --prefix "$root" "@bufbuild/buf@$version"
fi

"$buf" lint proto
echo "proto/ follows proto/buf.yaml"
