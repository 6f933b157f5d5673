#!/usr/bin/env bash
# Installs what placement is compared with: Meta's Rebalancer and the MIP solver HiGHS, into a Python
# environment of their own under ~/.cache/airfleet/peers (AIRFLEET_CACHE moves it). Prints its python.
# Rebalancer 1.0.4 has wheels for CPython 3.12 and 3.13 only; PYTHON names one where none is found.
set -euo pipefail

cache="${AIRFLEET_CACHE:-$HOME/.cache/airfleet}/peers"
here="$(cd "$(dirname "$0")" && pwd)"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[23].*/bin/python; do
    [ -n "$candidate" ] || continue
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null 2>&1 && uv python find 3.12 2>/dev/null; then
    return
  fi
  echo "no CPython 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3.12 $0" >&2
  exit 1
}

python="$(find_python)"
if ! cmp -s "$here/requirements.txt" "$cache/requirements.txt"; then
  rm -rf "$cache"
  "$python" -m venv "$cache" >&2
  "$cache/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
  cp "$here/requirements.txt" "$cache/requirements.txt"
fi
echo "$cache/bin/python"
