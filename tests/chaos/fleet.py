"""The processes: Apache Kafka, the S3 server, bifold's roles and its batch runs."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path

from inside import Inside, compiled
from proxy import Proxies

ROOT = Path(__file__).parent.parent.parent
DEV = ROOT / "deploy" / "dev"
TOPIC = "payments"
PIPELINE = f"""
CREATE TABLE payments (
  time TIMESTAMP, channel TEXT, "user" TEXT, amount BIGINT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = '{TOPIC}', format = 'json');

CREATE MATERIALIZED VIEW per_minute AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, channel, count(*) AS c, sum(amount) AS s FROM payments GROUP BY 1, 2;

CREATE MATERIALIZED VIEW per_channel AS
SELECT channel, count(*) AS c, sum(amount) AS s, count(DISTINCT "user") AS users FROM payments GROUP BY 1;

CREATE MATERIALIZED VIEW totals AS
SELECT count(*) AS c, sum(amount) AS s, min(amount) AS least, max(amount) AS most FROM payments;
"""
MAX_RECORD = 16 * 1024
SETTINGS = {
    "BIFOLD_STARTUP_TIMEOUT": "120s",
    "BIFOLD_COLLECT__FLUSH_INTERVAL": "1s",
    "BIFOLD_COLLECT__MAX_RECORD": "16KiB",
    "BIFOLD_SPEED__EPOCH_INTERVAL": "1s",
    "BIFOLD_BATCH__SCHEDULE": "off",
}
ROLES = {"speed": 3, "collect": 2, "serve": 2}


def free_ports(count):
    """Ports below those that the kernel hands out, so that a process that is away finds its own free again."""
    ports = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports


class Broker:
    """One Apache Kafka with two listeners: its own, for this program, and one that sends its clients to a proxy."""

    def __init__(self, folder, proxies):
        self.folder = folder
        self.port, behind, advertised = free_ports(3)
        self.address = f"127.0.0.1:{self.port}"
        self.proxied = proxies.add("kafka", advertised, ("127.0.0.1", behind))
        self.settings = "\n".join([
            f"listeners=PLAINTEXT://{self.address},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:0",
            f"advertised.listeners=PLAINTEXT://{self.address},PROXIED://{self.proxied}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=PLAINTEXT",
        ])

    def start(self):
        environment = dict(os.environ, KAFKA_SETTINGS=self.settings)
        command = [DEV / "kafka/start.sh", self.folder, str(self.port)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)

    def stop(self):
        subprocess.run([DEV / "kafka/stop.sh", self.folder], check=True, timeout=120)

    def kill(self):
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)


class Process:
    """A role as a process of its own; the same command, port and folder at every start; one log for all of them."""

    def __init__(self, name, command, environment, inside, port, log, record):
        self.name, self.command, self.port, self.log, self.record = name, command, port, log, record
        self.environment, self.inside = environment | inside.environment, inside
        self.url = f"http://127.0.0.1:{port}"
        self.child = None
        # While something is done to it, and until it is ready again, its connections may fail.
        self.disturbed = True
        self.calm_since = 0.0
        self.expected_to_run = False

    def start(self):
        if self.record.stop.is_set():
            return
        self.begin = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(self.command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
        self.expected_to_run = True

    def ready(self):
        with open(self.log, "rb") as log:
            log.seek(self.begin)
            return b'"event":"ready"' in log.read()

    def wait_ready(self, timeout_s):
        until = time.monotonic() + timeout_s
        while not self.ready():
            if self.child.poll() is not None:
                return self.record.fail(f"{self.name} ended with {self.child.returncode} before it was ready; see {self.log}")
            if self.record.stop.is_set():
                return
            if time.monotonic() > until:
                return self.record.fail(f"{self.name} is not ready after {timeout_s} s; see {self.log}")
            time.sleep(0.05)
        self.disturbed, self.calm_since = False, time.monotonic()

    def clock(self):
        """The time that its last log line says, in seconds; None if it has none since its start."""
        with open(self.log, "rb") as log:
            log.seek(self.begin)
            lines = re.findall(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z", log.read(), re.MULTILINE)
        return datetime.fromisoformat(lines[-1].decode() + "+00:00").timestamp() if lines else None

    def disturb(self):
        self.disturbed = True

    def calm(self):
        self.disturbed, self.calm_since = False, time.monotonic()

    def was_calm(self, since):
        """Whether nothing was done to it from then until now."""
        return not self.disturbed and self.calm_since < since

    def kill(self):
        self.expected_to_run = False
        self.child.kill()
        self.child.wait()

    def terminate(self):
        """SIGTERM; exit 0 within 30 s is promised, and 10 s are granted to a busy machine."""
        self.expected_to_run = False
        began = time.monotonic()
        self.child.terminate()
        try:
            code = self.child.wait(40)
        except subprocess.TimeoutExpired:
            self.record.fail(f"{self.name} does not end 40 s after SIGTERM; see {self.log}")
            self.child.kill()
            return
        self.record.peak("slowest_sigterm_s", round(time.monotonic() - began, 1))
        if code != 0:
            self.record.fail(f"{self.name} ended with {code} after SIGTERM; see {self.log}")

    def check(self):
        """A role ends only when it is told to, and does not panic."""
        if self.expected_to_run and self.child.poll() is not None:
            self.record.fail(f"{self.name} ended by itself with {self.child.returncode}; see {self.log}")
        if re.search(rb"panicked at", self.log.read_bytes()):
            self.record.fail(f"{self.name} panicked; see {self.log}")

    def not_ready(self):
        """None, or what /readyz says."""
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=10):
                return None
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return str(error)


class Fleet:
    """Everything that runs, in one folder."""

    def __init__(self, bifold, folder, store, record):
        self.bifold, self.folder, self.record = bifold, folder, record
        self.proxies = Proxies()
        self.broker = Broker(folder / "kafka", self.proxies)
        self.s3 = None
        self.processes = {}
        (folder / "pipeline.sql").write_text(PIPELINE)
        # What bifold writes locally; its disk can be full, that of the logs is not.
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.library = compiled(folder)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("BIFOLD_", "AWS_"))} | SETTINGS
        if store == "s3":
            self.start_s3()
        self.store = "s3://bifold/chaos" if self.s3 else str(self.disk / "store")
        self.broker.start()

    def start_s3(self):
        output = subprocess.run([DEV / "s3/start.sh", self.folder / "s3"], check=True, capture_output=True, text=True, timeout=300)
        words = [word.split("=", 1) for word in output.stdout.replace("export ", "").split()]
        self.environment |= {key: value for key, value in words if key.startswith("AWS_")}
        self.s3 = int(self.environment["AWS_ENDPOINT"].rsplit(":", 1)[1])

    def behind_proxy(self, name):
        """The environment of a process with a way of its own to the store."""
        if not self.s3:
            return dict(self.environment)
        address = self.proxies.add(f"s3:{name}", free_ports(1)[0], ("127.0.0.1", self.s3))
        return self.environment | {"AWS_ENDPOINT": f"http://{address}"}

    def inside(self, name):
        return Inside(self.library, self.folder, name, self.disk)

    def command(self, *words, folder="tools"):
        data = self.disk / folder
        flags = ["--pipeline", self.folder / "pipeline.sql", "--data-dir", data, "--store", self.store, "--brokers", self.broker.proxied]
        return [str(word) for word in (self.bifold, *words, *flags)]

    def start(self, roles):
        """So many of each role; the ports and proxies stay the same from here on."""
        ways = []
        for role, count in roles.items():
            for number in range(1, count + 1):
                name, port = f"{role}-{number}", free_ports(1)[0]
                environment = self.behind_proxy(name)
                if role == "speed":
                    ways.append("http://" + self.proxies.add(f"live:{name}", free_ports(1)[0], ("127.0.0.1", port)))
                elif role == "serve":
                    environment["BIFOLD_SERVE__SPEED"] = ",".join(ways)
                command = self.command(role, "--listen", f"127.0.0.1:{port}", folder=name)
                self.processes[name] = Process(name, command, environment, self.inside(name), port, self.folder / f"{name}.log", self.record)
                self.processes[name].start()
        for process in self.processes.values():
            process.wait_ready(120)
        self.batch = Batch(self)

    def servers(self):
        return [process for name, process in self.processes.items() if name.startswith("serve")]

    def run(self, *words, timeout_s=200):
        """A one-shot command without a proxy before the store: exit code, output, errors."""
        command = self.command(*words)
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout_s)
        with open(self.folder / "tools.log", "a") as log:
            log.write(f"--- {words}: {ran.returncode}\n{ran.stdout}{ran.stderr}\n")
        return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")], ran.stderr

    def end(self):
        for process in self.processes.values():
            if process.child and process.child.poll() is None:
                process.kill()
        if batch := getattr(self, "batch", None):
            batch.end()
        for stop in ([DEV / "kafka/stop.sh", self.folder / "kafka"], [DEV / "s3/stop.sh", self.folder / "s3"]):
            subprocess.run(stop, check=False, timeout=120)


class Batch:
    """Batch runs in the background, one after the other; some of all rows, some of one view, some that leap at once."""

    PAUSE_S = 3

    def __init__(self, fleet):
        self.fleet, self.record = fleet, fleet.record
        self.inside = fleet.inside("batch")
        self.environment = fleet.behind_proxy("batch") | self.inside.environment
        self.wanted = threading.Event()
        self.child, self.killed = None, False
        self.lock = threading.Lock()
        self.idle = threading.Event()
        threading.Thread(target=self.loop, name="batch", daemon=True).start()

    def loop(self):
        numbers = random.Random(0)
        while not self.record.stop.is_set():
            self.idle.set()
            self.wanted.wait()
            self.idle.clear()
            words = numbers.choice([[], [], [], [], ["--full"], ["--view", "totals"]])
            leap = numbers.choice(["10000000", "10000000", "100"])
            self.one(words, self.environment | {"BIFOLD_BATCH__LEAP": leap})
            self.record.stop.wait(self.PAUSE_S)

    def one(self, words, environment):
        command = self.fleet.command("batch", "run", *words, "--timeout", "60s", folder="batch")
        with open(self.fleet.folder / "batch.log", "ab") as log:
            log.write(f"--- {self.record.clock():.1f} {words}\n".encode())
            log.flush()
            with self.lock:
                self.killed = False
                self.child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                code = self.child.wait(180)
            except subprocess.TimeoutExpired:
                self.record.fail("a batch run with a timeout of 60 s runs for 180 s; see batch.log")
                return self.child.kill()
            log.write(f"--- ended with {code}\n".encode())
        self.record.count("batch_runs" if code == 0 else "batch_runs_failed")
        # Store or brokers may be out of reach: 1. Nothing else is expected.
        if code not in (0, 1) and not self.killed and not self.record.stop.is_set():
            self.record.fail(f"a batch run ended with {code}; see batch.log")

    def kill(self):
        """kill -9 of the run that there is; False if there is none."""
        with self.lock:
            if self.child is None or self.child.poll() is not None:
                return False
            self.killed = True
            self.child.kill()
            return True

    def end(self):
        self.wanted.clear()
        self.kill()
