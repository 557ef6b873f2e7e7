"""Faults: planned from the seed alone, each on a thread of its own until it is healed."""

import random
import signal
import threading
import time
from collections import defaultdict

# How often, of all; where, and how.
KINDS = {
    "kill": 22, "stop": 16, "term": 8,
    "broker kill": 4, "broker restart": 3, "kafka cut": 5, "kafka stall": 5, "kafka delay": 4,
    "s3 cut": 7, "s3 stall": 6, "s3 delay": 5, "s3 deaf": 7,
    "live cut": 4, "live stall": 4, "live delay": 3,
    "batch kill": 9,
}


class Plan:
    """An endless row of faults from a seed: (pause, kind, target, seconds, milliseconds)."""

    def __init__(self, seed, roles, has_s3):
        self.random, self.roles = random.Random(f"{seed}/faults"), roles
        self.kinds = {kind: weight for kind, weight in KINDS.items() if has_s3 or not kind.startswith("s3")}

    def next(self):
        pick = self.random
        kind = pick.choices(list(self.kinds), list(self.kinds.values()))[0]
        target, seconds = pick.choice(self.roles), pick.uniform(0, 3)
        if kind == "stop":
            # Long enough at times that others take over what it holds.
            seconds = pick.uniform(1, 15) if pick.random() < 0.85 else pick.uniform(15, 35)
        elif kind == "batch kill":
            target, seconds = "batch run", pick.uniform(0, 1.5)
        elif kind.startswith("broker"):
            target = "broker"
        elif kind.startswith("kafka"):
            target, seconds = "kafka", pick.uniform(1, 12)
        elif kind.startswith("s3"):
            target, seconds = "s3:" + pick.choice(["", "batch", target, target, target]), pick.uniform(1, 12)
        elif kind.startswith("live"):
            target, seconds = "live:" + pick.choice([""] + [r for r in self.roles if r.startswith("speed")] * 2), pick.uniform(1, 12)
        return pick.uniform(0.2, 4), kind, target, seconds, pick.choice([20, 100, 400, 1500])


class Faults:
    def __init__(self, fleet, load, record, seed):
        self.fleet, self.load, self.record = fleet, load, record
        self.plan = Plan(seed, list(fleet.processes), fleet.s3 is not None)
        self.threads = []
        # One fault at a time on one target.
        self.locks = defaultdict(threading.Lock)

    def one(self):
        """Begins the next fault of the plan, after its pause."""
        pause_s, kind, target, seconds, ms = self.plan.next()
        self.record.stop.wait(pause_s)
        lock = self.locks["s3" if target.startswith("s3") else "live" if target.startswith("live") else target]
        while not lock.acquire(timeout=0.2):
            if self.record.stop.is_set():
                return
        self.record.faults[kind] += 1
        number = sum(self.record.faults.values())
        thread = threading.Thread(target=self.run, args=(number, lock, kind, target, seconds, ms), name=kind, daemon=True)
        thread.start()
        self.threads = [t for t in self.threads if t.is_alive()] + [thread]

    def run(self, number, lock, kind, target, seconds, ms):
        self.record.event(f"#{number} {kind}: {target}, {seconds:.1f} s" + (f", {ms} ms" if kind.endswith("delay") else ""))
        try:
            if kind in ("kill", "stop", "term"):
                self.process(kind, self.fleet.processes[target], seconds)
            elif kind.startswith("broker"):
                self.broker(kind, seconds)
            elif kind == "batch kill":
                self.batch(seconds)
            else:
                self.network(kind.split()[1], target, seconds, ms / 1000)
            self.record.event(f"#{number} healed")
        except Exception as error:  # noqa: BLE001
            self.record.fail(f"the fault {kind} on {target} could not be done: {error!r}")
        finally:
            lock.release()

    def process(self, kind, process, seconds):
        process.disturb()
        if kind == "stop":
            process.child.send_signal(signal.SIGSTOP)
            self.record.stop.wait(seconds)
            process.child.send_signal(signal.SIGCONT)
            return process.calm()
        if kind == "kill":
            process.kill()
        else:
            process.terminate()
        self.record.stop.wait(seconds)
        process.start()
        # What it needs may be out of reach for as long as other faults last.
        process.wait_ready(180)

    def broker(self, kind, seconds):
        with self.load.ending:
            if kind == "broker kill":
                self.fleet.broker.kill()
            else:
                self.fleet.broker.stop()
            self.record.stop.wait(seconds)
            self.fleet.broker.start()
            self.record.stop.wait(1)

    def batch(self, seconds):
        until = time.monotonic() + 10
        while self.fleet.batch.idle.is_set() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(seconds)
        while not self.fleet.batch.kill():
            if time.monotonic() > until + 10:
                return
            time.sleep(0.02)

    def network(self, mode, target, seconds, delay_s):
        names = self.fleet.proxies.named(target)
        self.fleet.proxies.set(names, mode, delay_s)
        self.record.stop.wait(seconds)
        self.fleet.proxies.set(names, "pass")

    def heal(self):
        """Waits until every fault is over."""
        for thread in self.threads:
            thread.join(300)
            if thread.is_alive():
                self.record.fail(f"the fault {thread.name} is not healed after 300 s")
