#!/usr/bin/env python3
"""bifold's roles as real processes, with faults, and every answer checked against what was produced.

    python3 tests/chaos/run.py --bifold target/release/bifold [--faults 200] [--seed N] [--minutes M] [--keep DIR]
                               [--store s3|local] [--rate 300] [--speed 3] [--collect 2] [--serve 2]

Needs the Python package confluent-kafka, a C compiler, and what deploy/dev/kafka and deploy/dev/s3 need.

Three `speed`, two `collect` and two `serve` run on an Apache Kafka with a topic of 12 partitions and on an S3 server, batch runs
follow one another. Between bifold and Kafka, between each process and S3, and between `serve` and each `speed` stands a proxy.
The load goes to the broker directly: single events, arrays and lines of them, late, twice, malformed, tombstones, transactions
of which a third are aborted. Its acknowledgements are the truth: they say which rows stand at which offset. Every answer of the
servers is compared with the views' rows over exactly the offsets that it says it covers. What an answer to `at_least` covered is
asked for again later, of either server: a 200 must cover it, and once all is healed both must give one. No answer covers less than
was durable at its ledger number. A plain answer may: how often one covered less than an earlier one to `at_least` is counted.

Faults, chosen by the seed: kill -9 of a role or of a batch run, SIGSTOP for 1 to 35 s, SIGTERM, the broker killed or stopped,
the ways to Kafka, S3 and `speed` cut, stalled, delayed, or (S3) with answers lost; the wall clock of a process jumps by a second
to five hours, either way, and back again; no space for what a process writes locally: with S3 only the scratch of batch runs, with
a local store everything. In every other round one process runs from its start with a clock that is wrong by up to five minutes.
After every 20 faults all is healed, but for that clock, the load comes to rest and both servers must answer exactly all of it;
after every 50 also `batch run`, `verify`, the dead letters and, where there is one, `audit`. Ends with one line of figures; exit
code 1 at the first thing that is wrong, with the logs kept.

The seed fixes the faults and the records, not how the processes meet. A full disk below the local log: disk_full.py.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from faults import Faults
from fleet import ROLES, TOPIC, Fleet
from poller import WHOLE, Poller, offsets
from producer import Load
from record import Record
from truth import Truth

ROUND, LONG_ROUND = 20, 50


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bifold", required=True, type=Path)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, help="no new fault after that")
    parser.add_argument("--keep", type=Path, help="a new folder for all files, which stay")
    parser.add_argument("--store", choices=["s3", "local"], default="s3")
    for role, count in ROLES.items():
        parser.add_argument(f"--{role}", type=int, default=count, help="how many of them")
    parser.add_argument("--rate", type=int, default=300, help="records a second beside transactions")
    return parser.parse_args()


class Run:
    def __init__(self, options, folder):
        self.options, self.record = options, Record(folder)
        self.faults = None
        self.fleet = Fleet(options.bifold.resolve(), folder, options.store, self.record)

    def go(self):
        options, fleet, record = self.options, self.fleet, self.record
        self.truth = Truth()
        self.load = Load(fleet.broker.address, self.truth, record, options.rate, options.seed)
        fleet.start({role: getattr(options, role) for role in ROLES})
        self.has_audit = subprocess.run([options.bifold, "audit", "--help"], capture_output=True).returncode == 0
        self.poller = Poller(fleet.servers(), self.load, record, options.seed)
        self.faults = faults = Faults(fleet, self.load, record, options.seed)
        self.resume()
        record.say("all is ready")
        until = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
        for number in range(1, options.faults + 1):
            faults.one()
            for process in fleet.processes.values():
                process.check()
            last = number == options.faults or time.monotonic() > until
            if last or number % ROUND == 0 or number % LONG_ROUND == 0:
                self.round(faults, last or number % LONG_ROUND == 0)
                if not last:
                    self.resume()
            if last or record.stop.is_set():
                break

    def resume(self):
        if self.record.stop.is_set():
            return
        self.faults.wrong_clock()
        self.load.running.set()
        self.fleet.batch.wanted.set()

    def round(self, faults, is_long):
        """Heals all, brings the load to rest and compares everything."""
        record, fleet = self.record, self.fleet
        record.event("a round: healing")
        faults.heal()
        # No batch run meanwhile: one that leaps would hide a speed layer that stands still.
        fleet.batch.wanted.clear()
        self.let_settle("the batch run ends", 200, fleet.batch.idle.is_set)
        self.let_settle("every process is ready", 120, lambda: not [p for p in fleet.processes.values() if p.not_ready()])
        end = self.load.pause()
        if record.stop.is_set():
            return
        began = time.monotonic()
        for server in fleet.servers():
            if promised := self.poller.promises.all():
                # Here all is healed: both servers keep what any of them ever answered to an `at_least`.
                self.let_settle(f"{server.name} answers what was answered before: {promised}", 120,
                                lambda: self.poller.ask(server, WHOLE[0], offsets(promised), promised, 20_000))  # noqa: B023
                record.count("promises_kept_when_healed")
            for query in WHOLE:
                # The judge finds it wrong if it covers less than all.
                self.let_settle(f"{server.name} answers {query}", 120,
                                lambda: self.poller.ask(server, query, "latest", end, 20_000))  # noqa: B023
        record.peak("slowest_recovery_s", round(time.monotonic() - began, 1))
        self.poller.drain(180)
        if is_long and not record.stop.is_set():
            self.long_round(end)
        for process in fleet.processes.values():
            process.check()
        if not record.stop.is_set():
            record.count("rounds")
            record.say(f"round {record.counts['rounds']} is right: {sum(end)} offsets, {json.dumps(record.counts)}")

    def long_round(self, end):
        """What the commands say of the whole."""
        fleet, record = self.fleet, self.record
        code, lines, errors = fleet.run("batch", "run", "--at-least", offsets(end), "--timeout", "120s")
        if code != 0:
            record.fail(f"batch run ended with {code}: {errors[-2000:]}")
        for server in fleet.servers():
            code, lines, errors = fleet.run("verify", "--url", server.url, "--timeout", "120s")
            if code != 0 or len(lines) != 3 or not all(line["equal"] for line in lines):
                record.fail(f"verify on {server.name} ended with {code}: {lines} {errors[-2000:]}")
        code, lines, errors = fleet.run("dead-letters", "payments", "--output", "json")
        found = dict(Counter((line["partition"], line["offset"]) for line in lines))
        expected = self.truth.dead_letters()
        if code != 0 or found != expected:
            odd = {place for place in found.keys() | expected.keys() if found.get(place) != expected.get(place)}
            record.fail(f"dead-letters ended with {code}; other than expected at {sorted(odd)[:10]} of {TOPIC}: {errors[-2000:]}")
        if self.has_audit:
            code, lines, errors = fleet.run("audit", "payments")
            record.count("audits")
            if code != 0:
                record.fail(f"audit ended with {code}: {lines} {errors[-2000:]}")
        record.count("long_rounds")

    def let_settle(self, what, timeout_s, done):
        until = time.monotonic() + timeout_s
        while not self.record.stop.is_set() and not done():
            if time.monotonic() > until:
                states = {name: process.not_ready() for name, process in self.fleet.processes.items()}
                self.record.fail(f"healed for {timeout_s} s, and still not: {what}; {states}")
            time.sleep(0.1)

    def summary(self):
        record = self.record
        figures = {"seed": self.options.seed, "faults": sum(record.faults.values()), "by_kind": dict(sorted(record.faults.items()))}
        figures |= {"answers_checked": 0, "wrong_answers": 0, "503": sum(n for k, n in record.counts.items() if k.startswith("503"))}
        return json.dumps(figures | dict(sorted(record.counts.items())) | {"seconds": round(record.clock())})


def main():
    options = arguments()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    run = Run(options, folder)
    record = run.record
    record.say(f"seed {options.seed}, files in {folder}")
    try:
        run.go()
    except Exception as error:  # noqa: BLE001
        record.fail(f"the harness itself failed: {error!r}")
    finally:
        record.stop.set()
        if run.faults:
            run.faults.heal()  # none of them starts anything again after this
        run.fleet.end()
    if record.failures:
        print(f"\nseed {options.seed}; the last minute of faults:", *record.last_minute(), "what is wrong:", sep="\n")
        for at, text in record.failures:
            print(f"{at:8.1f}  {text}")
        print(f"logs in {folder}")
    elif not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(run.summary(), flush=True)
    sys.exit(1 if record.failures else 0)


if __name__ == "__main__":
    main()
