#!/usr/bin/env bash
# Writes requirements.lock: every dependency of the package, its extras and its tests, with hashes.
set -euo pipefail
cd "$(dirname "$0")"
uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --all-extras \
  --group test --group generate --custom-compile-command deploy/python/lock.sh \
  --output-file requirements.lock pyproject.toml
