#!/usr/bin/env python3
"""What bifold does on a full disk, and after it.

    python3 tests/chaos/disk_full.py --bifold target/debug/bifold

Runs `up` on a folder whose disk fills up at any moment, appends over HTTP until it is full and some time more, asks, then frees it;
twice: first there is no new block, then nothing at all can be made, written or flushed. A library that is loaded before libc says so
(inside.c), so that no privileges are needed. Everything that was acknowledged has to count, nothing else, and appending has to go on
without a restart; `verify` has to be equal and `audit` even. Exit code 1 if not.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from fleet import free_ports
from inside import Inside, compiled

LISTEN = f"127.0.0.1:{free_ports(1)[0]}"
URL = "http://" + LISTEN
PIPELINE = """
CREATE TABLE e (id BIGINT, k TEXT, pad TEXT) WITH (connector = 'kafka', topic = 'e', format = 'json');
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(id) AS s FROM e;
CREATE MATERIALIZED VIEW by_k AS SELECT k, count(*) AS c FROM e GROUP BY k;
"""


def post(path, body):
    with urllib.request.urlopen(urllib.request.Request(URL + path, body), timeout=60) as reply:
        return json.load(reply)


def total(at_least):
    body = json.dumps({"sql": "SELECT c, s FROM total", "timeout_ms": 20_000} | ({"at_least": at_least} if at_least else {})).encode()
    return post("/v1/sql", body)["rows"][0]


def retried(what, action, patience=60):
    """The action's result, as soon as there is one."""
    until = time.monotonic() + patience
    while True:
        try:
            return action()
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > until:
                sys.exit(f"{what}: {error.read().decode() if hasattr(error, 'read') else error}")
            time.sleep(0.5)


class Load:
    """What was sent, and what of it was acknowledged."""

    def __init__(self):
        self.number = self.count = self.ids = 0

    def append(self):
        """Whether 500 more events are acknowledged."""
        numbers = range(self.number, self.number + 500)
        self.number += 500
        lines = [json.dumps({"id": i, "k": f"k{i % 7}", "pad": f"{random.getrandbits(1600):x}"}) for i in numbers]
        try:
            post("/v1/events/e", "\n".join(lines).encode())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                sys.exit(f"{error.code}: {error.read().decode()}")
            return False
        self.count, self.ids = self.count + 500, self.ids + sum(numbers)
        return True

    def check(self, what):
        if (found := retried(what, lambda: total("latest"))) != (expected := {"c": self.count, "s": self.ids}):
            sys.exit(f"{what}: counted {found}, acknowledged {expected}")


def full(how, load, inside):
    """The disk fills up while events are appended, stays full until ten batches were refused, and is freed."""
    before, refused = load.count, 0
    timer = threading.Timer(random.uniform(1, 3), inside.fill, [how])
    timer.start()
    until = time.monotonic() + 60
    while refused < 10:
        if time.monotonic() > until:
            sys.exit(f"full ({how}) for a minute, and {refused} batches were refused")
        if not load.append():
            refused += 1
            time.sleep(0.3)
    timer.join()
    try:
        # What is durable can still be asked for; the local log may not be open.
        if total(None)["c"] > load.count:
            sys.exit("it counts what it refused")
    except urllib.error.HTTPError as error:
        if error.code != 503:
            sys.exit(f"asked on a full disk: {error.code}: {error.read().decode()}")
    inside.free()
    load.check("after the disk was freed")
    retried("appending goes on", lambda: load.append() or retry_later())
    load.check("after some more")
    print(f"full ({how}): {load.count - before} events were acknowledged, {refused} batches refused; all of it counts, nothing else")


def retry_later():
    raise ConnectionError("a batch is still refused")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bifold", required=True, type=os.path.abspath)
    bifold = parser.parse_args().bifold
    work = Path(tempfile.mkdtemp())
    (work / "p.sql").write_text(PIPELINE)
    (work / "disk").mkdir()
    inside = Inside(compiled(work), work, "up", work / "disk")
    common = ["--pipeline", str(work / "p.sql"), "--data-dir", str(work / "disk" / "d")]
    every = {"SPEED__EPOCH_INTERVAL": "500ms", "COLLECT__FLUSH_INTERVAL": "500ms", "BATCH__SCHEDULE": "3s"}
    environment = os.environ | {f"BIFOLD_{key}": value for key, value in every.items()} | inside.environment
    with open(work / "up.err", "w") as log:
        up = subprocess.Popen([bifold, "up", *common, "--listen", LISTEN], env=environment, stderr=log, stdout=subprocess.PIPE, text=True)
    try:
        if not up.stdout.readline():
            sys.exit(f"not ready: see {work}/up.err")
        load = Load()
        for how in ("blocks", "all"):
            full(how, load, inside)
        if b"panicked at" in (work / "up.err").read_bytes():
            sys.exit(f"a panic: see {work}/up.err")
        subprocess.run([bifold, "verify", *common, "--url", URL], check=True, stdout=subprocess.DEVNULL)
        up.send_signal(signal.SIGTERM)
        if code := up.wait(40):
            sys.exit(f"ended with {code}")
        subprocess.run([bifold, "audit", "e", *common], check=True, stdout=subprocess.DEVNULL)
        print("a full disk: verify equal, audit even")
    finally:
        up.kill()
        up.wait()
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
