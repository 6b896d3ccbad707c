#!/usr/bin/env bash
# Runs the Autobahn test suite against the gateway's WebSockets: sections 1 to 7 and 10 against a relay and against a
# method that gives back what it is sent, sections 12 and 13 (compression) against both where DEFLATE=1.
#
#     tests/autobahn/run.sh target/release/sabir [CACHE]
#
# The suite needs CPython 2.7: PYTHON2 names it, `python2.7` on PATH and the versions of pyenv are tried. What it installs
# is kept in CACHE. Every case must be OK with a clean close; the three that the suite calls informational have no verdict.
set -euo pipefail

sabir="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
cache="${2:-${XDG_CACHE_HOME:-$HOME/.cache}/sabir-autobahn}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
scratch="$(mktemp -d)"
started=()

stop() {
    for id in "${started[@]}"; do
        kill "$id" 2>/dev/null || true
        wait "$id" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

python2() {
    local candidate
    for candidate in "${PYTHON2:-}" "$(command -v python2.7 || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
        # A command of pyenv may be there for a version that is not in use.
        if [ -n "$candidate" ] && "$candidate" -c 'import ssl' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

if [ ! -x "$cache/bin/wstest" ]; then
    python="$(python2)" || {
        echo "autobahn: there is no CPython 2.7, which the suite needs; PYTHON2 may name one" >&2
        exit 77
    }
    rm -rf "$cache" "$scratch/tools"
    # The last release of virtualenv that knows Python 2.7; kept apart from what that interpreter has.
    "$python" -m pip --disable-pip-version-check --quiet install --target "$scratch/tools" 'virtualenv==20.15.1' 2>"$scratch/pip.log" ||
        { cat "$scratch/pip.log" >&2; exit 1; }
    PYTHONPATH="$scratch/tools" "$python" -m virtualenv --quiet "$cache"
    "$cache/bin/pip" --quiet install 'autobahntestsuite==25.10.1' 2>"$scratch/pip.log" ||
        { cat "$scratch/pip.log" >&2; exit 1; }
fi

# A port that is free now: the suite's own server can't be asked for one.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
"$cache/bin/wstest" -m echoserver -w "ws://127.0.0.1:$port" >"$scratch/echo.log" 2>&1 &
started+=("$!")

deflate=false
cases='"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"'
if [ "${DEFLATE:-0}" = 1 ]; then
    deflate=true
    cases='"12.*", "13.*"'
fi

# What a process has written to its log, by a pattern with one group.
written() {
    local log="$1" pattern="$2" found
    for _ in $(seq 300); do
        found="$(sed -n "s|$pattern|\1|p" "$log" | head -n 1)"
        [ -n "$found" ] && { printf '%s\n' "$found"; return; }
        sleep 0.1
    done
    echo "autobahn: nothing like $pattern in $log:" >&2
    cat "$log" >&2
    return 1
}

# The example services, as a backend of their own.
"$sabir" demo >"$scratch/demo.log" 2>&1 &
started+=("$!")
services="$(written "$scratch/demo.log" '.*curl http://\([0-9.:]*\)/v1/shelves/1/books/7$')"

cat >"$scratch/gateway.yaml" <<END
listeners:
  - address: 127.0.0.1:0
admin:
  address: 127.0.0.1:0
backends:
  echo:
    protocol: websocket
    endpoints: ["ws://127.0.0.1:$port"]
  services:
    protocol: grpc
    endpoints: ["http://$services"]
    schema: reflection
routes:
  - path: /echo
    backend: echo
    websocket: {deflate: $deflate}
  - services: ["library.v1.Probe"]
    backend: services
    websocket: {deflate: $deflate}
END
"$sabir" serve --config "$scratch/gateway.yaml" --log-format json >"$scratch/gateway.log" 2>&1 &
started+=("$!")
address="$(written "$scratch/gateway.log" '.*"listening on \([0-9.:]*\)".*')"

for _ in $(seq 100); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
done

cat >"$scratch/spec.json" <<END
{
  "outdir": "$scratch/report",
  "servers": [
    {"agent": "relay", "url": "ws://$address/echo"},
    {"agent": "method", "url": "ws://$address/v1/probe:mirror"}
  ],
  "cases": [$cases],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
END
timeout 1200 "$cache/bin/wstest" -m fuzzingclient -s "$scratch/spec.json" >"$scratch/suite.log" 2>&1 ||
    { tail -n 20 "$scratch/suite.log" >&2; exit 1; }
python3 "$here/verdict.py" "$scratch/report/index.json"
