#!/bin/sh
# Makes the Python environment of one Airflow release, or of another program
# (`moto-5.1.22`), and prints its folder as
# the last line; or builds and installs a package, alone in a folder that goes
# into PYTHONPATH, and prints that; or only sees to it that there is a uv:
#
#   environment.sh VERSION CACHE REQUIREMENTS
#   environment.sh package CACHE SOURCE
#   environment.sh uv CACHE
#
# The folder's name carries a digest of the pinned requirements, so that new pins
# make a new environment and never change one in use. Safe to run at the same
# time from several processes; done in milliseconds when the environment exists.
set -eu
version=$1 cache=$2
PATH=$PATH:$cache/uv/bin

fail() {
    echo "cannot make the Python environment: $*" >&2
    exit 1
}

# Only one process at a time goes on; the lock ends with it.
lock() {
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    flock 9
}

have_uv() { uv --version >/dev/null 2>&1; }

ensure_uv() {
    have_uv && return
    lock uv
    have_uv && return
    python=$(command -v python3.11 || command -v python3) ||
        fail "python3 is missing: apt-get install python3 python3-venv"
    echo "installing uv" >&2
    rm -rf "$cache/uv"
    { "$python" -m venv "$cache/uv" && "$cache/uv/bin/pip" install --quiet uv; } >&2 ||
        fail "uv is missing and could not be installed: apt-get install python3-venv, or see https://docs.astral.sh/uv"
}

if [ "$version" = uv ]; then
    ensure_uv
    exit
fi

# Installed beside the environments, which are shared and never change. Entry
# points are found there as well.
if [ "$version" = package ]; then
    cd "$3" || fail "there is no package in $3"
    state=$(find . -type f ! -path '*/__pycache__/*' ! -path './tests/*' ! -path './.*' |
        LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum | cut -c1-12)
    package=$cache/package-$(basename "$3")-$state
    if [ ! -f "$package/.complete" ]; then
        ensure_uv
        lock "package-$(basename "$3")"
    fi
    if [ ! -f "$package/.complete" ]; then
        rm -rf "$package"
        # What nobody asked for in a week is what an older state of the source was.
        find "$cache" -maxdepth 1 -name "package-$(basename "$3")-*" -type d -mtime +7 \
            -exec rm -rf {} +
        uv pip install --quiet --no-deps --python 3.11 --target "$package" . >&2 ||
            fail "uv could not install $3 (is the network there?)"
        touch "$package/.complete"
    fi
    touch -c "$package"
    echo "$package"
    exit
fi

requirements=$3
pins=$(sha256sum <"$requirements" | cut -c1-12)
case $version in
[0-9]*) name=airflow-$version what="Airflow $version" ;;
*) name=$version what=$version ;;
esac
environment=$cache/$name-$pins
if [ ! -f "$environment/.complete" ]; then
    ensure_uv
    lock "$name"
fi
if [ ! -f "$environment/.complete" ]; then
    export UV_PYTHON_DOWNLOADS=never
    uv python find --quiet 3.11 >/dev/null 2>&1 ||
        fail "python3.11 is missing: apt-get install python3 python3-venv (or: uv python install 3.11)"
    echo "installing $what" >&2
    # Built in place: an environment cannot be moved. Until the stamp is there it
    # counts as absent.
    rm -rf "$environment"
    uv venv --quiet --python 3.11 "$environment" >&2
    uv pip sync --quiet --python "$environment/bin/python" "$requirements" >&2 ||
        fail "uv could not install the packages (is the network there?)"
    touch "$environment/.complete"
fi
echo "$environment"
