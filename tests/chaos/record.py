"""What a run notes: counters, the history of faults, and what went wrong."""

import threading
import time
from collections import Counter


class Record:
    """Shared by all threads of a run. The first failure ends it: `stop` is set, and `failures` says why."""

    def __init__(self, folder):
        self.refusals = open(folder / "refusals.log", "w", buffering=1)
        self.started = time.monotonic()
        self.counts = Counter()
        self.faults = Counter()
        self.history = []
        self.failures = []
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def clock(self):
        """Seconds since the start."""
        return time.monotonic() - self.started

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] += by

    def peak(self, what, value):
        with self.lock:
            self.counts[what] = max(self.counts[what], value)

    def say(self, text):
        print(f"{self.clock():8.1f}  {text}\n", end="", flush=True)

    def refusal(self, text):
        """An answer that is none, for whoever looks for the reason."""
        self.refusals.write(f"{self.clock():8.1f}  {text}\n")

    def event(self, text):
        """A step of a fault, for the history."""
        with self.lock:
            self.history.append((self.clock(), text))
        self.say(text)

    def fail(self, text):
        with self.lock:
            self.failures.append((self.clock(), text))
        self.say(f"FAILED: {text}")
        self.stop.set()

    def last_minute(self):
        since = self.clock() - 60
        return [f"{at:8.1f}  {text}" for at, text in self.history if at >= since]
