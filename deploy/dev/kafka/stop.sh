#!/usr/bin/env bash
# usage: stop.sh STATE_DIR
# Stops the broker of STATE_DIR (SIGTERM, and SIGKILL after 30 s) and waits
# until it has ended. No error if none runs. The data and the port stay.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -eq 1 ] || { echo "usage: ${0##*/} STATE_DIR" >&2; exit 2; }
[ -e "$1/pid" ] || exit 0
state=$(cd "$1" && pwd -P)
conf=$state/server.properties

# No lock: a start.sh that still waits for this broker must not hold us up.
pid=$(cat "$state/pid" 2>/dev/null || true)
if is_broker "$pid" "$conf"; then
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 300); do
        is_broker "$pid" "$conf" || break
        sleep 0.1
    done
    if is_broker "$pid" "$conf"; then
        echo "process $pid did not stop in 30 s: SIGKILL" >&2
        kill -KILL "$pid" 2>/dev/null || true
        while is_broker "$pid" "$conf"; do sleep 0.1; done
    fi
fi
rm -f "$state/pid"
