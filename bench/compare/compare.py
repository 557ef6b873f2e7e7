"""Measures bifold and its peers on the same events; see `run`, which prepares everything.

Every contender is a process of its own, pinned to core 0; the broker and this program have core 1. CPU seconds are all of a
process, from its start until its answer is written: JVM start, imports and planning included. `marginal` leaves them out: the difference
between two sizes of the same work. Answers are rows of integers and keys; sorted and hashed, all must be equal, or nothing is reported.
"""

import argparse
import glob
import hashlib
import http.client
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

from confluent_kafka import Producer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PARTITIONS = 4
REGIONS = ["us-east", "us-west", "eu-west", "eu-north", "ap-south", "ap-east", "sa-east", "af-south"]
ACTIONS = ["view", "click", "search", "cart", "purchase"]
START = 1_772_323_200  # 2026-03-01T00:00:00Z
EVENTS_PER_SECOND = 1_000  # of event time
TABLES = ["duckdb", "polars", "datafusion", "chdb"]
TITLES = {
    "bifold": "bifold",
    "clickhouse": "ClickHouse (chDB), Kafka engine",
    "flink": "Flink SQL",
    "streams": "Kafka Streams",
    "duckdb": "DuckDB",
    "polars": "Polars",
    "datafusion": "DataFusion",
    "chdb": "ClickHouse (chDB)",
}
PIPELINE = """
CREATE TABLE events (
  time TIMESTAMP, "user" TEXT, region TEXT, action TEXT, amount BIGINT, session TEXT, page TEXT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = '{topic}', format = 'json');

CREATE MATERIALIZED VIEW plain AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, region, action,
       count(*) AS n, sum(amount) AS s, min(amount) AS lo, max(amount) AS hi
FROM events GROUP BY 1, 2, 3;
"""
DISTINCT_VIEW = """
CREATE MATERIALIZED VIEW "distinct" AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, region, action, count(*) AS n, count(DISTINCT "user") AS users
FROM events GROUP BY 1, 2, 3;
"""


def event(chance, i, at=None):
    """One event of about 180 bytes; event time runs at EVENTS_PER_SECOND."""
    seconds, millis = divmod(i, EVENTS_PER_SECOND) if at is None else (at, 0)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + seconds))
    return (
        f'{{"time":"{stamp}.{millis:03}Z","user":"user-{chance.randrange(200_000):06}","region":"{chance.choice(REGIONS)}",'
        f'"action":"{chance.choice(ACTIONS)}","amount":{chance.randrange(10_000)},"session":"{chance.getrandbits(64):016x}",'
        f'"page":"/products/{chance.randrange(50_000)}/details?from=newsletter"}}'
    )


def answer_hash(path):
    """The hash of an answer's sorted rows."""
    lines = sorted(line.strip() for line in Path(path).read_text().splitlines() if line.strip())
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Bench:
    """The machine's part of the benchmark: processes, topics, folders."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.folder = Path(arguments.folder)
        self.count = 0
        self.open = []

    def fresh(self, word):
        self.count += 1
        path = self.folder / f"{self.count}-{word}"
        path.mkdir()
        return path

    def pinned(self, command, **options):
        """Starts a process on core 0."""
        return subprocess.Popen(["taskset", "-c", "0", *map(str, command)], **options)

    def measured(self, name, command):
        """Runs a process on core 0 to its end: its CPU seconds, wall seconds, peak memory, standard output."""
        log = self.folder / f"{name}.log"
        started = time.monotonic()
        with open(log, "w") as errors:
            process = self.pinned(command, stdout=subprocess.PIPE, stderr=errors)
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{name} failed with {process.returncode}:\n{log.read_text()[-3000:]}")
        return {
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "wall_seconds": time.monotonic() - started,
            "peak_mib": usage.ru_maxrss / 1024,
        }, output.decode()

    def bifold(self, folder, *words):
        return [self.arguments.bifold, *words, "--brokers", self.arguments.brokers, "--data-dir", folder, "--pipeline", folder / "pipeline.sql"]

    def pipeline(self, folder, topic, *views):
        (folder / "pipeline.sql").write_text(PIPELINE.format(topic=topic) + "".join(views))

    def service(self, folder, word, *flags, pin=True, speed=""):
        """Starts a role; gives its process and its address."""
        environment = dict(os.environ, BIFOLD_LOG="warn", BIFOLD_KAFKA__GROUP_PREFIX=folder.name, BIFOLD_SERVE__SPEED=speed)
        start = self.pinned if pin else subprocess.Popen
        errors = open(folder / f"{word}.log", "w")
        process = start(self.bifold(folder, word, "--listen", "127.0.0.1:0", *flags), stdout=subprocess.PIPE, stderr=errors, env=environment)
        self.open.append(process)
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"bifold {word} did not start: {(folder / f'{word}.log').read_text()[-2000:]}")
        return process, urlparse(json.loads(line)["url"]).netloc

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    def one_shot(self, folder, *words, **variables):
        environment = dict(os.environ, BIFOLD_LOG="warn", **variables)
        return subprocess.run(
            list(map(str, self.bifold(folder, *words))), stdout=subprocess.PIPE, env=environment, check=True, text=True
        ).stdout

    def close(self):
        for process in self.open:
            if process.poll() is None:
                process.kill()


def get(address, path):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def metric(address, name):
    """The sum of a metric's samples."""
    samples = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(address, "/metrics"), re.MULTILINE)
    return sum(map(float, samples)) if samples else None


def wait_until(what, reached, seconds=600, pause=0.02):
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(pause)


class Client:
    """SQL over one kept connection."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=120)

    def sql(self, text, **more):
        body = json.dumps({"sql": text, **more})
        self.connection.request("POST", "/v1/sql", body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer}")
        return answer["rows"]


def write_answer(client, view, path):
    rows = client.sql(f'SELECT * FROM "{view}"', at_least="latest")
    with open(path, "w") as out:
        for row in rows:
            minute, *values = row.values()
            seconds = int(time.mktime(time.strptime(minute, "%Y-%m-%dT%H:%M:%SZ"))) - time.timezone
            out.write(",".join(map(str, [seconds * 1000, *values])) + "\n")


def produce(bench, topic, events, skip=0):
    folder = bench.fresh(f"produce-{topic}")
    bench.pipeline(folder, topic)
    chance = random.Random(7)
    path = bench.folder / "events.ndjson"
    with open(path, "w") as out:
        for i in range(events):
            line = event(chance, i)
            if i >= skip:
                out.write(line + "\n")
    words = ["produce", "events", path, "--timeout", "20m"]
    bench.one_shot(folder, *words, *([] if skip else ["--create-topic", PARTITIONS]))
    size = path.stat().st_size
    path.unlink()
    return size


# --- topic -> queryable state -------------------------------------------------------------------------------------------


def topic_bifold(bench, topic, events):
    folder = bench.fresh("speed")
    bench.pipeline(folder, topic)
    started = time.monotonic()
    speed, address = bench.service(folder, "speed")
    wait_until("bifold speed", lambda: (metric(address, "bifold_folded_events_total") or 0) >= events)
    fields = Path(f"/proc/{speed.pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = Path(f"/proc/{speed.pid}/status").read_text()
    figures = {
        "cpu_seconds": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        "wall_seconds": time.monotonic() - started,
        "peak_mib": int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024,
    }
    # A new view is served from its first batch run on; here it covers nothing, for nothing is archived.
    bench.one_shot(folder, "batch", "run")
    serve, served = bench.service(folder, "serve", pin=False, speed=f"http://{address}")
    answer = folder / "answer"
    write_answer(Client(served), "plain", answer)
    bench.stop(serve)
    bench.stop(speed)
    return figures, answer, None


def topic_clickhouse(bench, topic, events):
    folder = bench.fresh("clickhouse")
    answer = folder / "answer"
    command = [sys.executable, HERE / "peers/clickhouse.py", bench.arguments.brokers, topic, events, answer, folder / "data"]
    figures, output = bench.measured(folder.name, command)
    return figures, answer, json.loads(output)


def java(bench, peer, main):
    folder = Path(bench.arguments.java) / f"compare-{peer}"
    opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.util", "java.lang", "java.nio")]
    return ["java", "-Xmx2g", "-XX:+UseSerialGC", *opens, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{folder}/classes:{folder}/lib/*", main]


def topic_flink(bench, topic, events):
    folder = bench.fresh("flink")
    answer = folder / "answer"
    figures, _ = bench.measured(folder.name, [*java(bench, "flink", "FlinkPeer"), bench.arguments.brokers, topic, events, answer])
    return figures, answer, None


def topic_streams(bench, topic, events):
    folder = bench.fresh("streams")
    answer = folder / "answer"
    command = [*java(bench, "streams", "StreamsPeer"), bench.arguments.brokers, topic, folder / "state", events, answer]
    figures, _ = bench.measured(folder.name, command)
    return figures, answer, None


TOPIC = {"bifold": topic_bifold, "clickhouse": topic_clickhouse, "flink": topic_flink, "streams": topic_streams}


# --- recompute from the archive's Parquet -------------------------------------------------------------------------------


def archive(bench, topic, events):
    """Archives and folds a topic once; gives the folder whose store holds it and the pattern of its Parquet files."""
    folder = bench.fresh("archive")
    bench.pipeline(folder, topic, DISTINCT_VIEW)
    for role in ("collect", "speed"):
        process, address = bench.service(folder, role, pin=False)
        wait_until(f"bifold {role}", lambda: metric(address, "bifold_lag_offsets") == 0, pause=0.2)
        bench.stop(process)
    pattern = str(folder / "store/**/*.parquet")
    files = [path for path in glob.glob(pattern, recursive=True) if "archive" in path]
    folders = {os.path.dirname(path) for path in files}
    assert len(folders) == 1, folders
    return folder, f"{folders.pop()}/*.parquet"


def recompute_bifold(bench, folder, query):
    figures, output = bench.measured(f"batch-{query}", bench.bifold(folder, "batch", "run", "--full", "--view", query))
    return figures, json.loads(output.splitlines()[-1])


def recompute_table(bench, engine, query, pattern):
    folder = bench.fresh(f"{engine}-{query}")
    answer = folder / "answer"
    figures, output = bench.measured(folder.name, [sys.executable, HERE / "peers/tables.py", engine, query, pattern, answer])
    return figures, answer, output


# --- a merged query's latency ------------------------------------------------------------------------------------------


def merged(bench, topic, events):
    """Half of the topic in a batch view, half in the speed layer's deltas and open epoch; `serve` has core 0 for itself."""
    produce(bench, topic, events // 2)
    folder = bench.fresh("merged")
    bench.pipeline(folder, topic)
    collect, _ = bench.service(folder, "collect", pin=False)
    speed, address = bench.service(folder, "speed", pin=False)
    bench.one_shot(folder, "batch", "run", "--at-least", "latest", "--timeout", "5m")
    bench.stop(collect)
    produce(bench, topic, events, skip=events // 2)
    wait_until("bifold speed", lambda: metric(address, "bifold_lag_offsets") == 0)
    return folder, f"http://{address}"


def latency_bifold(bench, folder, speed):
    serve, address = bench.service(folder, "serve", speed=speed)
    client = Client(address)
    text = "SELECT region, sum(n) AS n, sum(s) AS s FROM plain GROUP BY region ORDER BY region"
    rows = client.sql(text, at_least="latest")
    times = []
    for _ in range(200):
        started = time.perf_counter()
        assert client.sql(text) == rows
        times.append((time.perf_counter() - started) * 1000)
    bench.stop(serve)
    return times


# --- freshness ---------------------------------------------------------------------------------------------------------


class Follower:
    """A peer that prints "MINUTE,REGION,ACTION,COUNT" for each change."""

    def __init__(self, bench, command, log):
        self.process = bench.pinned(command, stdout=subprocess.PIPE, stderr=open(log, "w"), text=True, bufsize=1)
        bench.open.append(self.process)

    def wait(self, count):
        for line in self.process.stdout:
            if line.count(",") == 3 and int(line.rsplit(",", 1)[1]) >= count:
                return
        raise SystemExit("a follower ended")

    def close(self):
        self.process.kill()
        self.process.wait()


class Poller:
    """bifold, asked again and again."""

    def __init__(self, bench, folder):
        self.process, address = bench.service(folder, "up")
        self.client = Client(address)
        self.bench = bench

    def wait(self, count):
        while True:
            try:
                rows = self.client.sql("SELECT sum(n) AS n FROM plain")
            except RuntimeError as building:
                if "building" not in str(building):
                    raise
                time.sleep(0.05)
                continue
            if rows and (rows[0]["n"] or 0) >= count:
                return
            time.sleep(0.002)

    def close(self):
        self.bench.stop(self.process)


def freshness(bench, name, events):
    """Milliseconds from a record's acknowledgement by the broker until the contender shows it, for single events."""
    topic = f"fresh-{name}-{bench.count}"
    folder = bench.fresh(f"fresh-{name}")
    producer = Producer({"bootstrap.servers": bench.arguments.brokers, "linger.ms": 0, "acks": "all"})
    acknowledged = []

    def send(i):
        # One group, so that its count says which event is in.
        line = event(random.Random(1), i, at=0)
        producer.produce(topic, line.encode(), partition=0, on_delivery=lambda error, _: acknowledged.append((error, time.perf_counter())))
        producer.flush()
        error, at = acknowledged[-1]
        assert error is None, error
        return at

    bench.pipeline(folder, topic)
    subprocess.run(list(map(str, bench.bifold(folder, "produce", "events", "-", "--create-topic", 1))), input=b"", stdout=subprocess.DEVNULL, check=True)
    brokers = bench.arguments.brokers
    contender = {
        "bifold": lambda: Poller(bench, folder),
        "clickhouse": lambda: Follower(bench, [sys.executable, HERE / "peers/clickhouse.py", brokers, topic, "follow", "-", folder / "data"], folder / "log"),
        "flink": lambda: Follower(bench, [*java(bench, "flink", "FlinkPeer"), brokers, topic, "follow", "-"], folder / "log"),
        "streams": lambda: Follower(bench, [*java(bench, "streams", "StreamsPeer"), brokers, topic, folder / "state", "follow", "-"], folder / "log"),
    }[name]()
    times = []
    warm = 10
    for i in range(1, events + warm + 1):
        at = send(i)
        contender.wait(i)
        if i > warm:
            times.append((time.perf_counter() - at) * 1000)
        time.sleep(random.uniform(0.02, 0.12))
    contender.close()
    return times


# --- profiles of the rows where bifold is not always first ---------------------------------------------------------------


def hottest(data):
    """The functions that take most of a profile, each with its share."""
    report = subprocess.run(
        ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--percent-limit", "1.5", "-F", "overhead,symbol"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.strip() for line in report.splitlines() if line.strip() and not line.startswith("#")]
    return [re.sub(r"\s+\[[.k]\] ", "  ", line)[:150] for line in lines[:20]]


def profiles(bench, prepared):
    """A profile of a full recompute with count(DISTINCT), and of `serve` answering the dashboard's query."""
    folder, _ = prepared["archive"]
    data = bench.folder / "batch.perf"
    bench.measured("profile", ["perf", "record", "-q", "-F", "997", "-o", data, *bench.bifold(folder, "batch", "run", "--full", "--view", "distinct")])
    found = {"full recompute, count(DISTINCT)": hottest(data)}
    merged_folder, speed = prepared["merged"]
    serve, address = bench.service(merged_folder, "serve", speed=speed)
    client = Client(address)
    text = "SELECT region, sum(n) AS n, sum(s) AS s FROM plain GROUP BY region ORDER BY region"
    client.sql(text, at_least="latest")
    data = bench.folder / "serve.perf"
    perf = subprocess.Popen(["perf", "record", "-q", "-F", "997", "-o", data, "-p", str(serve.pid)])
    time.sleep(0.5)
    for _ in range(2_000):
        client.sql(text)
    perf.send_signal(signal.SIGINT)
    perf.wait()
    bench.stop(serve)
    found["a query's latency"] = hottest(data)
    return found


# --- the run and its report --------------------------------------------------------------------------------------------


def same(what, answers):
    hashes = {name: answer_hash(path) for name, path in answers.items()}
    if len(set(hashes.values())) != 1 or next(iter(hashes.values()))[0] == 0:
        raise SystemExit(f"{what}: answers differ: {hashes}")
    rows, digest = next(iter(hashes.values()))
    print(f"{what}: {len(hashes)} answers equal, {rows} rows, {digest}", flush=True)
    return {"contenders": sorted(hashes), "rows": rows, "sha256": digest}


def once(bench, prepared, wanted):
    """One run: everything once, in an order of chance."""
    events, small = prepared["events"], prepared["small"]
    run = {"topic": {}, "recompute": {}, "latency": {}, "freshness": {}, "answers": {}}
    for size, topic in ((small, "compare-small"), (events, "compare-big")):
        answers = {}
        for name in random.sample(sorted(TOPIC), len(TOPIC)):
            if name not in wanted:
                continue
            figures, answers[name], times = TOPIC[name](bench, topic, size)
            run["topic"].setdefault(name, {})[size] = figures
            if times:
                run["latency"][name] = times
            print(f"topic {size} {name}: {figures['cpu_seconds']:.2f} CPU-s, {figures['wall_seconds']:.2f} s", flush=True)
        run["answers"][f"topic {size}"] = same(f"topic {size}", answers)
    folder, pattern = prepared["archive"]
    for query in ("plain", "distinct"):
        answers = {}
        if "bifold" in wanted:
            figures, result = recompute_bifold(bench, folder, query)
            assert result["mode"] == "full" and result["rows_read"] == events, result
            run["recompute"].setdefault("bifold", {})[query] = figures
            serve, address = bench.service(folder, "serve", pin=False)
            answers["bifold"] = bench.fresh(f"bifold-{query}") / "answer"
            write_answer(Client(address), query, answers["bifold"])
            bench.stop(serve)
        for engine in random.sample(TABLES, len(TABLES)):
            if engine in wanted:
                figures, answers[engine], _ = recompute_table(bench, engine, query, pattern)
                run["recompute"].setdefault(engine, {})[query] = figures
        for name, figures in run["recompute"].items():
            print(f"recompute {query} {name}: {figures[query]['cpu_seconds']:.2f} CPU-s", flush=True)
        run["answers"][f"recompute {query}"] = same(f"recompute {query}", answers)
    if "bifold" in wanted:
        run["latency"]["bifold"] = latency_bifold(bench, *prepared["merged"])
    for engine in TABLES:
        if engine in wanted:
            _, _, output = recompute_table(bench, engine, "latency", pattern)
            run["latency"][engine] = json.loads(output)
    for name in TOPIC:
        if name in wanted:
            run["freshness"][name] = freshness(bench, name, 50)
            print(f"freshness {name}: median {statistics.median(run['freshness'][name]):.1f} ms", flush=True)
    return run


def spread(values, digits=2):
    """The middle of several runs, and from where to where they went."""
    low, middle, high = min(values), statistics.median(values), max(values)
    if low == high:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def by_middle(figures):
    return sorted(figures, key=lambda item: statistics.median(item[1]))


def report(result):
    """The tables in Markdown, each with its winner first."""
    runs, events, small = result["runs"], result["events"], result["small"]
    parts = []
    rows = []
    for name, cpu in by_middle([(name, [run["topic"][name][events]["cpu_seconds"] for run in runs]) for name in runs[0]["topic"]]):
        marginal = [
            (events - small) / (run["topic"][name][events]["cpu_seconds"] - run["topic"][name][small]["cpu_seconds"]) / 1e6 for run in runs
        ]
        ratio = [run["topic"][name][events]["cpu_seconds"] / run["topic"]["bifold"][events]["cpu_seconds"] for run in runs]
        peak = [run["topic"][name][events]["peak_mib"] for run in runs]
        rows.append([TITLES[name], spread(cpu), spread(ratio), spread(marginal), spread(peak, 0)])
    parts.append(f"**From a topic to queryable state**: {events:,} events of {result['bytes_per_event']:.0f} bytes, {PARTITIONS} partitions, count, sum, min, max by minute, region and action.\n")
    parts.append(table(["", "CPU seconds", "× bifold's", "marginal: million events a CPU-second", "peak MiB"], rows))
    for query, words in (("plain", "count, sum, min, max"), ("distinct", "count, count(DISTINCT user)")):
        rows = []
        for name, cpu in by_middle([(name, [run["recompute"][name][query]["cpu_seconds"] for run in runs]) for name in runs[0]["recompute"]]):
            ratio = [run["recompute"][name][query]["cpu_seconds"] / run["recompute"]["bifold"][query]["cpu_seconds"] for run in runs]
            peak = [run["recompute"][name][query]["peak_mib"] for run in runs]
            rows.append([TITLES[name], spread(cpu), spread(ratio), spread(peak, 0)])
        parts.append(f"\n**Full recompute from the archive's Parquet**: {words} by minute, region and action, {events:,} rows. bifold also sorts, writes and publishes the view.\n")
        parts.append(table(["", "CPU seconds", "× bifold's", "peak MiB"], rows))
    rows = []
    what = {"bifold": "view, half batch, half speed; over HTTP", "clickhouse": "its view; in process"}
    for name, middle in by_middle([(name, [statistics.median(run["latency"][name]) for run in runs]) for name in runs[0]["latency"]]):
        high = [percentile(run["latency"][name], 0.99) for run in runs]
        rows.append([TITLES[name], what.get(name, "all rows of the archive; in process"), spread(middle), spread(high)])
    parts.append("\n**A query's latency**: count and sum by region over all minutes, milliseconds.\n")
    parts.append(table(["", "over", "median", "99 of 100"], rows))
    rows = []
    for name, middle in by_middle([(name, [statistics.median(run["freshness"][name]) for run in runs]) for name in runs[0]["freshness"]]):
        rows.append([TITLES[name], spread(middle, 1), spread([percentile(run["freshness"][name], 0.99) for run in runs], 1)])
    parts.append("\n**Freshness**: from the broker's acknowledgement of a single event until the contender shows it, milliseconds.\n")
    parts.append(table(["", "median", "99 of 100"], rows))
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts.append(
        f"\n{len(runs)} runs, contenders in an order of chance, each pinned to one core of {machine['cpu']} ({machine['cores']} cores, shared), {machine['date']}. "
        f"Middle of the runs, and from where to where. In every run all answers were equal by hash. {versions}."
    )
    return "\n".join(parts) + "\n"


def versions(bench):
    import chdb
    import datafusion
    import duckdb
    import polars

    def pom(peer, word):
        return re.search(rf"<{word}>(.*?)</{word}>", (HERE / f"peers/{peer}/pom.xml").read_text())[1]

    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "bifold": commit,
        "chDB": f"{chdb.__version__}",
        "Flink": pom("flink", "flink.version"),
        "Kafka Streams": pom("streams", "kafka.version"),
        "DuckDB": duckdb.__version__,
        "Polars": polars.__version__,
        "DataFusion": datafusion.__version__,
        "Python": platform.python_version(),
    }


def write(result, text):
    page = ROOT / "docs/performance.md"
    begin, end = "<!-- compare -->", "<!-- /compare -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{text}{end}{rest.split(end)[1]}")
    (ROOT / "docs/compare.json").write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--bifold", "--brokers", "--folder", "--java"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(TITLES))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--profile", action="store_true", help="profiles of bifold instead (needs perf)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {1})
    os.environ["TZ"] = "UTC"
    time.tzset()
    bench = Bench(arguments)
    try:
        events, small = arguments.events, arguments.events // 10
        size = produce(bench, "compare-small", small) and produce(bench, "compare-big", events)
        prepared = {
            "events": events,
            "small": small,
            "archive": archive(bench, "compare-big", events),
            "merged": merged(bench, "compare-merged", events),
        }
        if arguments.profile:
            for row, functions in profiles(bench, prepared).items():
                print(f"{row}:", *functions, sep="\n  ")
            return
        runs = []
        for number in range(arguments.runs):
            print(f"run {number + 1} of {arguments.runs}", flush=True)
            runs.append(once(bench, prepared, arguments.only.split(",")))
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        result = {
            "events": events,
            "small": small,
            "bytes_per_event": size / events,
            "machine": {"cpu": cpu[1] if cpu else platform.processor(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")},
            "versions": versions(bench),
            "runs": runs,
        }
        text = report(result)
        print(text)
        if arguments.write:
            write(result, text)
        else:
            print(json.dumps(result))
    finally:
        bench.close()


if __name__ == "__main__":
    main()
