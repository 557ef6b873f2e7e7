#!/usr/bin/env bash
# usage: topic.sh BOOTSTRAP create NAME [PARTITIONS]
#        topic.sh BOOTSTRAP delete NAME
# Creates a topic (of 1 partition by default) or deletes one. An error if it
# already exists, or does not exist.
# KAFKA_LIB: folder of the jars; see README.md for its default.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    echo "usage: ${0##*/} BOOTSTRAP create NAME [PARTITIONS] | delete NAME" >&2
    exit 2
}

name=${3:-}
case ${2:-}/$# in
create/[34]) args=(--create --topic "$name" --replication-factor 1 --partitions "${4:-1}") ;;
# TopicCommand takes the name of a topic to delete for a regular expression:
# a.b would delete axb too.
delete/3) args=(--delete --topic "${name//./\\.}") ;;
*) usage ;;
esac
[[ $name =~ ^[A-Za-z0-9._-]+$ ]] || die "not a topic name: $name"
resolve_jars
# Its output is for people: standard output stays free for scripts. It prints
# its errors itself; its log would repeat them with stack traces.
exec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dorg.apache.logging.log4j.level=OFF -cp "$lib/*" \
    org.apache.kafka.tools.TopicCommand --bootstrap-server "$1" "${args[@]}" >&2
