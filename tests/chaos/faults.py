"""Faults: planned from the seed alone, each on a thread of its own until it is healed."""

import random
import signal
import threading
import time
from collections import defaultdict

MOST_FOR_S3 = 10 * 60
# How often, of all; where, and how.
KINDS = {
    "kill": 22, "stop": 16, "term": 8,
    "broker kill": 4, "broker restart": 3, "kafka cut": 5, "kafka stall": 5, "kafka delay": 4,
    "s3 cut": 7, "s3 stall": 6, "s3 delay": 5, "s3 deaf": 7,
    "live cut": 4, "live stall": 4, "live delay": 3,
    "batch kill": 9,
    "clock": 12, "full": 5,
}
BATCH = "batch run"
ALL = "all"


class Plan:
    """An endless row of faults from a seed: (pause, kind, target, seconds, how: milliseconds, seconds of a jump, words)."""

    def __init__(self, seed, roles, has_s3):
        self.random, self.roles, self.has_s3 = random.Random(f"{seed}/faults"), roles, has_s3
        self.kinds = {kind: weight for kind, weight in KINDS.items() if has_s3 or not kind.startswith("s3")}

    def next(self):
        pick = self.random
        kind = pick.choices(list(self.kinds), list(self.kinds.values()))[0]
        target, seconds, how = pick.choice(self.roles), pick.uniform(0, 3), pick.choice([20, 100, 400, 1500])
        if kind == "stop":
            # Long enough at times that others take over what it holds.
            seconds = pick.uniform(1, 15) if pick.random() < 0.85 else pick.uniform(15, 35)
        elif kind == "batch kill":
            target, seconds = BATCH, pick.uniform(0, 1.5)
        elif kind == "clock":
            target, seconds, how = pick.choice([*self.roles, BATCH]), pick.uniform(0.5, 12), self.jump()
        elif kind == "full":
            # With an object store only batch runs write locally: their scratch. A local store is everybody's.
            target = BATCH if self.has_s3 else pick.choice([*self.roles, BATCH, ALL, ALL, ALL])
            seconds, how = pick.uniform(1, 12), pick.choice(["blocks", "all"])
        elif kind.startswith("broker"):
            target = "broker"
        elif kind.startswith("kafka"):
            target, seconds = "kafka", pick.uniform(1, 12)
        elif kind.startswith("s3"):
            target, seconds = "s3:" + pick.choice(["", "batch", target, target, target]), pick.uniform(1, 12)
        elif kind.startswith("live"):
            target, seconds = "live:" + pick.choice([""] + [r for r in self.roles if r.startswith("speed")] * 2), pick.uniform(1, 12)
        return pick.uniform(0.2, 4), kind, target, seconds, how

    def jump(self):
        """Seconds, either way; S3 refuses who is wrong by more than 15 minutes, which may happen too."""
        most = MOST_FOR_S3 if self.random.random() < 0.85 else 5 * 3600
        return self.random.choice([-1, 1]) * round(most ** self.random.random(), 3)

    def wrong(self):
        """A process, or batch runs, and by how many seconds its clock is wrong for a whole round."""
        return self.random.choice([*self.roles, BATCH]), self.random.choice([-1, 1]) * round(self.random.uniform(30, 300), 3)


class Faults:
    def __init__(self, fleet, load, record, seed):
        self.fleet, self.load, self.record = fleet, load, record
        self.plan = Plan(seed, list(fleet.processes), fleet.s3 is not None)
        self.threads = []
        self.is_wrong = False
        # One fault at a time on one target.
        self.locks = defaultdict(threading.Lock)

    def one(self):
        """Begins the next fault of the plan, after its pause."""
        pause_s, kind, target, seconds, how = self.plan.next()
        self.record.stop.wait(pause_s)
        # A process may be killed while its disk is full.
        shared = "disk" if kind == "full" else target.split(":")[0] if target.startswith(("s3", "live")) else target
        lock = self.locks[shared]
        while not lock.acquire(timeout=0.2):
            if self.record.stop.is_set():
                return
        self.record.faults[kind] += 1
        number = sum(self.record.faults.values())
        thread = threading.Thread(target=self.run, args=(number, lock, kind, target, seconds, how), name=kind, daemon=True)
        thread.start()
        self.threads = [t for t in self.threads if t.is_alive()] + [thread]

    def run(self, number, lock, kind, target, seconds, how):
        detail = f", {how} ms" if kind.endswith("delay") else f", {how:+} s" if kind == "clock" else f", {how}" if kind == "full" else ""
        self.record.event(f"#{number} {kind}: {target}, {seconds:.1f} s{detail}")
        try:
            if kind in ("kill", "stop", "term"):
                self.process(kind, self.fleet.processes[target], seconds)
            elif kind.startswith("broker"):
                self.broker(kind, seconds)
            elif kind == "batch kill":
                self.batch(seconds)
            elif kind == "clock":
                self.clock(self.inside(target), seconds, how)
            elif kind == "full":
                self.full(target, seconds, how)
            else:
                self.network(kind.split()[1], target, seconds, how / 1000)
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

    def inside(self, target):
        return (self.fleet.batch if target == BATCH else self.fleet.processes[target]).inside

    def clock(self, inside, seconds, jump):
        """The wall clock jumps, and back again."""
        inside.jump(jump)
        self.record.stop.wait(seconds)
        inside.jump(0)

    def full(self, target, seconds, how):
        targets = [*self.fleet.processes, BATCH] if target == ALL else [target]
        for one in targets:
            self.inside(one).fill(how)
        self.record.stop.wait(seconds)
        for one in targets:
            self.inside(one).free()

    def wrong_clock(self):
        """From its start on and for a whole round the clock of one process is wrong; what was wrong before is put right."""
        for one in [*self.fleet.processes, BATCH]:
            if self.inside(one).wrong_by:
                self.inside(one).wrong_by = 0.0
                self.inside(one).jump(0)
        self.is_wrong = not self.is_wrong
        if not self.is_wrong:
            return
        target, by = self.plan.wrong()
        self.record.event(f"for a whole round the clock of {target} is wrong by {by:+} s")
        self.record.count("rounds_with_a_wrong_clock")
        self.inside(target).wrong_by = by
        if process := self.fleet.processes.get(target):
            process.disturb()
            process.terminate()
        self.inside(target).jump(0)
        if process:
            process.start()
            process.wait_ready(120)
            seen = process.clock()
            if seen is None or abs(seen - time.time() - by) > 25:
                self.record.fail(f"the harness itself failed: the clock of {target} is not wrong by {by} s: it says {seen}")

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
