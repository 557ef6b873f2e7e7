#!/usr/bin/env python3
"""How long from kill -9 to a right and fresh answer, and how much memory speed takes, with very many groups.

usage: bench/recovery.py --bifold PATH [--groups 1000000,10000000] [--memory 1GiB] [--partitions 24]

Starts a broker of its own (deploy/dev/kafka), one view with a group for every event and one without groups, and
collect, speed and serve as processes of their own. All events are there before speed starts: it catches up with a burst. Then speed,
later serve, is killed by -9 right after more events came, and started again at once. Prints one JSON object for each number of
groups: seconds to the first answer that covers the log's end as of the kill and counts right, of the view without groups (`total`)
and of the one with all of them (`by_key`), and speed's largest resident memory beside its configured budget.
Needs confluent-kafka for Python.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from confluent_kafka import Producer

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "recovery"
PIPELINE = f"""
CREATE TABLE e (k BIGINT, n BIGINT) WITH (connector = 'kafka', topic = '{TOPIC}', format = 'json');
CREATE MATERIALIZED VIEW by_key AS SELECT k, count(*) AS c, sum(n) AS s FROM e GROUP BY k;
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;
"""
PORTS = {"collect": 27172, "speed": 27171, "serve": 27170}


class Fleet:
    """The processes of one run."""

    def __init__(self, bifold, folder, brokers, memory):
        self.bifold, self.folder, self.processes = bifold, folder, {}
        (folder / "pipeline.sql").write_text(PIPELINE)
        (folder / "bifold.toml").write_text(
            f"pipeline = 'pipeline.sql'\ndata_dir = 'data'\n[kafka]\nbrokers = '{brokers}'\n[speed]\nmemory = '{memory}'\n"
            f"[serve]\nlisten = '127.0.0.1:{PORTS['serve']}'\nspeed = ['http://127.0.0.1:{PORTS['speed']}']\n"
            "query_timeout = '10m'\nquery_memory = '8GiB'\n[batch]\nschedule = 'off'\n"
        )

    def start(self, role):
        """Starts a role and returns when it says that it is ready."""
        log = open(self.folder / f"{role}.err", "a")
        command = [self.bifold, role, "--listen", f"127.0.0.1:{PORTS[role]}", "--config", str(self.folder / "bifold.toml")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder)
        self.processes[role] = process
        if not process.stdout.readline():
            sys.exit(f"{role} ended: see {self.folder}/{role}.err")

    def kill(self, role):
        self.processes[role].send_signal(signal.SIGKILL)
        self.processes[role].wait()

    def peak_bytes(self, role):
        """The largest resident memory of the running process (VmHWM)."""
        status = Path(f"/proc/{self.processes[role].pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def run(self, *arguments):
        command = [self.bifold, *arguments, "--config", str(self.folder / "bifold.toml"), "--output", "json"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=self.folder).stdout

    def stop(self):
        for process in self.processes.values():
            process.kill()


def ask(sql, at_least, patience=900):
    """Asks until there is an answer that reaches `at_least`; gives its first row."""
    body = json.dumps({"sql": sql, "at_least": at_least, "timeout_ms": 60_000}).encode()
    until = time.monotonic() + patience
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{PORTS['serve']}/v1/sql", body)
            with urllib.request.urlopen(request, timeout=600) as reply:
                return json.load(reply)["rows"][0]
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > until:
                detail = error.read().decode() if hasattr(error, "read") else error
                sys.exit(f"no answer in {patience} s: {detail}")
            time.sleep(0.05)


def produce(brokers, partitions, numbers):
    """Events of these numbers, acknowledged; gives OFFSETS."""
    ends = {}
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "queue.buffering.max.messages": 2_000_000})

    def delivered(error, message):
        if error:
            sys.exit(f"not delivered: {error}")
        ends[message.partition()] = max(ends.get(message.partition(), 0), message.offset() + 1)

    for i in numbers:
        value = b'{"k":%d,"n":1}' % i
        while True:
            try:
                producer.produce(TOPIC, value, partition=i % partitions, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush()
    return ",".join(f"{TOPIC}/{partition}:{end}" for partition, end in sorted(ends.items()))


def counted(groups, events, row):
    if row != {"groups": groups, "events": events}:
        sys.exit(f"wrong: {row}, expected {groups} groups of {events} events")


def measure(bifold, groups, memory, partitions):
    state = tempfile.mkdtemp()
    brokers = subprocess.run([ROOT / "deploy/dev/kafka/start.sh", state], capture_output=True, text=True, check=True).stdout.strip()
    fleet = Fleet(bifold, Path(tempfile.mkdtemp()), brokers, memory)
    by_key = "SELECT count(*) AS groups, sum(c) AS events FROM by_key"
    total = "SELECT c AS groups, s AS events FROM total"
    try:
        fleet.run("produce", "e", os.devnull, "--create-topic", str(partitions))
        offsets = produce(brokers, partitions, range(groups))
        events = groups
        started = time.monotonic()
        for role in PORTS:
            fleet.start(role)
        counted(events, events, ask(total, offsets))
        result = {"groups": groups, "partitions": partitions, "caught_up_s": round(time.monotonic() - started, 1)}
        counted(groups, events, ask(by_key, offsets))
        fleet.run("batch", "run", "--timeout", "10m")
        peak = fleet.peak_bytes("speed")
        for role in ("speed", "serve"):
            # More of the same groups, so that the open epoch holds some when it dies.
            offsets = produce(brokers, partitions, range(groups // 20))
            events += groups // 20
            peak = max(peak, fleet.peak_bytes("speed"))
            fleet.kill(role)
            started = time.monotonic()
            fleet.start(role)
            for view, sql in (("total", total), ("by_key", by_key)):
                counted(groups if view == "by_key" else events, events, ask(sql, offsets))
                result[f"{role}_{view}_s"] = round(time.monotonic() - started, 1)
            # The group has forgotten the one that was killed.
            time.sleep(10)
        result["speed_peak_mib"] = max(peak, fleet.peak_bytes("speed")) >> 20
        result["speed_memory"] = memory
        print(json.dumps(result), flush=True)
    finally:
        fleet.stop()
        subprocess.run([ROOT / "deploy/dev/kafka/stop.sh", state], check=False)
        subprocess.run(["rm", "-rf", str(fleet.folder), state], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bifold", required=True, type=os.path.abspath)
    parser.add_argument("--groups", default="1000000,10000000")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--partitions", default=24, type=int)
    arguments = parser.parse_args()
    for groups in arguments.groups.split(","):
        measure(arguments.bifold, int(groups), arguments.memory, arguments.partitions)


if __name__ == "__main__":
    main()
