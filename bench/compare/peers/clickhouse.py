"""ClickHouse's Kafka engine and a materialized view, embedded by chDB: `clickhouse.py BROKERS TOPIC EVENTS|follow ANSWER_FILE FOLDER`.

With a number of events it ends when its view counts them, writes the answer, and prints the milliseconds of the dashboard's query, many
times, as a JSON list. With "follow" it polls its view until it is killed and prints "MINUTE,REGION,ACTION,COUNT" for each change.
"""

import json
import sys
import time

from chdb import session

REPEATS = 200


def tables(connection, brokers, topic, flush_ms):
    connection.query(f"""
        CREATE TABLE queue (time DateTime64(3, 'UTC'), region LowCardinality(String), action LowCardinality(String), amount Int64)
        ENGINE = Kafka SETTINGS kafka_broker_list = '{brokers}', kafka_topic_list = '{topic}',
            kafka_group_name = 'clickhouse-{topic}-{time.time_ns()}', kafka_format = 'JSONEachRow', kafka_num_consumers = 1,
            kafka_max_block_size = 1048576, kafka_poll_max_batch_size = 65536, kafka_flush_interval_ms = {flush_ms},
            input_format_skip_unknown_fields = 1, date_time_input_format = 'best_effort'""")
    connection.query("""
        CREATE TABLE view (minute DateTime('UTC'), region LowCardinality(String), action LowCardinality(String),
            n SimpleAggregateFunction(sum, UInt64), s SimpleAggregateFunction(sum, Int64),
            lo SimpleAggregateFunction(min, Int64), hi SimpleAggregateFunction(max, Int64))
        ENGINE = AggregatingMergeTree ORDER BY (minute, region, action)""")
    connection.query("""
        CREATE MATERIALIZED VIEW fill TO view AS
        SELECT toStartOfMinute(time) AS minute, region, action, count() AS n, sum(amount) AS s, min(amount) AS lo, max(amount) AS hi
        FROM queue GROUP BY minute, region, action""")


def rows(connection, values="sum(n), sum(s), min(lo), max(hi)"):
    text = f"SELECT toUnixTimestamp(minute) * 1000, region, action, {values} FROM view GROUP BY minute, region, action"
    return [json.loads(line) for line in connection.query(text, "JSONCompactEachRow").bytes().splitlines()]


def follow(connection):
    known = {}
    while True:
        for *key, count in rows(connection, "sum(n)"):
            if known.get(tuple(key)) != count:
                known[tuple(key)] = count
                print(*key, count, sep=",", flush=True)
        time.sleep(0.002)


def main():
    brokers, topic, events, answer, folder = sys.argv[1:]
    connection = session.Session(folder)
    connection.query("SET max_threads = 1")
    if events == "follow":
        tables(connection, brokers, topic, 100)
        return follow(connection)
    tables(connection, brokers, topic, 1000)
    while int(connection.query("SELECT sum(n) FROM view", "TabSeparated").bytes() or 0) < int(events):
        time.sleep(0.05)
    with open(answer, "w") as out:
        for row in rows(connection):
            out.write(",".join(str(value) for value in row) + "\n")
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        connection.query("SELECT region, sum(n), sum(s) FROM view GROUP BY region ORDER BY region", "JSONCompactEachRow").bytes()
        times.append((time.perf_counter() - started) * 1000)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
