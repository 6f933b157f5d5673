#!/usr/bin/env bash
# Checks and tests everything in Python: the client under deploy/python, the onboarding script, the
# derivation of the example fleet, and the package for shards under deploy/airflow.
#
#   scripts/test-python.sh [arguments of pytest]
#
# Makes an environment from requirements.lock in the cache folder ($AIRFLEET_CACHE, else
# ~/.cache/airfleet). The tests run against a real control plane: AIRFLEET_BIN names the `airfleet`
# binary, by default the one in the target folder, which is built where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=deploy/python/requirements.lock
cache="${AIRFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/airfleet}"
# Where the set-up puts uv when the machine has none.
PATH=$PATH:$cache/uv/bin
if ! command -v uv >/dev/null; then
  echo "uv is missing: run \`make setup\`" >&2
  exit 1
fi
venv="$cache/python-client-$(sha256sum "$lock" | cut -c1-12)"
mkdir -p "$cache"
(
  flock 9
  if [[ ! -e "$venv/.complete" ]]; then
    echo "making the Python environment $venv" >&2
    uv venv --quiet --clear --python '>=3.10' "$venv"
    uv pip install --quiet --python "$venv/bin/python" --require-hashes --requirements "$lock"
    touch "$venv/.complete"
  fi
) 9>"$cache/python-client.lock"
python="$PWD/deploy/python"
export PYTHONPATH="$python/src" PYTHONDONTWRITEBYTECODE=1

if [[ -z "${AIRFLEET_BIN:-}" ]]; then
  AIRFLEET_BIN="${CARGO_TARGET_DIR:-target}/debug/airfleet"
  [[ -x "$AIRFLEET_BIN" ]] || cargo build --locked -p airfleet-cli --bin airfleet
fi
AIRFLEET_BIN=$(realpath "$AIRFLEET_BIN")
export AIRFLEET_BIN

PYTHON="$venv/bin/python" deploy/python/generate.sh --check
"$venv/bin/python" examples/fleet/derive.py --check
(
  cd "$python"
  ruff=("$venv/bin/ruff" --config pyproject.toml)
  "${ruff[@]}" check --no-cache --quiet . ../../examples
  "${ruff[@]}" format --no-cache --quiet --check . ../../examples
  "$venv/bin/mypy" --cache-dir "$venv/.mypy" --no-error-summary
)
(
  cd deploy/airflow
  "$venv/bin/ruff" check --no-cache --quiet .
  "$venv/bin/ruff" format --no-cache --quiet --check .
  "$venv/bin/mypy" --cache-dir "$venv/.mypy" --no-error-summary
)
"$venv/bin/python" -m unittest discover --quiet --start-directory examples/fleet
"$venv/bin/python" -m pytest -p no:cacheprovider --rootdir "$python" -c "$python/pyproject.toml" "$python/tests" "$@"
scripts/test-airflow.sh
