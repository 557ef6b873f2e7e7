"""One engine over the archive's Parquet, on one thread: `tables.py ENGINE QUERY PARQUET_GLOB ANSWER_FILE`.

ENGINE is duckdb, polars, datafusion or chdb. QUERY is plain, distinct, or latency: the last runs the dashboard's query many times
in one process and prints the milliseconds of each as a JSON list.
"""

import glob
import json
import sys
import time

PLAIN = "count(*) AS n, sum(amount) AS s, min(amount) AS lo, max(amount) AS hi"
DISTINCT = 'count(*) AS n, count(DISTINCT "user") AS users'
REPEATS = 30


def sql(query, table, minute):
    """The SQL of a query; `minute` is the engine's way to cut a timestamp to its minute."""
    if query == "latency":
        return f"SELECT region, count(*) AS n, sum(amount) AS s FROM {table} GROUP BY region ORDER BY region"
    values = PLAIN if query == "plain" else DISTINCT
    return f"SELECT {minute} AS minute, region, action, {values} FROM {table} GROUP BY 1, 2, 3"


def duckdb_engine(query, pattern):
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    text = sql(query, f"read_parquet('{pattern}')", "epoch_ms(date_trunc('minute', time))")
    return lambda: connection.execute(text).fetchall()


def polars_engine(query, pattern):
    import polars as pl

    frame = pl.scan_parquet(pattern)
    if query == "latency":
        lazy = frame.group_by("region").agg(pl.len(), pl.col("amount").sum()).sort("region")
    else:
        minute = pl.col("time").dt.truncate("1m").dt.epoch("ms").alias("minute")
        amount = pl.col("amount")
        values = {
            "plain": [pl.len(), amount.sum().alias("s"), amount.min().alias("lo"), amount.max().alias("hi")],
            "distinct": [pl.len(), pl.col("user").n_unique().alias("users")],
        }
        lazy = frame.group_by(minute, "region", "action").agg(values[query])
    return lambda: lazy.collect(engine="streaming").rows()


def datafusion_engine(query, pattern):
    from datafusion import SessionConfig, SessionContext

    config = SessionConfig().with_target_partitions(1).set("datafusion.execution.parquet.pushdown_filters", "true")
    context = SessionContext(config)
    folder = pattern.split("*")[0]
    context.register_parquet("archive", folder)
    minute = "CAST(date_trunc('minute', time) AS BIGINT) / 1000"
    text = sql(query, "archive", minute)

    def rows():
        batches = context.sql(text).collect()
        return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]

    return rows


def chdb_engine(query, pattern):
    from chdb import session

    connection = session.Session()
    connection.query("SET max_threads = 1")
    table = f"file('{pattern}', Parquet)"
    text = sql(query, table, "toUnixTimestamp64Milli(toDateTime64(toStartOfMinute(assumeNotNull(time)), 3, 'UTC'))")

    def rows():
        answer = connection.query(text, "JSONCompactEachRow").bytes()
        return [json.loads(line) for line in answer.splitlines()]

    return rows


ENGINES = {"duckdb": duckdb_engine, "polars": polars_engine, "datafusion": datafusion_engine, "chdb": chdb_engine}


def main():
    engine, query, pattern, answer = sys.argv[1:]
    assert glob.glob(pattern, recursive=True), f"no file matches {pattern}"
    run = ENGINES[engine](query, pattern)
    rows = run()
    with open(answer, "w") as out:
        for row in rows:
            out.write(",".join(str(value) for value in row) + "\n")
    if query == "latency":
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run()
            times.append((time.perf_counter() - started) * 1000)
        print(json.dumps(times))


if __name__ == "__main__":
    main()
