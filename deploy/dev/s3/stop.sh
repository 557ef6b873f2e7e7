#!/usr/bin/env bash
# usage: stop.sh STATE_DIR
# Stops the S3 server of STATE_DIR. No error if none runs. The objects stay.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: ${0##*/} STATE_DIR" >&2; exit 2; }
[ -e "$1/pid" ] || exit 0
kill "$(cat "$1/pid")" 2>/dev/null || true
rm -f "$1/pid"
