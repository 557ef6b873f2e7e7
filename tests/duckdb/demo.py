#!/usr/bin/env python3
"""The demo for as long as one likes on a real Kafka, killed in the middle, against DuckDB on what the topic holds.

    python3 tests/duckdb/demo.py BIFOLD BROKERS [SECONDS]        600 seconds by default

`bifold demo --for …` sends its shop's events (late, twice, malformed ones among them) to a topic. In the middle of the time it is ended by
kill -9 and started again with another seed; a batch run takes part every minute. What was produced is then read from the topic by a client
of its own, and every view of examples/shop is computed from it by DuckDB. bifold's merged answers, asked of `bifold up` on the same
store, have to be the same: exactly, but for numbers of distinct values from sketches (5 %). Then `verify`. Needs the packages
duckdb and confluent-kafka. Exit code 1 and the differences if there is one.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import duckdb
from confluent_kafka import Consumer, TopicPartition

sys.path.insert(0, str(Path(__file__).parent))
from law import same  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
TOPIC = "shop"
COLUMNS = {
    "event_id": "TEXT", "time": "TEXT", "event": "TEXT", "user": "TEXT", "session": "TEXT", "region": "TEXT",
    "category": "TEXT", "product": "TEXT", "query": "TEXT", "amount": "DECIMAL(10,2)",
}
# Each view of examples/shop/pipeline.sql, written for DuckDB; `~` marks a number of distinct values from a sketch.
VIEWS = {
    "revenue": ("minute, category", """
        SELECT date_trunc('minute', time) AS minute, category, count(*) AS purchases, sum(amount) AS revenue
        FROM events WHERE event = 'purchase' GROUP BY 1, 2"""),
    "trending": ("since, product", """
        SELECT time_bucket(INTERVAL '10 minutes', time, TIMESTAMP '1970-01-01') AS since, product,
            count(*) FILTER (WHERE event = 'view') AS looks, count(DISTINCT "user") AS "~people",
            count(*) FILTER (WHERE event = 'purchase') AS sold
        FROM events WHERE product IS NOT NULL GROUP BY 1, 2"""),
    "searches": ("hour, query, category", """
        SELECT date_trunc('hour', time) AS hour, query, category, count(*) AS searches, count(DISTINCT "user") AS "~people"
        FROM events WHERE event = 'search' GROUP BY 1, 2, 3"""),
    "conversion": ("hour, region", """
        SELECT date_trunc('hour', time) AS hour, region, count(DISTINCT session) AS visits,
            count(DISTINCT session) FILTER (WHERE event = 'purchase') AS with_purchase
        FROM events GROUP BY 1, 2"""),
    "customers": ('"user"', """
        SELECT "user", count(*) AS purchases, sum(amount) AS spent, max(time) AS last_purchase,
            count(DISTINCT category) AS categories
        FROM events WHERE event = 'purchase' GROUP BY 1"""),
    "totals": ("events", """
        SELECT count(*) AS events, count(DISTINCT event_id) AS "~ids",
            count(*) FILTER (WHERE event = 'purchase') AS purchases, sum(amount) AS revenue
        FROM events"""),
}


class Fleet:
    """bifold on one store."""

    def __init__(self, bifold, brokers, folder):
        self.folder = folder
        self.flags = ["--brokers", brokers, "--data-dir", folder]
        self.bifold = bifold

    def start(self, *words):
        environment = dict(os.environ, BIFOLD_LOG="warn", BIFOLD_BATCH__SCHEDULE="off")
        command = [self.bifold, *words, *self.flags, "--listen", "127.0.0.1:0"]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment)

    def demo(self, seconds, seed):
        return self.start("demo", "--for", f"{seconds}s", "--rate", 1000, "--seed", seed)


def produced(brokers, path):
    """Writes what the topic holds, record by record, as those lines that are JSON objects; counts all records."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "enable.auto.commit": False})
    partitions = [TopicPartition(TOPIC, p, 0) for p in consumer.list_topics(TOPIC).topics[TOPIC].partitions]
    ends = {p.partition: consumer.get_watermark_offsets(p)[1] for p in partitions}
    consumer.assign(partitions)
    records = objects = 0
    left = sum(ends.values())
    with open(path, "wb") as out:
        while left:
            for message in consumer.consume(10_000, timeout=10):
                assert message.error() is None, message.error()
                records, left = records + 1, left - 1
                try:
                    good = isinstance(json.loads(message.value()), dict)
                except ValueError:
                    good = False
                if good:
                    objects += 1
                    out.write(message.value() + b"\n")
    consumer.close()
    return records, objects


def ask(url, sql):
    body = json.dumps({"sql": sql, "at_least": "latest", "timeout_ms": 60_000}).encode()
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/sql", body), timeout=70) as response:
        return json.load(response)


def rows_by_key(rows, keys):
    return {tuple(str(row[key]) for key in keys): row for row in rows}


def differences(view, keys, sql, url, database):
    names = [key.strip().strip('"') for key in keys.split(",")]
    cursor = database.execute(sql)
    columns = [column[0] for column in cursor.description]
    theirs = {}
    for row in cursor.fetchall():
        row = dict(zip(columns, row))
        key = tuple(row[n].strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(row[n], "strftime") else str(row[n]) for n in names)
        theirs[key] = row
    answer = ask(url, f'SELECT * FROM "{view}"')
    ours = rows_by_key(answer["rows"], names)
    found = [f"only {'bifold' if key in ours else 'DuckDB'} has {key}" for key in ours.keys() ^ theirs.keys()]
    for key in ours.keys() & theirs.keys():
        for column in columns:
            mine, other = ours[key][column.lstrip("~")], theirs[key][column]
            if isinstance(mine, str) and mine.endswith("Z"):
                mine = mine[:-1]
            good = abs(mine - other) <= max(0.05 * other, 1) if column.startswith("~") else same(mine, other)
            if not good:
                found.append(f"{column} of {key}: bifold {mine!r}, DuckDB {other!r}")
    batch = sum(p["batch"][1] - p["batch"][0] for p in answer["coverage"][0]["partitions"])
    speed = sum(p["speed"][1] - p["speed"][0] for p in answer["coverage"][0]["partitions"])
    return len(ours), len(ours) * len(columns), found, batch, speed


def main():
    bifold, brokers, *rest = sys.argv[1:]
    seconds = int(rest[0]) if rest else 600
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(bifold, brokers, Path(folder) / "data")
        half = seconds // 2
        first = fleet.demo(seconds, 1)
        time.sleep(half)
        assert first.poll() is None, first.stdout.read()
        first.send_signal(signal.SIGKILL)
        first.wait()
        runs = first.stdout.read().count("a batch run recomputes")
        print(f"killed by -9 after {half} s and {runs} batch runs; started again", flush=True)
        second = fleet.demo(seconds - half, 2)
        output, _ = second.communicate(timeout=seconds + 300)
        runs += output.count("a batch run recomputes")
        print(output[output.index("every view against plain SQL"):])
        if second.returncode:
            sys.exit(f"the demo ended with {second.returncode}")
        records, objects = produced(brokers, Path(folder) / "events.ndjson")
        database = duckdb.connect()
        database.execute(
            "CREATE TABLE events AS SELECT * REPLACE (try_cast(time AS TIMESTAMP) AS time)"
            " FROM read_json(?, format = 'newline_delimited', columns = ?)",
            [str(Path(folder) / "events.ndjson"), COLUMNS],
        )
        # What is an object without a readable time is no event.
        database.execute("DELETE FROM events WHERE time IS NULL")
        late = database.execute("SELECT count(*) FROM events WHERE time < (SELECT max(time) FROM events) - INTERVAL '1 hour'").fetchone()[0]
        twice = database.execute("SELECT count(*) - count(DISTINCT event_id) FROM events").fetchone()[0]
        up = fleet.start("up", "--pipeline", ROOT / "examples/shop/pipeline.sql")
        url = json.loads(up.stdout.readline())["url"]
        bad = cells = 0
        for view, (keys, sql) in VIEWS.items():
            count, size, found, batch, speed = differences(view, keys, sql, url, database)
            bad, cells = bad + len(found), cells + size
            print(f"{view}: {count} rows, {len(found)} differences; batch {batch} + speed {speed} offsets")
            for difference in found[:10]:
                print(f"  {difference}")
        up.terminate()
        assert up.wait(60) == 0
        print(
            f"{records} records, {records - objects} of them malformed, {late} over an hour late, {twice} twice; {runs} batch runs; "
            f"{len(VIEWS)} views, {cells} cells, {bad} differences; DuckDB {duckdb.__version__}"
        )
        sys.exit(1 if bad or not cells or runs < 2 or not (late and twice and records > objects) else 0)


if __name__ == "__main__":
    main()
