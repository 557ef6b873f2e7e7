#!/usr/bin/env bash
# usage: bench/topic-to-state.sh [EVENTS]
# Events per CPU-second from a Kafka topic to queryable state, on one core: starts a broker of its own, builds in release,
# measures, prints one JSON object. 5 million events by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
state=$(mktemp -d)
trap 'deploy/dev/kafka/stop.sh "$state"; rm -rf "$state"' EXIT
brokers=$(deploy/dev/kafka/start.sh "$state")
cargo build --release -p bifold
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
cargo build --release -p bifold-bench
"$target/release/bifold-bench" "$target/release/bifold" "$brokers" "${1:-5000000}"
