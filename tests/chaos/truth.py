"""What the topic holds as its producer knows it, and the views' rows at any vector of offsets."""

import threading
import time
from collections import Counter, OrderedDict, defaultdict

PARTITIONS = 12


class Truth:
    """The acknowledged log. Records are opened before they are sent, and settled once what became of them is known.

    An answer that arrives after record `mark()` was opened can hold no later one: it is judged when all up to there are
    settled. The log's end is the last stable offset, asked of the broker with a client that bifold knows nothing of.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.opened = 0
        self.unsettled = OrderedDict()
        # Per partition: offset -> (number, rows, dead letters). Aborted records and markers are not in it.
        self.log = [{} for _ in range(PARTITIONS)]
        self.end, self.end_at = [0] * PARTITIONS, 0.0

    def open(self):
        with self.lock:
            self.opened += 1
            self.unsettled[self.opened] = None
            return self.opened

    def settle(self, number, place, rows, dead):
        """It counts, at (partition, offset); or never, where place is None."""
        with self.lock:
            del self.unsettled[number]
            if place is not None:
                partition, offset = place
                assert offset not in self.log[partition], f"two records at {place}"
                self.log[partition][offset] = (number, rows, dead)

    def mark(self):
        with self.lock:
            return self.opened

    def is_settled(self, mark):
        with self.lock:
            return not self.unsettled or next(iter(self.unsettled)) > mark

    def set_end(self, asked_at, end):
        with self.lock:
            self.end, self.end_at = end, asked_at

    def known_end(self):
        with self.lock:
            return list(self.end), self.end_at

    def dead_letters(self):
        return {(p, offset): dead for p, log in enumerate(self.log) for offset, (_, _, dead) in log.items() if dead}

    def wait_settled(self, timeout_s):
        until = time.monotonic() + timeout_s
        while self.unsettled and time.monotonic() < until:
            time.sleep(0.05)
        return not self.unsettled


class Group:
    """The aggregates of one group, in both directions: rows come and go."""

    __slots__ = ("count", "sum", "amounts", "users")

    def __init__(self):
        self.count = self.sum = self.amounts = 0
        self.users = Counter()

    def change(self, amount, sign):
        self.count += sign
        if amount is not None:
            self.sum += sign * amount
            self.amounts += sign

    def sums(self):
        return self.count, self.sum if self.amounts else None


class Fold:
    """The views' rows over [0, at) of the truth, moved from one vector to the next."""

    def __init__(self, truth):
        self.truth = truth
        self.at = [0] * PARTITIONS
        self.minutes, self.channels = defaultdict(Group), defaultdict(Group)
        self.total, self.values = Group(), Counter()

    def move(self, to):
        for partition, end in enumerate(to):
            log, start = self.truth.log[partition], self.at[partition]
            sign = 1 if end > start else -1
            for offset in range(min(start, end), max(start, end)):
                if entry := log.get(offset):
                    for row in entry[1]:
                        self.change(row, sign)
            self.at[partition] = end

    def change(self, row, sign):
        minute, channel, user, amount = row
        self.minutes[minute, channel].change(amount, sign)
        group = self.channels[channel]
        group.change(amount, sign)
        if user is not None:
            group.users[user] += sign
            if not group.users[user]:
                del group.users[user]
        self.total.change(amount, sign)
        if amount is not None:
            self.values[amount] += sign
            if not self.values[amount]:
                del self.values[amount]

    def per_minute(self):
        return {key: group.sums() for key, group in self.minutes.items() if group.count}

    def per_channel(self):
        return {(key,): (*group.sums(), len(group.users)) for key, group in self.channels.items() if group.count}

    def totals(self):
        return {(): (*self.total.sums(), min(self.values, default=None), max(self.values, default=None))}
