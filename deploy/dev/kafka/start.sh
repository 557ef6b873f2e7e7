#!/usr/bin/env bash
# usage: start.sh STATE_DIR [PORT]
# Starts one Kafka broker whose files all lie in STATE_DIR and waits until it
# is ready. Prints its bootstrap address on standard output, all else on
# standard error. If it already runs, only prints the address.
# PORT: the port to listen on; without it the one of the last start, and at
# the first start a free one.
# KAFKA_HOST: the address to listen on, 127.0.0.1 by default.
# KAFKA_LIB: folder of the jars; see README.md for its default.
# KAFKA_JVM: options of the Java machine.
# KAFKA_SETTINGS: lines for the end of the settings file; of two lines with
# one key the later counts.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
host=${KAFKA_HOST:-127.0.0.1}

# Does something accept connections on port $1?
in_use() {
    (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null
}

# Prints a free port below 32768. Above lie the ports that the kernel hands out
# to outgoing connections: there a stopped broker could find its port taken.
free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 12768))
        in_use "$port" || { echo "$port"; return; }
    done
    die "found no free port"
}

# Writes the settings file from the template.
write_settings() {
    local text
    text=$(<"$here/server.properties")
    text=${text//@STATE@/"$state"}
    text=${text//@PORT@/"$port"}
    text=${text//@HOST@/"$host"}
    printf '%s\n' "$text" "${KAFKA_SETTINGS:-}" >"$conf"
}

# Prepares an empty data folder, with a new random cluster id (16 bytes in
# URL-safe base64; it must not begin with a dash).
format() {
    local id
    id=x$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)
    java -Xmx128m -XX:+UseSerialGC -cp "$lib/*" kafka.tools.StorageTool \
        format --standalone -t "$id" -c "$conf" >"$state/format.log" 2>&1 ||
        { cat "$state/format.log" >&2; die "could not format $state/data"; }
}

launch() {
    local kept
    kept=$(cat "$state/port" 2>/dev/null || true)
    port=${wanted:-${kept:-$(free_port)}}
    ! in_use "$port" ||
        die "port $port is in use; name another: ${0##*/} STATE_DIR PORT"
    write_settings
    echo "$port" >"$state/port"
    [ -e "$state/data/meta.properties" ] || format
    [ ! -e "$log" ] || mv "$log" "$log.1"
    # Descriptor 9 is the lock, which must not live as long as the broker.
    # shellcheck disable=SC2086 # KAFKA_JVM is a list of words
    nohup java $jvm -Dorg.apache.logging.log4j.level=INFO \
        -cp "$lib/*" kafka.Kafka "$conf" </dev/null >"$log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$state/pid"
}

await_ready() {
    for _ in $(seq 1200); do # 120 s: a loaded machine may need 10 s and more
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$state/pid"
            echo "the broker ended; the end of $log:" >&2
            tail -n 15 "$log" >&2
            exit 1
        fi
        ! grep -qs 'Kafka Server started$' "$log" || return 0
        sleep 0.1
    done
    die "not ready after 120 s (process $pid); see $log"
}

case $# in
1 | 2) ;;
*) echo "usage: ${0##*/} STATE_DIR [PORT]" >&2; exit 2 ;;
esac
wanted=${2:-}
[[ $wanted =~ ^[0-9]*$ ]] || die "not a port: $wanted"
[ "$wanted" != 0 ] || wanted=
jvm=${KAFKA_JVM:--Xms64m -Xmx512m -XX:+UseSerialGC}
resolve_jars
mkdir -p "$1"
state=$(cd "$1" && pwd -P)
case $state in
# In a properties file the first separates folders, the second escapes.
*[,\\]*) die "a comma or a backslash in the path: $state" ;;
esac
conf=$state/server.properties
log=$state/kafka.log

exec 9>"$state/lock"
flock -w 180 9 || die "another start.sh works on $state"
pid=$(cat "$state/pid" 2>/dev/null || true)
if is_broker "$pid" "$conf"; then
    port=$(<"$state/port")
    [ "${wanted:-$port}" = "$port" ] || die "already runs on port $port, not $wanted"
else
    launch
fi
await_ready
echo "$host:$port"
