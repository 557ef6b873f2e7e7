#!/usr/bin/env python3
"""What bifold does on a full disk, and after it.

    sudo python3 tests/chaos/disk_full.py --bifold target/debug/bifold

Mounts a small file system of its own (tmpfs, which needs privileges), runs `up` on it, appends over HTTP until it is full and some
time more, asks, then enlarges it. Everything that was acknowledged has to count, nothing else, and appending has to go on without a
restart; `verify` has to be equal and `audit` even. Exit code 1 if not; 2 if it may not mount.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

URL = "http://127.0.0.1:27999"
PIPELINE = """
CREATE TABLE e (id BIGINT, k TEXT, pad TEXT) WITH (connector = 'kafka', topic = 'e', format = 'json');
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(id) AS s FROM e;
CREATE MATERIALIZED VIEW by_k AS SELECT k, count(*) AS c FROM e GROUP BY k;
"""


def post(path, body):
    with urllib.request.urlopen(urllib.request.Request(URL + path, body), timeout=60) as reply:
        return json.load(reply)


def total(at_least):
    body = json.dumps({"sql": "SELECT c, s FROM total", "at_least": at_least, "timeout_ms": 20_000}).encode()
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


def mount(options, folder):
    if subprocess.run(["mount", *options, folder], stderr=subprocess.DEVNULL, check=False).returncode:
        print("not run: it may not mount a file system")
        sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bifold", required=True, type=os.path.abspath)
    bifold = parser.parse_args().bifold
    work, disk = Path(tempfile.mkdtemp()), tempfile.mkdtemp()
    (work / "p.sql").write_text(PIPELINE)
    mount(["-t", "tmpfs", "-o", "size=24m", "tmpfs"], disk)
    common = ["--pipeline", str(work / "p.sql"), "--data-dir", f"{disk}/d"]
    every = {"SPEED__EPOCH_INTERVAL": "500ms", "COLLECT__FLUSH_INTERVAL": "500ms", "BATCH__SCHEDULE": "3s"}
    environment = os.environ | {f"BIFOLD_{key}": value for key, value in every.items()}
    listen = URL.removeprefix("http://")
    with open(work / "up.err", "w") as log:
        up = subprocess.Popen([bifold, "up", *common, "--listen", listen], env=environment, stderr=log, stdout=subprocess.PIPE, text=True)
    try:
        if not up.stdout.readline():
            sys.exit(f"not ready: see {work}/up.err")
        count, ids, refused, number = 0, 0, 0, 0
        while refused < 10:
            numbers = range(number, number + 500)
            lines = [json.dumps({"id": i, "k": f"k{i % 7}", "pad": f"{random.getrandbits(1600):x}"}) for i in numbers]
            number += 500
            try:
                post("/v1/events/e", "\n".join(lines).encode())
                count, ids = count + 500, ids + sum(numbers)
            except urllib.error.HTTPError as error:
                refused += 1
                if error.code != 503:
                    sys.exit(f"{error.code}: {error.read().decode()}")
                time.sleep(0.3)
        expected = {"c": count, "s": ids}
        print(f"{count} events were acknowledged, {refused} batches refused")
        mount(["-o", "remount,size=300m"], disk)
        found = retried("after the disk was enlarged", lambda: total("latest"))
        if found != expected:
            sys.exit(f"counted {found}, acknowledged {expected}")
        retried("appending goes on", lambda: post("/v1/events/e", b'{"id":0,"k":"x"}'))
        if (found := retried("after one more", lambda: total("latest"))) != expected | {"c": count + 1}:
            sys.exit(f"counted {found} after one more")
        subprocess.run([bifold, "verify", *common, "--url", URL], check=True, stdout=subprocess.DEVNULL)
        up.send_signal(signal.SIGTERM)
        if code := up.wait(40):
            sys.exit(f"ended with {code}")
        subprocess.run([bifold, "audit", "e", *common], check=True, stdout=subprocess.DEVNULL)
        print("all of it counts, nothing else; verify equal, audit even")
    finally:
        up.kill()
        up.wait()
        subprocess.run(["umount", disk], check=False)


if __name__ == "__main__":
    main()
