#!/bin/sh
# Makes the Python environment of one Airflow release and prints its folder as
# the last line: environment.sh VERSION REQUIREMENTS CACHE
#
# The folder's name carries a digest of the pinned requirements, so that new pins
# make a new environment and never change one in use. Safe to run at the same
# time from several processes; done in milliseconds when the environment exists.
set -eu
version=$1 requirements=$2 cache=$3
pins=$(sha256sum <"$requirements" | cut -c1-12)
environment=$cache/airflow-$version-$pins

fail() {
    echo "cannot make the Python environment of Airflow $version: $*" >&2
    exit 1
}

if [ ! -f "$environment/.complete" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/airflow-$version.lock"
    flock 9
fi
if [ ! -f "$environment/.complete" ]; then
    PATH=$PATH:$cache/uv/bin
    if ! uv --version >/dev/null 2>&1; then
        python=$(command -v python3.11 || command -v python3) ||
            fail "python3.11 is missing: apt-get install python3 python3-venv"
        rm -rf "$cache/uv"
        { "$python" -m venv "$cache/uv" && "$cache/uv/bin/pip" install --quiet uv; } >&2 ||
            fail "uv is missing and could not be installed: apt-get install python3-venv, or see https://docs.astral.sh/uv"
    fi
    export UV_PYTHON_DOWNLOADS=never
    uv python find --quiet 3.11 >/dev/null 2>&1 ||
        fail "python3.11 is missing: apt-get install python3 python3-venv (or: uv python install 3.11)"
    echo "installing Airflow $version" >&2
    # Built in place: an environment cannot be moved. Until the stamp is there it
    # counts as absent.
    rm -rf "$environment"
    uv venv --quiet --python 3.11 "$environment" >&2
    uv pip sync --quiet --python "$environment/bin/python" "$requirements" >&2 ||
        fail "uv could not install the packages (is the network there?)"
    touch "$environment/.complete"
fi
echo "$environment"
