#!/bin/sh
# Installs what building, testing and running Airfleet on this machine needs:
#
#   scripts/setup.sh            system packages, uv; checks the Rust toolchain
#   scripts/setup.sh --airflow  ... and the Python environment of Airflow 3.3.2
#   scripts/setup.sh --all      ... and that of Airflow 2.11.2, and of moto
#
# Safe to repeat: quiet, and done in a moment, when everything is there. Servers
# are installed to be run privately by the tests: none is started, and those that
# this script installs will not start with the machine either.
set -eu

rust_needed=1.95
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=${AIRFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/airfleet}
releases=
emulators=

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

for option in "$@"; do
    case $option in
    --airflow) releases=3.3.2 ;;
    --all) releases="3.3.2 2.11.2" emulators=moto-5.1.22 ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit
        ;;
    *) fail "unknown option $option: use --airflow, --all or --help" ;;
    esac
done

# --- system packages

# Servers live where ordinary users do not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
have() { command -v "$1" >/dev/null 2>&1; }
have_postgres() {
    for server in /usr/lib/postgresql/*/bin/postgres; do
        [ -x "$server" ] && return
    done
    have postgres
}

# Sets `missing` to the packages that are missed, judged by what they bring.
need() { missing="$missing${missing:+ }$1"; }
look() {
    missing=
    { have cc && have c++ && have ld; } || need build-essential
    have make || need make
    have pkg-config || need pkg-config
    have git || need git
    have curl || need "curl ca-certificates"
    have python3 || need python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
    { have setsid && have setpriv && have flock; } || need util-linux
    have_postgres || need postgresql
    have redis-server || need redis-server
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || have rabbitmq-server || need rabbitmq-server
    have prometheus || need prometheus
}

# Runs as root. A policy that forbids starting services stands for the duration,
# unless the machine has a policy of its own; what the packages then added to the
# services that start with the machine is taken out again.
install='
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
output=$(mktemp)
trap "rm -f $output" EXIT
if [ ! -e "$policy" ]; then
    trap "rm -f $output $policy" EXIT
    printf "#!/bin/sh\nexit 101\n" >"$policy"
    chmod +x "$policy"
fi
starting() { find /etc/systemd/system -path "*.wants/*" -printf "%f\n" 2>/dev/null | sort -u; }
before=$(starting)
{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends "$@"; } >"$output" 2>&1 || {
    cat "$output" >&2
    exit 1
}
for unit in $(starting); do
    echo "$before" | grep -qxF "$unit" || systemctl --quiet disable "$unit" >/dev/null 2>&1 || true
done
'

look
if [ -n "$missing" ]; then
    line="apt-get install --no-install-recommends $missing"
    have apt-get || fail "missing: $missing (names of Debian packages); install them by your system's means"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        fail "packages are missing; as root, run: $line"
    fi
    say "installing $missing"
    # shellcheck disable=SC2086 # lists of words
    $as_root sh -c "$install" install $missing || fail "this failed: $line"
    look
    [ -z "$missing" ] || fail "still missing, though installed: try apt-get install --reinstall $missing"
fi

# --- rust

rust_hint="install Rust $rust_needed or newer from https://rustup.rs: curl https://sh.rustup.rs -sSf | sh"
PATH=$PATH:$HOME/.cargo/bin
have rustc || fail "the Rust toolchain is missing; $rust_hint"
rust_found=$(rustc --version | cut -d' ' -f2)
lowest=$(printf '%s\n' "$rust_needed" "$rust_found" | sort -V | head -n 1)
[ "$lowest" = "$rust_needed" ] || fail "Rust $rust_found is too old; rustup update, or $rust_hint"

# --- python

environment=$root/shared/local/python/environment.sh
"$environment" uv "$cache" >/dev/null || exit 1
for release in $releases; do
    "$environment" "$release" "$cache" "$root/shared/local/python/airflow-$release.txt" >/dev/null || exit 1
done
for emulator in $emulators; do
    "$environment" "$emulator" "$cache" "$root/shared/local/python/$emulator.txt" >/dev/null || exit 1
done
# Built now, for its build needs the network.
[ -z "$releases" ] || "$environment" package "$cache" "$root/deploy/airflow" >/dev/null || exit 1
