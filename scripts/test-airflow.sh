#!/usr/bin/env bash
# Tests the Python package for shards, deploy/airflow, in real Airflows of both releases, into which
# it is installed as on a shard.
#
#   scripts/test-airflow.sh [arguments of pytest]
#
# AIRFLOW=2.11.2 runs it in that release alone. Environments are those of `make setup`, in the cache
# folder ($AIRFLEET_CACHE, else ~/.cache/airfleet).
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${AIRFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/airfleet}"
PATH=$PATH:$cache/uv/bin
environment=shared/local/python/environment.sh
"$environment" uv "$cache"
package=$("$environment" package "$cache" "$PWD/deploy/airflow")

# What pytest needs besides what Airflow brings along.
lock=deploy/airflow/tests/requirements.txt
tools="$cache/pytest-$(sha256sum "$lock" | cut -c1-12)"
mkdir -p "$cache"
(
  flock 9
  if [[ ! -e "$tools/.complete" ]]; then
    rm -rf "$tools"
    uv pip install --quiet --python 3.11 --no-deps --require-hashes --target "$tools" \
      --requirements "$lock"
    touch "$tools/.complete"
  fi
) 9>"$cache/pytest.lock"

for release in ${AIRFLOW:-3.3.2 2.11.2}; do
  python=$("$environment" "$release" "$cache" "shared/local/python/airflow-$release.txt")/bin/python
  echo "airflow $release"
  PYTHONPATH="$package:$tools" PYTHONDONTWRITEBYTECODE=1 "$python" -m pytest -p no:cacheprovider \
    --rootdir deploy/airflow -c deploy/airflow/pyproject.toml deploy/airflow/tests -q "$@"
done
