#!/usr/bin/env bash
# Generates the wire code under src/airfleet/ from ../../proto.
#
#   generate.sh           write it
#   generate.sh --check   fail where it differs from what is there, write nothing
#
# PYTHON names an interpreter with the dependency group `generate`; scripts/test-python.sh gives its
# own. Without it, uv makes a throw-away environment.
set -euo pipefail
cd "$(dirname "$0")"

packages=(common registry router moves dags placement agent)
proto=../../proto
target=src
case "${1:-}" in
  "") ;;
  --check)
    target=$(mktemp -d)
    trap 'rm -rf "$target"' EXIT
    ;;
  *)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

if [[ -n "${PYTHON:-}" ]]; then
  python=("$PYTHON")
else
  python=(uv run --quiet --isolated --no-project --python '>=3.10' --with 'grpcio-tools==1.76.0' --with 'setuptools<82' python)
fi

files=()
for package in "${packages[@]}"; do
  files+=("airfleet/$package/v1/$package.proto")
done
"${python[@]}" -m grpc_tools.protoc --proto_path="$proto" \
  --python_out="$target" --pyi_out="$target" --grpc_python_out="$target" "${files[@]}"
# Messages without a service give an empty stub.
rm -f "$target/airfleet/common/v1/common_pb2_grpc.py"

if [[ "$target" != src ]]; then
  stale=0
  for package in "${packages[@]}"; do
    for file in "$target/airfleet/$package/v1/"*_pb2*; do
      here="src/${file#"$target/"}"
      if ! cmp -s "$file" "$here"; then
        echo "deploy/python/$here differs from proto/" >&2
        stale=1
      fi
    done
  done
  if ((stale)); then
    echo "run deploy/python/generate.sh and commit what it writes" >&2
    exit 1
  fi
  echo "the Python wire code agrees with proto/"
fi
