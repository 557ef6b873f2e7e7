"""The load: records of all kinds, plain and in transactions, sent to the broker directly, and what became of each."""

import json
import random
import threading
import time
import zlib
from datetime import datetime, timedelta

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from fleet import MAX_RECORD, TOPIC
from truth import PARTITIONS

START = datetime(2026, 1, 1)
CHANNELS = ["web", "app", "shop", "phone", "mail", "partner", "kiosk", None]
BROKEN = [
    b"no json", b'{"time": "2026-01-01T00:00:00Z", "amount"', b"42", b"", b"  \n ", b"\xff\xfe\x00", b'"text"',
    b'{"channel": "web", "user": "u1", "amount": 1}', b'{"time": "yesterday", "channel": "web"}', b'{"time": 7, "channel": "web"}',
    b'{"time": "2026-01-01T00:00:00Z", "channel": "web", "amount": "twelve"}', b'{"time": "2026-01-01T00:00:00Z", "channel": 5}',
    b'{"time": "2026-01-01T00:00:00Z", "channel": "web", "amount": 1.5}', b'["a"]',
    b'{"time": "2026-01-01T00:00:00Z", "channel": "' + b"x" * MAX_RECORD + b'"}',
]
QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 1000}
PATIENT = QUIET | {"enable.idempotence": True, "message.timeout.ms": 900_000, "linger.ms": 20}


def counted(time_of, row):
    """What an event counts as: (minute, channel, user, amount)."""
    return f"{time_of:%Y-%m-%dT%H:%M}:00Z", row.get("channel"), row.get("user"), row.get("amount")


class Rows:
    """Records from a seed: (payload, rows, dead letters); a row is (minute, channel, user, amount)."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.made = 0
        self.last = None

    def event(self):
        self.made += 1
        pick = self.random
        time_of = START + timedelta(milliseconds=20 * self.made)
        if pick.random() < 0.1:
            # Hours or days late, into few windows.
            time_of = START - timedelta(hours=pick.randrange(1, 72)) + timedelta(seconds=pick.randrange(60))
        row = {"time": f"{time_of:%Y-%m-%dT%H:%M:%S}.{time_of.microsecond // 1000:03}Z", "channel": pick.choice(CHANNELS)}
        if pick.random() < 0.3:
            row["time"] = f"{time_of:%Y-%m-%d %H:%M:%S}"
        row["user"] = f"u{pick.randrange(2000)}" if pick.random() < 0.97 else None
        row["amount"] = pick.randrange(-50, 1000) if pick.random() < 0.95 else None
        row = {name: value for name, value in row.items() if value is not None or pick.random() < 0.5} | {"made": self.made}
        if row.get("amount") is not None and pick.random() < 0.1:
            return json.dumps(row | {"amount": str(row["amount"])}), counted(time_of, row)  # a number in quotes is one
        return json.dumps(row), counted(time_of, row)

    def record(self):
        kind = self.random.random()
        if kind < 0.04 and self.last:
            return self.last  # sent twice: both count
        if kind < 0.08:
            return self.random.choice(BROKEN), [], 1
        if kind < 0.11:
            return self.random.choice([None, None, b"[]"]), [], 0
        events = [self.event() for _ in range(1 if kind > 0.25 else self.random.randrange(2, 6))]
        texts, rows = [text for text, _ in events], [row for _, row in events]
        dead = 0
        if kind < 0.12:
            texts.insert(1, '{"amount": 1}')  # a bad element is dead alone
            dead = 1
        text = texts[0] if len(texts) == 1 else "\n".join(texts) if kind > 0.2 else f"[{', '.join(texts)}]"
        self.last = text.encode(), rows, dead
        return self.last

    def place(self):
        """A key, or none, and the partition."""
        if self.random.random() < 0.5:
            return None, self.random.randrange(PARTITIONS)
        key = f"k{self.random.randrange(500)}".encode()
        return key, zlib.crc32(key) % PARTITIONS


class Load:
    """Two producers on threads of their own: one plain, one of transactions, a third of which are aborted."""

    def __init__(self, address, truth, record, rate, seed):
        self.address, self.truth, self.record, self.rate, self.seed = address, truth, record, rate, seed
        self.running = threading.Event()
        # Held while a transaction ends, and by whoever takes the broker away: one that is killed between a commit's
        # acknowledgement and its markers may never write them, and what was acknowledged would be no truth.
        self.ending = threading.Lock()
        self.local = threading.local()
        admin = AdminClient(QUIET | {"bootstrap.servers": address})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(30)
        self.read_to = [0] * PARTITIONS
        for target in (self.plain, self.transactions, self.ends):
            threading.Thread(target=self.guarded, args=(target,), name=target.__name__, daemon=True).start()

    def guarded(self, target):
        try:
            target()
        except Exception as error:  # noqa: BLE001 (whatever it is, the run has no truth any more)
            self.record.fail(f"the load itself failed: {target.__name__}: {error!r}")

    # Sending

    def send(self, producer, rows, number, settle):
        """Sends an opened record; settle(number, error, place, events, dead) is called once it is acknowledged."""
        payload, events, dead = rows.record()
        key, partition = rows.place()

        def delivered(error, message):
            settle(number, error, None if error else (message.partition(), message.offset()), events, dead)

        while True:
            try:
                headers = [("number", str(number))]
                return producer.produce(TOPIC, payload, key, partition, on_delivery=delivered, headers=headers)
            except BufferError:
                producer.poll(0.1)

    def plain(self):
        producer, rows = Producer(PATIENT | {"bootstrap.servers": self.address}), Rows(f"{self.seed}/plain")

        def settle(number, error, place, events, dead):
            if error:
                return self.record.fail(f"the load itself failed: a record was not delivered: {error}")
            self.settle(number, place, events, dead)

        due = time.monotonic()
        while not self.record.stop.is_set():
            if not self.running.is_set():
                producer.flush(1)
                self.running.wait(0.2)
                due = time.monotonic()
                continue
            for _ in range(max(1, self.rate // 20)):
                self.send(producer, rows, self.truth.open(), settle)
            due = max(due + 0.05, time.monotonic() - 1)
            while (left := due - time.monotonic()) > 0:
                producer.poll(left)

    def settle(self, number, place, events, dead):
        self.truth.settle(number, place, events, dead)
        self.record.count("records")
        self.record.count("rows", len(events))
        self.record.count("dead_letters", dead)

    def transactional(self):
        # A record must fail before its transaction does.
        times = {"message.timeout.ms": 50_000, "transaction.timeout.ms": 60_000}
        producer = Producer(PATIENT | times | {"bootstrap.servers": self.address, "transactional.id": f"chaos-{self.seed}"})
        self.insist(lambda: producer.init_transactions(10))
        return producer

    def insist(self, call):
        """Again for as long as the client says that it may succeed."""
        while not self.record.stop.is_set():
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                time.sleep(0.1)

    def transactions(self):
        producer, pick, rows = self.transactional(), random.Random(f"{self.seed}/choices"), Rows(f"{self.seed}/transactions")
        while not self.record.stop.is_set():
            if not self.running.wait(0.2):
                continue
            commit, size, held_s = pick.random() < 0.65, pick.randrange(1, 40), pick.choice([0, 0, 0, 0.5, 3])
            since, _ = self.truth.known_end()
            numbers, sent, produced = [], {}, producer

            def settle(number, error, place, events, dead, sent=sent):
                sent[number] = (place, events, dead)

            try:
                producer.begin_transaction()
                for _ in range(size):
                    numbers.append(self.truth.open())
                    self.send(producer, rows, numbers[-1], settle)
                producer.flush(60)
                self.record.stop.wait(held_s)
                with self.ending:
                    self.insist(lambda: (produced.commit_transaction if commit else produced.abort_transaction)(10))
                    time.sleep(0.2)  # its markers are written after the acknowledgement
            except KafkaException as error:
                commit, producer = self.recover(producer, error.args[0], since, numbers)
            if self.record.stop.is_set():
                return
            for number in numbers:
                if commit:
                    self.settle(number, *sent[number])
                else:
                    self.truth.settle(number, None, [], 0)
            self.record.count("transactions_committed" if commit else "transactions_aborted")
            self.record.stop.wait(pick.random())

    def recover(self, producer, error, since, numbers):
        """Whether a transaction that failed is committed after all, and the producer to go on with."""
        self.record.count("transactions_failed")
        self.record.say(f"a transaction failed: {error}")
        if error.txn_requires_abort():
            try:
                self.insist(lambda: producer.abort_transaction(10))
                return False, producer
            except KafkaException as other:
                self.record.say(f"it cannot be aborted: {other}")
        # A new producer of the same name ends what the old one left; then the topic tells.
        producer = self.transactional()
        found = {number for _, _, number in self.visible(since)}
        return not found.isdisjoint(numbers), producer

    # Reading, by a client that bifold knows nothing of

    def ends(self):
        """Keeps the last stable offsets up to date."""
        while not self.record.stop.is_set():
            asked_at = time.monotonic()
            try:
                self.truth.set_end(asked_at, self.end_offsets(IsolationLevel.READ_COMMITTED))
            except KafkaException:
                pass  # the broker is away
            self.record.stop.wait(0.5)

    def end_offsets(self, isolation):
        wanted = {TopicPartition(TOPIC, p): OffsetSpec.latest() for p in range(PARTITIONS)}
        try:
            if not hasattr(self.local, "admin"):
                self.local.admin = AdminClient(QUIET | {"bootstrap.servers": self.address})
            answers = self.local.admin.list_offsets(wanted, isolation_level=isolation, request_timeout=5)
            ends = {place.partition: answer.result().offset for place, answer in answers.items()}
            if min(ends.values()) < 0:
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            return [ends[p] for p in range(PARTITIONS)]
        except KafkaException:
            # It keeps the leader's epoch of before a restart for ever: begin anew with another.
            vars(self.local).clear()
            raise

    def visible(self, since):
        """The committed records from there to the last stable offsets: (partition, offset, number)."""
        consumer = Consumer(QUIET | {
            "bootstrap.servers": self.address, "group.id": "chaos-truth", "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True,
        })
        consumer.assign([TopicPartition(TOPIC, p, offset) for p, offset in enumerate(since)])
        at_end, found, until = set(), [], time.monotonic() + 120
        while len(at_end) < PARTITIONS:
            if time.monotonic() > until:
                raise RuntimeError("the topic cannot be read to its end")
            for message in consumer.consume(5000, timeout=1):
                if message.error() is None:
                    found.append((message.partition(), message.offset(), int(dict(message.headers())["number"])))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    at_end.add(message.partition())
        consumer.close()
        return found

    # Rounds

    def pause(self):
        """Stops sending; returns the log's end once all is settled and no transaction is open, and checks the truth itself."""
        self.running.clear()
        until = time.monotonic() + 180
        while not self.record.stop.is_set():
            try:
                settled = self.truth.wait_settled(1)
                end = self.end_offsets(IsolationLevel.READ_COMMITTED)
                if settled and end == self.end_offsets(IsolationLevel.READ_UNCOMMITTED) and self.truth.wait_settled(0):
                    break
            except KafkaException as error:
                self.record.say(f"the log's end is not known yet: {error}")
            if time.monotonic() > until:
                raise RuntimeError("the load does not come to rest")
            time.sleep(0.2)
        else:
            return None
        if odd := self.differences(self.read_to, end):
            raise RuntimeError(f"the acknowledged log is not what the topic holds: {odd}")
        self.read_to = end
        return end

    def differences(self, since, end):
        """Where the acknowledged log and what a reader of the topic sees differ."""
        seen = {(p, offset, number) for p, offset, number in self.visible(since) if offset < end[p]}
        known = {(p, o, log[o][0]) for p, log in enumerate(self.truth.log) for o in range(since[p], end[p]) if o in log}
        return sorted(seen ^ known)[:5]
