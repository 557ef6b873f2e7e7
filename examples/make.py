"""usage: make.py: writes events.ndjson and answers.json of every example beside it.

The events are made up, the same each time; some come late. The answers are computed here from the events, in plain Python: what
bifold answers is compared with them (tests/system/examples.rs)."""

import json
import random
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

START = datetime(2026, 3, 2, 8, tzinfo=timezone.utc)


def text(at):
    """A time as bifold writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def floor(at, **span):
    span = timedelta(**span)
    return at - (at - datetime(1970, 1, 1, tzinfo=timezone.utc)) % span


def times(rng, count, seconds):
    """`count` times in order, of which some arrive late."""
    at, found = START, []
    for _ in range(count):
        at += timedelta(seconds=rng.randint(0, seconds))
        late = timedelta(minutes=rng.randint(5, 90)) if rng.random() < 0.05 else timedelta()
        found.append(at - late)
    return found


def latest(events, key):
    """The last event of each key: by time, and of equal times the one that came last."""
    last = {}
    for event in events:
        known = last.get(event[key])
        if known is None or event["time"] >= known["time"]:
            last[event[key]] = event
    return last


def groups(events, key):
    found = defaultdict(list)
    for event in events:
        found[key(event)].append(event)
    return sorted(found.items())


def online_users(rng):
    online = defaultdict(int)
    events = []
    for at in times(rng, 400, 20):
        user = f"u{rng.randint(1, 40)}"
        event = "END" if online[user] and rng.random() < 0.55 else "START"
        online[user] += 1 if event == "START" else -1
        events.append({"time": at, "user": user, "region": rng.choice(["asia", "europe", "america"]), "event": event})
    devices = {user: sum(1 if e["event"] == "START" else -1 for e in of) for user, of in groups(events, lambda e: e["user"])}
    where = latest(events, "user")
    by_region = defaultdict(int)
    for user, count in devices.items():
        by_region[where[user]["region"]] += count > 0
    started = [
        {"minute": text(minute), "started": n}
        for minute, n in sorted(
            (m, sum(e["event"] == "START" for e in of)) for m, of in groups(events, lambda e: floor(e["time"], minutes=1))
        )
        if n > 3
    ]
    return events, [
        (
            "SELECT region, count(*) AS users FROM online WHERE devices > 0 GROUP BY region ORDER BY region",
            [{"region": region, "users": n} for region, n in sorted(by_region.items()) if n],
        ),
        (
            "SELECT minute, sum(started) AS started FROM traffic GROUP BY minute HAVING sum(started) > 3 ORDER BY minute",
            started,
        ),
    ]


def iot(rng):
    events = []
    for at in times(rng, 600, 20):
        sensor = rng.randint(1, 6)
        celsius = Decimal(rng.randint(150, 900)).scaleb(-2)
        events.append({"time": at, "sensor": f"s{sensor}", "site": f"site-{sensor % 2}", "celsius": celsius})
    hours = [
        {
            "hour": text(hour),
            "site": site,
            "readings": len(of),
            "lowest": str(min(e["celsius"] for e in of)),
            "highest": str(max(e["celsius"] for e in of)),
            "total": str(sum(e["celsius"] for e in of)),
            "out_of_range": sum(not 2 <= e["celsius"] <= 8 for e in of),
        }
        for (hour, site), of in groups(events, lambda e: (floor(e["time"], hours=1), e["site"]))
    ]
    minutes = groups(events, lambda e: (floor(e["time"], minutes=1), e["sensor"]))
    return events, [
        ("SELECT * FROM readings_1h ORDER BY hour, site", hours),
        (
            "SELECT count(*) AS windows, sum(readings) AS readings, max(highest) AS highest FROM readings_1m",
            [{"windows": len(minutes), "readings": len(events), "highest": str(max(e["celsius"] for e in events))}],
        ),
    ]


def vehicles(rng):
    place = {f"v{n}": [52.5, 13.4] for n in range(1, 9)}
    events = []
    for at in times(rng, 500, 25):
        vehicle = rng.choice(sorted(place))
        place[vehicle] = [round(x + rng.uniform(-0.01, 0.01), 5) for x in place[vehicle]]
        lat, lon = place[vehicle]
        events.append({"time": at, "vehicle": vehicle, "lat": lat, "lon": lon, "kmh": rng.randint(0, 130)})
    last = latest(events, "vehicle")
    driving = groups(events, lambda e: (floor(e["time"], hours=1), e["vehicle"]))
    return events, [
        (
            "SELECT * FROM last_position ORDER BY vehicle",
            [{"vehicle": v, "lat": e["lat"], "lon": e["lon"], "seen": text(e["time"])} for v, e in sorted(last.items())],
        ),
        (
            "SELECT hour, vehicle, fastest, too_fast FROM driving WHERE too_fast > 2 ORDER BY hour, vehicle",
            [
                {"hour": text(h), "vehicle": v, "fastest": max(e["kmh"] for e in of), "too_fast": n}
                for (h, v), of in driving
                if (n := sum(e["kmh"] > 100 for e in of)) > 2
            ],
        ),
    ]


def access_logs(rng):
    paths = [("GET", "/"), ("GET", "/cart"), ("POST", "/cart"), ("GET", "/search"), ("GET", "/missing")]
    events = []
    for at in times(rng, 700, 4):
        method, path = rng.choice(paths)
        status = 404 if path == "/missing" else rng.choice([200] * 18 + [403, 500])
        client = f"10.0.0.{rng.randint(1, 30)}"
        event = {"time": at, "client": client, "method": method, "path": path, "status": status}
        events.append({**event, "bytes": rng.randint(200, 50_000), "ms": rng.randint(1, 900)})
    minutes = groups(events, lambda e: floor(e["time"], minutes=1))
    by_path = groups(events, lambda e: (e["method"], e["path"]))
    return events, [
        (
            "SELECT minute, requests, errors, bytes, slowest_ms FROM by_minute WHERE errors > 0 ORDER BY minute",
            [
                {
                    "minute": text(m),
                    "requests": len(of),
                    "errors": errors,
                    "bytes": sum(e["bytes"] for e in of),
                    "slowest_ms": max(e["ms"] for e in of),
                }
                for m, of in minutes
                if (errors := sum(e["status"] >= 500 for e in of))
            ],
        ),
        (
            "SELECT * FROM by_path ORDER BY method, path",
            [
                {
                    "method": method,
                    "path": path,
                    "requests": len(of),
                    "clients": len({e["client"] for e in of}),
                    "refused": sum(400 <= e["status"] < 500 for e in of),
                }
                for (method, path), of in by_path
            ],
        ),
    ]


def inventory(rng):
    events = []
    for at in times(rng, 500, 400):
        kind = rng.choice(["in", "in", "out", "out", "out", "count"])
        quantity = rng.randint(20, 100) if kind == "in" else rng.randint(1, 40)
        product, warehouse = rng.choice(["bolt", "nut", "washer"]), rng.choice(["north", "south"])
        events.append({"time": at, "product": product, "warehouse": warehouse, "kind": kind, "quantity": quantity})
    moved = [e for e in events if e["kind"] != "count"]
    stock = [
        {
            "product": product,
            "warehouse": warehouse,
            "on_hand": sum(e["quantity"] if e["kind"] == "in" else -e["quantity"] for e in of),
            "last_movement": text(max(e["time"] for e in of)),
        }
        for (product, warehouse), of in groups(moved, lambda e: (e["product"], e["warehouse"]))
    ]
    total = lambda of, kind: sum(e["quantity"] for e in of if e["kind"] == kind) or None
    return events, [
        ("SELECT * FROM stock ORDER BY product, warehouse", stock),
        (
            "SELECT * FROM turnover ORDER BY day, product",
            [
                {"day": text(day), "product": product, "came_in": total(of, "in"), "went_out": total(of, "out")}
                for (day, product), of in groups(events, lambda e: (floor(e["time"], days=1), e["product"]))
            ],
        ),
    ]


def fraud(rng):
    events = []
    for at in times(rng, 500, 60):
        card = f"card-{min(rng.randint(1, 30), rng.randint(1, 30))}"
        amount = Decimal(rng.randint(100, 90_000)).scaleb(-2)
        merchant, country = f"m{rng.randint(1, 50)}", rng.choice(["DE", "DE", "DE", "FR", "US"])
        events.append({"time": at, "card": card, "merchant": merchant, "country": country, "amount": amount})
    hours = groups(events, lambda e: (floor(e["time"], hours=1), e["card"]))
    days = groups(events, lambda e: (floor(e["time"], days=1), e["card"]))
    return events, [
        (
            "SELECT * FROM velocity_1h WHERE payments >= 5 OR countries >= 3 ORDER BY hour, card",
            [
                {
                    "hour": text(hour),
                    "card": card,
                    "payments": len(of),
                    "amount": str(sum(e["amount"] for e in of)),
                    "largest": str(max(e["amount"] for e in of)),
                    "countries": countries,
                }
                for (hour, card), of in hours
                if (countries := len({e["country"] for e in of})) >= 3 or len(of) >= 5
            ],
        ),
        (
            "SELECT card, amount FROM velocity_1d ORDER BY amount DESC, card LIMIT 3",
            [
                {"card": card, "amount": str(amount)}
                for amount, card in sorted(
                    ((sum(e["amount"] for e in of), card) for (_, card), of in days), key=lambda x: (-x[0], x[1])
                )[:3]
            ],
        ),
    ]


def wiki(rng):
    events = []
    for at in times(rng, 600, 10):
        robot = rng.random() < 0.3
        page = f"Page {min(rng.randint(1, 60), rng.randint(1, 60))}"
        user = f"bot{rng.randint(1, 3)}" if robot else f"user{rng.randint(1, 50)}"
        event = {"time": at, "channel": rng.choice(["#de", "#en", "#fr"]), "page": page, "user": user}
        events.append({**event, "isRobot": robot, "added": rng.randint(-200, 900)})
    people = [e for e in events if not e["isRobot"]]
    pages = groups(events, lambda e: e["page"])
    return events, [
        (
            "SELECT * FROM edits_by_channel ORDER BY since, channel",
            [
                {
                    "since": text(since),
                    "channel": channel,
                    "edits": len(of),
                    "added": sum(e["added"] for e in of),
                    "editors": len({e["user"] for e in of}),
                }
                for (since, channel), of in groups(people, lambda e: (floor(e["time"], minutes=10), e["channel"]))
            ],
        ),
        (
            "SELECT page, edits, by_robots FROM pages ORDER BY edits DESC, page LIMIT 5",
            [
                {"page": page, "edits": n, "by_robots": robots}
                for n, page, robots in sorted(
                    ((len(of), page, sum(e["isRobot"] for e in of)) for page, of in pages), key=lambda x: (-x[0], x[1])
                )[:5]
            ],
        ),
    ]


def line(event):
    """JSON with decimals digit by digit."""
    fields = []
    for name, value in event.items():
        value = json.dumps(text(value)) if isinstance(value, datetime) else str(value) if isinstance(value, Decimal) else json.dumps(value)
        fields.append(f"{json.dumps(name)}:{value}")
    return "{" + ",".join(fields) + "}"


for name, make in {
    "online-users": online_users,
    "iot": iot,
    "vehicles": vehicles,
    "access-logs": access_logs,
    "inventory": inventory,
    "fraud": fraud,
    "wiki": wiki,
}.items():
    made, answers = make(random.Random(name))
    folder = Path(__file__).parent / name
    (folder / "events.ndjson").write_text("".join(line(event) + "\n" for event in made))
    answers = [{"sql": sql, "rows": rows} for sql, rows in answers]
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
