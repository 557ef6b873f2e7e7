#!/usr/bin/env python3
"""A running service, and whoever can ask or produce doing their worst.

    python3 tests/chaos/attack.py --bifold target/debug/bifold [--seconds 120] [--judge-latency]

Runs `up`. 50 ordinary clients ask and 5,000 events a second arrive, first in peace, then beside queries that want all memory and time,
events that multiply, stall and overflow, connections that say nothing, bodies that do not end, and answers that are not read. Each ordinary
answer has to count exactly the offsets that it says it covers; resident memory has to stay below the configured budgets and 512 MiB;
afterwards `verify` has to be equal and `audit` even. Exit code 1 if not. With --judge-latency also if the ordinary clients' p99 under
attack is 10 times that in peace: a figure of this machine, so no part of the gate.
"""

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

PIPELINE = """
CREATE TABLE e (id BIGINT, k TEXT) WITH (connector = 'kafka', topic = 'e', format = 'json');
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(id) AS s FROM e;
CREATE MATERIALIZED VIEW by_k AS SELECT k, count(*) AS c FROM e GROUP BY k;
CREATE TABLE h (k TEXT, p TEXT, tags TEXT[], n BIGINT) WITH (connector = 'kafka', topic = 'h', format = 'json');
CREATE MATERIALIZED VIEW tags AS SELECT unnest(tags) AS tag, max(length(k)) AS l, count(*) AS c FROM h GROUP BY 1;
CREATE MATERIALIZED VIEW matched AS SELECT n, count(*) FILTER (WHERE k ~ p) AS c, max(levenshtein(k, p)) AS d FROM h GROUP BY n;
CREATE MATERIALIZED VIEW grown AS SELECT n, max(length(repeat(k, 1000))) AS l, max(length(replace(k, 'a', p))) AS r FROM h GROUP BY n;
"""
MIB = 1 << 20
BUDGETS = {
    "BIFOLD_SERVE__MEMORY": 256,
    "BIFOLD_SERVE__QUERY_MEMORY": 256,
    "BIFOLD_SPEED__MEMORY": 256,
    "BIFOLD_BATCH__MEMORY": 256,
}
# Of each source: what its collector holds, and what its fold may take.
SOURCES = 2
COLLECTED = 256
BESIDE = 512
CLIENTS = 50
EVENTS_A_SECOND = 5_000

QUERIES = [
    "SELECT " + "+".join(["c"] * 32_000) + " AS x FROM by_k",
    "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000)) AS x FROM total",
    "SELECT count(*) AS x FROM by_k GROUP BY CUBE (" + ", ".join(f"c + {i}" for i in range(20)) + ")",
    "SELECT count(*) AS x FROM by_k GROUP BY CUBE (" + ", ".join(f"c + {i}" for i in range(7)) + ")",
    "SELECT length(concat(" + ", ".join(["repeat('x', 67000000)"] * 100) + ")) AS x FROM total",
    "SELECT array_length(array_concat(range(67000000), range(67000000))) AS x FROM total",
    "SELECT max(length(s)) AS x FROM (SELECT string_agg(repeat(k, 100000), ',') OVER (ORDER BY k) AS s FROM by_k) t",
    "SELECT length(replace(repeat('a', 1000000), 'a', repeat('b', 1000000))) AS x FROM total",
    "SELECT count(*) AS x FROM (SELECT unnest(range(0, 100000000)) AS y FROM by_k) t",
    "SELECT count(*) AS x FROM by_k a, by_k b, by_k c, by_k d",
    "SELECT k ~ '(((a{100}){100}){100})' AS x FROM by_k",
    "WITH a0 AS (SELECT c FROM by_k)" + "".join(f", a{i} AS (SELECT l.c FROM a{i - 1} l JOIN a{i - 1} r ON l.c = r.c)" for i in range(1, 25)) + " SELECT count(*) AS x FROM a24",
    "SELECT " + "x" * 60_000 + " FROM total",
]


def hostile_events(rng):
    """A body of events that are made to hurt."""
    kind = rng.randrange(8)
    if kind == 0:
        return [{"k": "k" * 90_000, "tags": [f"t{i}" for i in range(20_000)], "n": 1}]
    if kind == 1:
        return ["[" + ",".join(["{}"] * 90_000) + "]"]
    if kind == 2:
        return ["[" + ",".join(["0"] * 300_000) + "]"]
    if kind == 3:
        return [{"k": "a" * 30_000, "p": "(a|a?)+" * 2_000 + "$", "n": 2}]
    if kind == 4:
        return [{"k": "a" * 50_000, "p": "b" * 50_000, "n": 3} for _ in range(3)]
    if kind == 5:
        return [{"k": "a" * 1_000, "p": "b" * 60_000, "n": 4} for _ in range(10)]
    if kind == 6:
        return ["[" + ",".join(json.dumps({"k": "a" * 60, "n": i}) for i in range(9_000)) + "]"]
    return ["{" + '"k":' * 1_000, "\x00", "[" * 100_000, '{"n": 1e999}', '{"k": "' + "x" * 1_200_000 + '"}']


class Attack:
    def __init__(self, bifold, folder):
        self.bifold, self.folder = bifold, folder
        (folder / "pipeline.sql").write_text(PIPELINE)
        self.environment = os.environ | {name: f"{size}MiB" for name, size in BUDGETS.items()}
        self.environment |= {"BIFOLD_LOG": "error", "BIFOLD_BATCH__SCHEDULE": "20s", "BIFOLD_SERVE__QUERY_TIMEOUT": "5s"}
        self.failures, self.outcomes = [], Counter()
        self.sent, self.stopped, self.attacking = 0, threading.Event(), threading.Event()
        self.latencies = {"peace": [], "attack": []}
        self.largest = 0

    def start(self):
        self.process = subprocess.Popen(
            [self.bifold, "up", "--listen", "127.0.0.1:0"], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=open(self.folder / "up.log", "w")
        )
        ready = json.loads(self.process.stdout.readline())
        self.address = ready["url"].removeprefix("http://")

    def request(self, connection, method, path, body=None):
        connection.request(method, path, body)
        reply = connection.getresponse()
        return reply.status, reply.read()

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.address, timeout=timeout)

    def fail(self, why):
        if len(self.failures) < 20:
            self.failures.append(why)

    # What ordinary users do.

    def produce(self):
        connection, step = self.connect(), 0.1
        count = int(EVENTS_A_SECOND * step)
        due = time.monotonic()
        while not self.stopped.is_set():
            lines = "\n".join(json.dumps({"id": self.sent + i, "k": f"k{(self.sent + i) % 100}"}) for i in range(count))
            try:
                status, body = self.request(connection, "POST", "/v1/events/e", lines)
                if status != 200:
                    self.fail(f"events: {status} {body[:200]}")
                self.sent += count
            except (OSError, http.client.HTTPException):
                # Whether it counts is unknown: what an answer covers says so.
                self.outcomes["produce again"] += 1
                connection = self.connect()
            due = max(due + step, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))

    def ask(self, number):
        connection, rng = self.connect(), random.Random(number)
        while not self.stopped.is_set():
            under, started = self.attacking.is_set(), time.monotonic()
            sql = rng.choice(["SELECT c FROM total", "SELECT sum(c) AS c FROM by_k", "SELECT sum(c) AS c FROM by_k WHERE k <> 'z'"])
            try:
                status, body = self.request(connection, "POST", "/v1/sql", json.dumps({"sql": sql}))
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[f"ordinary client: {type(error).__name__}"] += 1
                connection = self.connect()
                continue
            took = time.monotonic() - started
            if status != 200:
                self.fail(f"an ordinary query got {status}: {body[:200]}")
            else:
                answer = json.loads(body)
                partitions = answer["coverage"][0]["partitions"]
                covered = sum(p["speed"][1] - p["batch"][0] for p in partitions)
                counted = answer["rows"][0]["c"] or 0
                self.outcomes["ordinary answers"] += 1
                if counted != covered:
                    self.fail(f"{sql} says {counted}, and covers {covered} events: {answer['coverage']}")
                if under == self.attacking.is_set():
                    self.latencies["attack" if under else "peace"].append(took)
            time.sleep(0.15 + 0.1 * rng.random())

    # What others do.

    def heavy_queries(self, seed):
        rng = random.Random(seed)
        while not self.stopped.is_set():
            body = json.dumps({"sql": rng.choice(QUERIES), "timeout_ms": 4_000})
            try:
                connection = self.connect(timeout=30)
                connection.request("POST", "/v1/sql", body)
                if rng.random() < 0.3:
                    connection.close()
                    continue
                self.outcomes[f"heavy query: {connection.getresponse().status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[f"heavy query: {type(error).__name__}"] += 1
            time.sleep(0.1)

    def hostile_producer(self, seed):
        rng = random.Random(seed)
        while not self.stopped.is_set():
            events = [event if isinstance(event, str) else json.dumps(event) for event in hostile_events(rng)]
            try:
                status, _ = self.request(self.connect(), "POST", "/v1/events/h", "\n".join(events).encode())
                self.outcomes[f"hostile events: {status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[f"hostile events: {type(error).__name__}"] += 1
            time.sleep(0.5)

    def silent_connections(self):
        host, port = self.address.split(":")
        held = []
        heads = [b"", b"POST /v1/sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{", b"GET /v1/views HTTP/1.1\r\nHo"]
        while not self.stopped.is_set():
            try:
                one = socket.create_connection((host, int(port)), timeout=5)
                one.sendall(heads[len(held) % 3])
                held.append(one)
            except OSError as error:
                self.outcomes[f"silent connection: {type(error).__name__}"] += 1
            if len(held) > 600:
                held.pop(0).close()
            time.sleep(0.01)

    def slow_readers(self):
        host, port = self.address.split(":")
        body = json.dumps({"sql": "SELECT repeat(k, 1000) AS t FROM (SELECT k, unnest(range(0, 1000)) AS i FROM by_k) x"}).encode()
        held = []
        while not self.stopped.is_set():
            try:
                one = socket.create_connection((host, int(port)), timeout=5)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.sendall(b"POST /v1/sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                held.append(one)
            except OSError:
                self.outcomes["slow reader: refused"] += 1
            if len(held) > 10:
                held.pop(0).close()
            time.sleep(1)

    def watch(self):
        while not self.stopped.is_set():
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return self.fail("the service ended")
            resident = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS")), 0)
            self.largest = max(self.largest, resident)
            time.sleep(0.1)

    def run(self, calm, attack):
        ordinary = [self.produce, self.watch] + [lambda number=i: self.ask(number) for i in range(CLIENTS)]
        threads = [threading.Thread(target=work, daemon=True) for work in ordinary]
        [thread.start() for thread in threads]
        time.sleep(calm)
        self.attacking.set()
        others = [lambda seed=i: self.heavy_queries(seed) for i in range(6)] + [lambda seed=i: self.hostile_producer(seed) for i in range(2)]
        attackers = [threading.Thread(target=work, daemon=True) for work in others + [self.silent_connections, self.slow_readers]]
        [thread.start() for thread in attackers]
        time.sleep(attack)
        self.stopped.set()
        [thread.join(70) for thread in threads + attackers]

    def judge(self):
        """Whether all is right afterwards, too."""
        status, body = self.request(self.connect(), "GET", "/healthz")
        if status != 200:
            self.fail(f"/healthz says {status} afterwards: {body[:200]}")
        url = f"http://{self.address}"
        for arguments in (["query", "SELECT c FROM total", "--at-least", "latest"], ["query", "SELECT count(*) AS n FROM tags", "--at-least", "latest"], ["verify"]):
            self.command([*arguments, "--url", url, "--timeout", "300s"])
        self.process.terminate()
        if (code := self.process.wait(120)) != 0:
            self.fail(f"SIGTERM ended it with {code}")
        self.command(["audit", "e"])
        self.command(["audit", "h"])

    def command(self, arguments):
        ran = subprocess.run([self.bifold, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if ran.returncode != 0:
            self.fail(f"bifold {' '.join(arguments)}: {ran.returncode} {ran.stderr[-600:]}")
        if arguments[0] == "verify" and ran.stdout.count('"equal":true') != 5:
            self.fail(f"verify is not equal for all of 5 views: {ran.stdout[:600]}")


def p99(latencies):
    return sorted(latencies)[int(len(latencies) * 0.99)] if latencies else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bifold", required=True)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--calm", type=int, default=20)
    parser.add_argument("--judge-latency", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bifold-attack-") as folder:
        attack = Attack(str(Path(options.bifold).resolve()), Path(folder))
        attack.start()
        attack.run(options.calm, options.seconds)
        attack.judge()
        log = (Path(folder) / "up.log").read_text()
    budgets = BUDGETS["BIFOLD_SERVE__MEMORY"] + BUDGETS["BIFOLD_SERVE__QUERY_MEMORY"] + BUDGETS["BIFOLD_BATCH__MEMORY"]
    budgets += SOURCES * (BUDGETS["BIFOLD_SPEED__MEMORY"] + COLLECTED)
    if attack.largest > (budgets + BESIDE) * MIB:
        attack.fail(f"{attack.largest // MIB} MiB resident; the budgets are {budgets} MiB, and {BESIDE} MiB beside them")
    peace, under = p99(attack.latencies["peace"]), p99(attack.latencies["attack"])
    if options.judge_latency and not under < 10 * peace:
        attack.fail(f"p99 under attack {under * 1e3:.0f} ms, in peace {peace * 1e3:.0f} ms")
    for what, count in sorted(attack.outcomes.items()):
        print(f"  {count:>8} {what}")
    print(f"  p99 in peace {peace * 1e3:.1f} ms, under attack {under * 1e3:.1f} ms; at most {attack.largest // MIB} MiB resident of {budgets} + {BESIDE}")
    for failure in attack.failures:
        print(f"FAILED: {failure}")
    if attack.failures:
        print(log[-3000:])
    answers = attack.outcomes["ordinary answers"]
    print(f"attack: {answers} ordinary answers checked, {len(attack.failures)} failures")
    sys.exit(1 if attack.failures or not answers else 0)


if __name__ == "__main__":
    main()
