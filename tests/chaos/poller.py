"""Asks all servers all the time, and judges every answer by the acknowledged log."""

import bisect
import http.client
import json
import random
import threading
import time
from collections import deque
from urllib.parse import quote

from fleet import TOPIC
from truth import PARTITIONS, Fold

CLIENT_TIMEOUT_S = 60
FAR = "limit=1000000"


class Query:
    """A request, and what its rows must be: `keys` and `values` name columns, `expect(folds)` gives key -> values, where
    folds(view) is the truth at that view's coverage."""

    def __init__(self, views, keys, values, expect, path=None, sql=None):
        self.views, self.keys, self.values, self.expect, self.path, self.sql = views, keys, values, expect, path, sql

    def __str__(self):
        return self.path or self.sql


def where(rows, index, value):
    return {key: values for key, values in rows.items() if key[index] == value}


def by_channel(fold):
    counts = {}
    for (_, channel), (count, _) in fold.per_minute().items():
        counts[(channel,)] = counts.get((channel,), 0) + count
    return {key: (count,) for key, count in counts.items()}


MINUTE, CHANNEL, TOTALS = ("per_minute", ["minute", "channel"], ["c", "s"]), ("per_channel", ["channel"], ["c", "s", "users"]), (
    "totals", [], ["c", "s", "least", "most"])
WHOLE = [
    Query([view], keys, values, lambda folds, view=view: getattr(folds(view), view)(), **request)
    for view, keys, values in (MINUTE, CHANNEL, TOTALS)
    for request in ({"path": f"/v1/views/{view}/rows?{FAR}"}, {"sql": f"SELECT * FROM {view}"})
]
PARTS = [
    Query(["per_minute"], *MINUTE[1:], lambda f: where(f("per_minute").per_minute(), 1, "shop"),
          path=f"/v1/views/per_minute/rows?{FAR}&where.channel=shop"),
    Query(["per_minute"], *MINUTE[1:], lambda f: where(f("per_minute").per_minute(), 1, None),
          path=f"/v1/views/per_minute/rows?{FAR}&where.channel.null=true"),
    Query(["per_minute"], *MINUTE[1:], lambda f: {k: v for k, v in f("per_minute").per_minute().items() if k[0] < "2026"},
          path=f"/v1/views/per_minute/rows?{FAR}&to=2026-01-01T00:00:00Z"),
    Query(["per_minute"], ["channel"], ["c"], lambda f: by_channel(f("per_minute")),
          sql="SELECT channel, sum(c) AS c FROM per_minute GROUP BY channel"),
    Query(["totals", "per_channel"], [], ["t", "p"],
          lambda f: {(): (f("totals").total.count, f("per_channel").total.count)},
          sql="SELECT (SELECT c FROM totals) AS t, coalesce((SELECT sum(c) FROM per_channel), 0) AS p"),
]


def offsets(vector):
    return ",".join(f"{TOPIC}/{p}:{offset}" for p, offset in enumerate(vector))


def ranges_of(coverage):
    """Of one view's coverage, per partition: (batch, speed)."""
    parts = {part["partition"]: (part["batch"], part["speed"]) for part in coverage["partitions"]}
    return [parts.get(p, ([0, 0], [0, 0])) for p in range(PARTITIONS)]


def lower(vector, than):
    """Whether it is lower somewhere."""
    return any(a < b for a, b in zip(vector, than))


class Answer:
    """A 200 and what was known: when it came, and `before` it was asked for."""

    def __init__(self, server, query, body, mark, at, least, before):
        self.server, self.query, self.body, self.mark, self.at, self.least = server, query, body, mark, at, least
        self.promised, self.durable = before


class Promises:
    """How far the answers reached that were asked for with `at_least`: whoever asks for as much later gets it, or 503."""

    KEPT = 200

    def __init__(self):
        self.vectors, self.most = deque(maxlen=self.KEPT), None
        self.lock = threading.Lock()

    def add(self, vector):
        with self.lock:
            self.vectors.append(vector)
            self.most = [max(pair) for pair in zip(vector, self.most or vector)]

    def pick(self, pick):
        """The newest, one of the recent ones, or all of them together; None if there is none."""
        with self.lock:
            if not self.vectors:
                return None
            return pick.choice([self.vectors[-1], self.vectors[-1], pick.choice(self.vectors), self.most])

    def all(self):
        """What reaches every one of them."""
        with self.lock:
            return self.most


class Judge:
    """Judges answers one after the other, each as soon as the truth reaches it."""

    def __init__(self, truth, record):
        self.truth, self.record = truth, record
        self.folds = {}
        # Per view and version: ledger numbers in order, and the boundary of each.
        self.boundaries = {}
        # Ledger number and frontier of the latest answers.
        self.fronts = deque(maxlen=200)

    def can_be_judged(self, answer):
        return self.truth.is_settled(answer.mark) and self.truth.known_end()[1] > answer.at

    def judge(self, answer):
        """None, or what is wrong."""
        body = answer.body
        coverage, fronts = body["coverage"], {}
        end, _ = self.truth.known_end()
        if sorted(c["view"] for c in coverage) != sorted(answer.query.views) or body["truncated"]:
            return f"coverage of {answer.query.views} or truncated: {body['truncated']}"
        for c in coverage:
            ranges = ranges_of(c)
            if c["holes"] or c["pending_holes"] or c["source"] != "payments" or {p["topic"] for p in c["partitions"]} - {TOPIC}:
                return "holes, or another source"
            if any(batch[0] != 0 or batch[1] != speed[0] or speed[1] < speed[0] or batch[1] < 0 for batch, speed in ranges):
                return "ranges that do not join"
            front = fronts[c["view"]] = [speed[1] for _, speed in ranges]
            if answer.least and lower(front, answer.least):
                return f"it covers less than was asked for: {answer.least}"
            if any(f > e for f, e in zip(front, end)):
                return f"it covers more than the log holds: {end}"
            if wrong := self.boundary(c, [batch[1] for batch, _ in ranges]):
                return wrong
            if wrong := self.durable(answer, c["ledger"], front, [batch[1] for batch, _ in ranges]):
                return wrong
        return self.rows(answer, body["rows"], fronts)

    def durable(self, answer, ledger, front, boundary):
        """What is durable never goes back. An answer does not tell how far its deltas reach, but it covers at least all that is
        durable at its ledger number: every boundary, of any view, of a number that is not higher; and what the same server said
        to be folded before it was asked."""
        if lower(front, answer.durable):
            return f"it covers {front}, and before it was asked the server had folded {answer.durable}"
        self.fronts.append((ledger, front))
        for numbers, vectors in self.boundaries.values():
            at = bisect.bisect(numbers, ledger)
            if at and lower(front, vectors[numbers[at - 1]]):
                return f"it covers {front} at ledger {ledger}, less than the boundary {vectors[numbers[at - 1]]} at {numbers[at - 1]}"
        for number, other in self.fronts:
            if number >= ledger and lower(other, boundary):
                return f"the boundary {boundary} at ledger {ledger} is beyond what an answer covered at {number}: {other}"
        return None

    def boundary(self, coverage, boundary):
        """A version's boundary never goes back along the ledger, and is one at each number of it."""
        numbers, vectors = self.boundaries.setdefault((coverage["view"], coverage["version"]), ([], {}))
        ledger = coverage["ledger"]
        if ledger in vectors:
            return None if vectors[ledger] == boundary else f"two boundaries at ledger {ledger}: {vectors[ledger]}, {boundary}"
        at = bisect.bisect(numbers, ledger)
        around = [vectors[n] for n in numbers[max(at - 1, 0):at]] + [boundary] + [vectors[n] for n in numbers[at:at + 1]]
        for lower, higher in zip(around, around[1:]):
            if any(low > high for low, high in zip(lower, higher)):
                return f"the boundary goes back along the ledger: {lower}, then {higher}"
        numbers.insert(at, ledger)
        vectors[ledger] = boundary
        return None

    def rows(self, answer, rows, fronts):
        fold = self.folds.setdefault(answer.server, Fold(self.truth))

        def folds(view):
            fold.move(fronts[view])
            return fold

        query, got = answer.query, {}
        for row in rows:
            key = tuple(row[name] for name in query.keys)
            if key in got or len(row) != len(query.keys) + len(query.values):
                return f"a row twice, or of other columns: {row}"
            got[key] = tuple(row[name] for name in query.values)
        expected = query.expect(folds)
        self.record.count("cells", len(expected) * len(query.values))
        if got == expected:
            return None
        odd = [key for key in expected.keys() | got.keys() if expected.get(key) != got.get(key)]
        lines = [f"  {key}: expected {expected.get(key)}, got {got.get(key)}" for key in sorted(odd, key=str)[:20]]
        return f"{len(odd)} rows of {query.keys} {query.values} differ\n" + "\n".join(lines)


class Poller:
    """Some threads for each server, and one that judges."""

    THREADS = 4

    def __init__(self, servers, load, record, seed):
        self.load, self.truth, self.record, self.seed = load, load.truth, record, seed
        self.judge = Judge(self.truth, record)
        self.promises = Promises()
        self.queue = deque()
        for server in servers:
            for number in range(self.THREADS):
                threading.Thread(target=self.guarded, args=(self.poll, server, number), daemon=True).start()
        threading.Thread(target=self.guarded, args=(self.judge_all,), daemon=True).start()

    def guarded(self, target, *words):
        try:
            target(*words)
        except Exception as error:  # noqa: BLE001 (a thread that ends unseen would check nothing)
            self.record.fail(f"{target.__name__} of the harness failed: {error!r}")
            raise

    def poll(self, server, number):
        pick, durable = random.Random(f"{self.seed}/{server.name}/{number}"), {}
        while not self.record.stop.is_set():
            kind = pick.random()
            earlier = self.promises.pick(pick) if 0.35 <= kind < 0.55 else None
            folded = [durable.get((p, "folded"), 0) for p in range(PARTITIONS)]
            if kind < 0.1:
                self.sources(server, durable)
            elif earlier:
                # Whichever server it was that reached it.
                if self.ask(server, pick.choice(WHOLE + PARTS), offsets(earlier), earlier, pick.choice([2000, 10_000]), folded):
                    self.record.count("promises_kept")
            else:
                least, words = None, pick.choice(["latest", "offsets"]) if kind < 0.35 else None
                if words:
                    # The broker's own word of a moment ago, so `latest` may not be less.
                    least = self.truth.known_end()[0]
                    words = offsets(least) if words == "offsets" else words
                self.ask(server, pick.choice(WHOLE + PARTS), words, least, pick.choice([500, 2000, 2000, 10_000]), folded)
            self.record.stop.wait(pick.random() * 0.5)

    def request(self, server, path, body=None, timeout_s=30):
        """Status and body; None if there was none, which only a server to which something was done may do."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CLIENT_TIMEOUT_S)
        try:
            connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            if server.was_calm(began) and not self.record.stop.is_set():
                self.record.fail(f"{server.name} was let alone and does not answer {path} {body}: {error!r}")
            self.record.count("connection_errors")
            self.record.refusal(f"{server.name} {path} {body}: {error!r}")
            return None
        finally:
            connection.close()
        took_s = time.monotonic() - began
        if server.was_calm(began):
            self.record.peak("longest_beyond_timeout_s", round(took_s - timeout_s, 1))
        if status != 200:
            self.record.refusal(f"{server.name} {path} {body}: {status} after {took_s:.1f} s: {text[:500].decode(errors='replace')}")
        if status in (503, 504):
            self.record.count(f"{status} {json.loads(text)['type'].rsplit('/', 1)[-1]}")
        elif status != 200:
            self.record.fail(f"{server.name} answers {status} to {path} {body}: {text[:2000].decode(errors='replace')}")
        return status, text

    def ask(self, server, query, words, least, timeout_ms, folded=(0,) * PARTITIONS):
        """Asks, and leaves a 200 to the judge; tells whether it was one. `folded`: what this server said before."""
        before = self.promises.all(), folded
        question = None
        if query.sql:
            path = "/v1/sql"
            question = json.dumps({"sql": query.sql, "timeout_ms": timeout_ms} | ({"at_least": words} if words else {}))
        else:
            path = f"{query.path}&timeout_ms={timeout_ms}" + (f"&at_least={quote(words)}" if words else "")
        reply = self.request(server, path, question, timeout_ms / 1000)
        if reply is None or reply[0] != 200:
            return False
        body = json.loads(reply[1])
        self.queue.append(Answer(server.name, query, body, self.truth.mark(), time.monotonic(), least, before))
        # An answer over two views reaches what both of them cover.
        fronts = [[speed[1] for _, speed in ranges_of(coverage)] for coverage in body["coverage"]]
        front = [min(ends) for ends in zip(*fronts)]
        if words:
            self.promises.add(front)
        elif before[0]:
            # Allowed: it is open epochs that a crash takes with it.
            self.record.count("plain_answers")
            self.record.count("plain_answers_lower", lower(front, before[0]))
        return True

    def sources(self, server, durable):
        """What is durable never goes back, for one who asks one server again and again."""
        reply = self.request(server, "/v1/sources")
        if reply is None or reply[0] != 200:
            return
        for part in json.loads(reply[1])["sources"][0]["partitions"]:
            for what in ("archived", "folded"):
                place, now = (part["partition"], what), part[what]
                if now is None or now < durable.get(place, 0):
                    self.record.fail(f"{server.name}: {what} of partition {part['partition']} goes from {durable.get(place)} to {now}")
                durable[place] = now
        self.record.count("sources_checked")

    def judge_all(self):
        while not self.record.stop.is_set():
            if not self.queue or not self.judge.can_be_judged(self.queue[0]):
                time.sleep(0.02)
                continue
            answer = self.queue[0]
            if wrong := self.judge.judge(answer):
                self.wrong(answer, wrong)
            self.record.count("answers_checked")
            self.queue.popleft()

    def wrong(self, answer, wrong):
        coverage = answer.body["coverage"]
        covered = [0] * PARTITIONS
        for part in coverage[0]["partitions"]:
            covered[part["partition"]] = part["speed"][1]
        if odd := self.load.differences([0] * PARTITIONS, covered):
            wrong += f"\nBUT the acknowledged log itself is not what the topic holds: {odd}"
        else:
            self.record.count("wrong_answers")
        self.record.fail(f"wrong answer of {answer.server} to {answer.query}\n{wrong}\ncoverage {json.dumps(coverage)}")

    def drain(self, timeout_s):
        until = time.monotonic() + timeout_s
        while self.queue and not self.record.stop.is_set():
            if time.monotonic() > until:
                raise RuntimeError(f"{len(self.queue)} answers wait to be judged")
            time.sleep(0.05)
