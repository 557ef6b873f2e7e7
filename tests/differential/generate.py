#!/usr/bin/env python3
"""Writes random views, their events and queries over them, in bifold's SQL and in DuckDB's: one case a line.

    python3 tests/differential/generate.py --seed 1 --cases 500 --out cases.ndjson
    python3 tests/differential/generate.py --seed 1 --only 17        # that case alone, on stdout

A case follows from its seed and number alone. Events are written from their digits, as some numbers have more of them
than a double holds: read them as text, not as numbers. The view and the queries end in aliases g0, g1, … (keys), a0, …
(aggregates), c0, … (columns of queries). In the oracle a further column `a0__scale` says that a0 rounds, and how large
what went into it is.
"""

import argparse
import json
import random
import sys
from dataclasses import replace

from expressions import ATOM, INTS, NUMBERS, UNITS, Expressions, Node, as_double, column

ROWS = 60
COLUMNS = {
    "i": ("INT", column("i", "int", limit=2**31)),
    "n": ("BIGINT", column("n", "bigint", limit=2**63)),
    "x": ("DOUBLE", column("x", "double")),
    "y": ("DOUBLE", column("y", "double", limit=128, exact=True)),
    "d": ("DECIMAL(10,2)", column("d", "decimal", limit=1e8, digits=10, scale=2)),
    "e": ("DECIMAL(38,0)", column("e", "decimal", limit=1e38, digits=38)),
    "f": ("DECIMAL(38,18)", column("f", "decimal", limit=1e20, digits=38, scale=18)),
    "s": ("TEXT", column("s", "text")),
    "k": ("TEXT", column("k", "text")),
    "b": ("BOOLEAN", column("b", "bool")),
    "t": ("TIMESTAMP", column("t", "time")),
}
# The JSON of values: extremes, what is equal in different digits, what doubles cannot tell apart.
POOLS = {
    "i": "0 1 2 3 -1 7 12 100 -5 2147483647 -2147483648 2147483646",
    "n": "0 1 2 -1 12 9007199254740992 9007199254740993 9223372036854775807 -9223372036854775808 -7"
    " 4611686018427387904",
    "x": "0.0 -0.0 0.1 0.25 1.0 12.0 1e308 -1e308 5e-324 9007199254740992.0 9223372036854775808.0 1e23 -2147483648.0"
    " 1.1 562949953421312.25 12.5 -0.1",
    "y": "-100.25 -2.5 -1.0 -0.25 -0.0 0.0 0.25 0.5 1.0 1.5 3.0 100.75",
    "d": "0 0.10 0.1 1.1 12.50 -2.50 99999999.99 -99999999.99 1 100.75 0.01",
    "e": "0 1 12 -1 1e23 100000000000000000000000 99999999999999999999999999999999999999 9007199254740993 -1e37"
    " 9223372036854775808 -99999999999999999999999999999999999999",
    "f": "0 0.1 0.100000000000000000 0.100000000000000001 1.5 99999999999999999999.999999999999999999 12 -1.1"
    " -0.000000000000000001",
}
POOLS = {name: pool.split() for name, pool in POOLS.items()} | {
    "s": list(map(json.dumps, ["x", "y", "12", "NaN", "-Infinity", "Infinity", "1e400", "", "axb", "0.1", "-0.0"])),
    "k": list(map(json.dumps, ["x", "y", "x", "y", "axb", "", "%_", "é", "😀x", "a\nb", "12", "X", "'"])),
    "b": ["true", "false"],
    "t": [
        json.dumps(text + "Z")
        for text in [
            "0001-01-01T00:00:00", "0001-01-01T00:00:00.000001", "1677-09-21T00:12:43.145224", "1677-09-20T23:59:59",
            "1969-12-31T23:59:59.999999", "1970-01-01T00:00:00", "2015-09-12T00:46:58.771", "2015-09-12T01:00:00",
            "2262-04-11T23:47:16.854775", "2262-04-12T00:00:00", "9999-12-31T23:59:59.999999", "9999-12-31T00:00:00",
        ]
    ],
}  # fmt: skip


def events(rng):
    """Records; of every field 15 % are null or missing. At times there are few, none, or few different values."""
    count = rng.choice([0, 1, 2, 5, 10, 20, 20, 40, 40, ROWS])
    pools = {name: rng.sample(pool, min(len(pool), rng.choice([2, 4, 6, 20]))) for name, pool in POOLS.items()}
    made = []
    for _ in range(count):
        fields = []
        for name, pool in pools.items():
            missing = rng.random() < 0.15
            if missing and rng.random() < 0.5:
                continue
            fields.append(f'"{name}":{"null" if missing else rng.choice(pool)}')
        made.append("{" + ",".join(fields) + "}")
    return made


class Aggregates:
    """Random calls of aggregates over the columns of a view's source, or of a view."""

    def __init__(self, rng, expressions):
        self.rng, self.expressions = rng, expressions

    def argument(self, fits, depth=2):
        """A number that `fits`: a random one if there is one soon, else a leaf; else None."""
        for _ in range(12):
            node = self.expressions.number(self.rng.randint(0, depth))
            if not node.literal and fits(node):
                return node
        leaves = [leaf for leaf in self.expressions.leaves if leaf.type in NUMBERS and fits(leaf)]
        return self.rng.choice(leaves) if leaves else None

    def call(self, rich=True):
        """A call, as a node, and what its rounding is relative to (in DuckDB's SQL) or None; `rich` ones round."""
        ways = [self.count] * 3 + [self.total] * 3 + [self.extreme] * 5
        if rich:
            ways += [self.mean, self.mean, self.spread, self.pair, self.truth, self.bits, self.median, self.quotient]
        made = None
        while made is None:
            made = self.rng.choice(ways)()
        node, scale = made
        if self.rng.random() < 0.3:
            condition = self.expressions.boolean(self.rng.randint(1, 3))
            node = replace(node, ours=f"{node.ours} FILTER (WHERE {condition.ours})")
            clause = f" FILTER (WHERE {condition.duck})"
        else:
            clause = ""
        return replace(node, duck=node.duck.replace(" <filter>", clause)), scale and scale.replace(" <filter>", clause)

    def count(self):
        way = self.rng.choice(["count(*)", "count", "distinct", "distinct"])
        if way == "count(*)":
            return Node("bigint", "count(*)", "count(*) <filter>", limit=ROWS**2), None
        node = self.expressions.value(2) if self.rng.random() < 0.7 else self.expressions.boolean(2)
        word = "DISTINCT " if way == "distinct" else ""
        duck = f"count({word}{node.duck}) <filter>"
        return Node("bigint", f"count({word}{node.ours})", duck, limit=ROWS**2), None

    def total(self):
        """A sum that cannot overflow; one that rounds only where the order of adding changes little."""
        limits = {"int": 2**57, "bigint": 2**57, "double": 1e100, "decimal": 1e20}
        node = self.argument(lambda node: node.limit < limits[node.type] and node.digits <= 26)
        if node is None:
            return None
        word = "DISTINCT " if (node.type in INTS or node.exact) and self.rng.random() < 0.15 else ""
        ours, limit, scale = f"sum({word}{node.ours})", node.limit * ROWS, None
        duck = f"sum({word}{node.duck}) <filter>"
        if node.type in INTS:
            made = Node("bigint", ours, f"CAST({duck} AS BIGINT)", limit=limit)
        elif node.type == "decimal":
            digits = node.digits + 10
            more = dict(digits=digits, scale=node.scale, limit=limit)
            made = Node("decimal", ours, f"CAST({duck} AS DECIMAL({digits},{node.scale}))", **more)
        else:
            made = Node("double", ours, duck, limit=limit, exact=node.exact and limit < 2**40)
            scale = None if made.exact else f"sum(abs({node.duck})) <filter>"
        return made, scale

    def extreme(self):
        name = self.rng.choice(["min", "max"])
        node = self.expressions.value(2)
        if node.literal:
            return None
        return replace(node, ours=f"{name}({node.ours})", duck=f"{name}({node.duck}) <filter>", level=ATOM), None

    def mean(self):
        """Of decimals the exact quotient cut at four more decimals; of others the double."""
        node = self.argument(lambda node: node.limit < 1e9 and node.digits <= 20 and node.scale <= 6)
        if node.type == "decimal":
            units = f"sum(CAST(CAST({node.duck} AS DECIMAL(38,{node.scale})) * {10**node.scale} AS HUGEINT)) <filter>"
            cut = f"CAST({units} * 10000 // count({node.duck}) <filter> AS DECIMAL(28,0))"
            digit = f"CAST('1e-{node.scale + 4}' AS DECIMAL(10,{node.scale + 4}))"
            duck = f"(CASE WHEN count({node.duck}) <filter> > 0 THEN {cut} * {digit} END)"
            more = dict(digits=node.digits + 4, scale=node.scale + 4, limit=node.limit)
            return Node("decimal", f"avg({node.ours})", duck, **more), None
        return Node("double", f"avg({node.ours})", f"avg({node.duck}) <filter>"), f"max(abs({node.duck})) <filter>"

    def small(self):
        return self.argument(lambda node: node.limit <= 1000 and (node.exact or node.type in INTS), 1)

    def spread(self):
        name = self.rng.choice(["stddev", "var_pop", "stddev_pop", "var_samp"])
        node = self.small()
        duck, scale = f"{name}({as_double(node)}) <filter>", f"max(abs({node.duck})) <filter>"
        return Node("double", f"{name}({node.ours})", duck), f"({scale} * {scale} + 1)"

    def pair(self):
        name = self.rng.choice(["corr", "covar_samp", "covar_pop", "regr_slope"])
        a, b = self.small(), self.small()
        call = f"{name}({as_double(a)}, {as_double(b)}) <filter>"
        scale = f"abs({call}) * 10000 + 1" if name in ("corr", "regr_slope") else "1000000"
        return Node("double", f"{name}({a.ours}, {b.ours})", call), scale

    def truth(self):
        name, node = self.rng.choice(["bool_and", "bool_or"]), self.expressions.boolean(self.rng.randint(1, 3))
        return Node("bool", f"{name}({node.ours})", f"{name}({node.duck}) <filter>"), None

    def bits(self):
        name, node = self.rng.choice(["bit_and", "bit_or", "bit_xor"]), self.argument(lambda node: node.type in INTS, 1)
        return Node(node.type, f"{name}({node.ours})", f"{name}({node.duck}) <filter>", limit=2 * node.limit), None

    def median(self):
        node = self.argument(lambda node: node.exact and node.type == "double", 1)
        return Node("double", f"median({node.ours})", f"median({node.duck}) <filter>"), None

    def quotient(self):
        """Of decimals; as it has at least sixteen decimals, it is compared to the sixteenth."""
        name, by = self.rng.choice(["min", "max"]), self.rng.choice(["i", "d", "3", "0.7"])
        divided = f"CAST(CASE WHEN {by} = 0 THEN NULL ELSE d::DOUBLE / {by}::DOUBLE END AS DECIMAL(38,16))"
        duck = f"{name}({divided}) <filter>"
        return Node("decimal", f"{name}(d / {by})", duck, digits=38, scale=16), f"abs({duck})"


def keys(rng, expressions):
    """Expressions to group by, different from each other and none a bare constant."""
    made = []
    for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 2, 3])):
        way = rng.random()
        if way < 0.45:
            node = rng.choice(expressions.leaves)
        elif way < 0.55:
            size = rng.choice(["1 minute", "15 minutes", "1 hour", "6 hours", "1 day"])
            duck = f"time_bucket(INTERVAL '{size}', t, TIMESTAMP '1970-01-01 00:00:00')"
            node = Node("time", f"tumble(t, INTERVAL '{size}')", duck)
        elif way < 0.65:
            unit = rng.choice(UNITS)
            node = Node("time", f"date_trunc('{unit}', t)", f"date_trunc('{unit}', t)")
        elif way < 0.8:
            node = expressions.boolean(2)
        else:
            node = expressions.value(2)
        windows = sum(key.ours.startswith("tumble") for key in made)
        if not node.literal and node.ours not in [key.ours for key in made] and not (windows and "tumble" in node.ours):
            made.append(node)
    return made


def select(items, source, where=None, group=(), having=None, numbered=True):
    """Two SELECTs of `items`, which are (alias, node, scale)."""
    ours = ", ".join(f"{node.ours} AS {alias}" for alias, node, _ in items)
    duck = ", ".join(f"{node.duck} AS {alias}" for alias, node, _ in items)
    duck += "".join(f", {scale} AS {alias}__scale" for alias, _, scale in items if scale)
    ours, duck = f"SELECT {ours} FROM {source}", f"SELECT {duck} FROM {source}"
    if where:
        ours, duck = f"{ours} WHERE {where.ours}", f"{duck} WHERE {where.duck}"
    if group:
        places = ", ".join(str(place + 1) for place in range(len(group)))
        ours += " GROUP BY " + (places if numbered else ", ".join(node.ours for node in group))
        duck += f" GROUP BY {places}"
    if having:  # which names columns in DuckDB's text: it allows no TRY over aggregates
        ours, duck = f"{ours} HAVING {having.ours}", f"SELECT * FROM ({duck}) AS made WHERE {having.duck}"
    return ours, duck


def view(rng):
    """A view in both dialects, and its columns as nodes with their scales."""
    expressions = Expressions(rng, [node for _, node in COLUMNS.values()])
    aggregates = Aggregates(rng, expressions)
    group = keys(rng, expressions)
    calls = [aggregates.call() for _ in range(rng.randint(1, 4))]
    items = [(f"g{place}", node, None) for place, node in enumerate(group)]
    items += [(f"a{place}", node, scale) for place, (node, scale) in enumerate(calls)]
    where = expressions.boolean(rng.randint(1, 5)) if rng.random() < 0.5 else None
    having = None
    if rng.random() < 0.25:
        bare = [alias for alias, node, _ in items if node.ours in COLUMNS or alias[0] == "a"]
        exact = [replace(node, duck=alias) for alias, node, scale in items if alias in bare and not scale]
        having = Expressions(rng, exact).boolean(rng.randint(1, 3)) if exact else None
    made = select(items, "t", where, group, having, rng.random() < 0.5)
    columns = [(replace(node, ours=alias, duck=alias, level=ATOM), scale) for alias, node, scale in items]
    return *made, columns, len(group)


class Queries:
    """Random queries over a view with `columns`, the first `keys` of which name its rows."""

    def __init__(self, rng, columns, keys):
        self.rng, self.columns, self.keys = rng, columns, keys
        self.exact = [node for node, scale in columns if not scale]

    def over(self, prefix=""):
        named = [replace(node, ours=prefix + node.ours, duck=prefix + node.duck) for node in self.exact]
        return Expressions(self.rng, named, strict=True)

    def where(self, share=0.5):
        return self.over().boolean(self.rng.randint(1, 4)) if self.exact and self.rng.random() < share else None

    def every(self):
        """All columns of the view as they are, the ones that round with their scale."""
        return [(node.ours, node, scale and f"{node.ours}__scale") for node, scale in self.columns]

    def plain(self):
        items, over = self.every(), self.over()
        for place in range(self.rng.randint(0, 2) if self.exact else 0):
            node = over.value(2) if self.rng.random() < 0.5 else over.boolean(3)
            items.append((f"c{place}", node, None))
        return select(items, "v", self.where())

    def grouped(self):
        over = self.over()
        aggregates = Aggregates(self.rng, over)
        group = [over.boolean(2) if self.rng.random() < 0.3 else self.rng.choice(self.exact)] if self.exact else []
        group = [node for node in group if not node.literal]
        calls = [aggregates.call(rich=False) for _ in range(self.rng.randint(1, 3))] if self.exact else []
        items = [(f"c{place}", node, None) for place, node in enumerate(group)]
        items += [(f"h{place}", node, scale) for place, (node, scale) in enumerate(calls)]
        exact = [replace(node, duck=alias) for alias, node, scale in items[len(group) :] if not scale]
        having = Expressions(self.rng, exact, strict=True).boolean(2) if exact and self.rng.random() < 0.3 else None
        return select(items, "v", self.where(0.4), group, having) if items else self.plain()

    def joined(self):
        """The view with itself, on keys: at most as many rows as it has, squared."""
        ours, duck = self.plain()
        if not self.keys:
            return ours, duck
        operator, way = self.rng.choice(["=", "IS NOT DISTINCT FROM"]), self.rng.choice(["JOIN", "LEFT JOIN"])
        on = " AND ".join(f"a.g{place} {operator} b.g{place}" for place in range(self.rng.randint(1, self.keys)))
        items = [(f"c{place}", replace(node, ours=f"a.{node.ours}", duck=f"a.{node.duck}"), None)
                 for place, node in enumerate(self.exact)]  # fmt: skip
        other = self.rng.choice(self.exact)
        items.append(("other", replace(other, ours=f"b.{other.ours}", duck=f"b.{other.duck}"), None))
        where = self.over("a.").boolean(2) if self.rng.random() < 0.4 else None
        return select(items, f"v AS a {way} v AS b ON {on}", where)

    def nested(self):
        """Subqueries in FROM and in WHERE."""
        if not self.exact:
            return self.plain()
        node, where = self.rng.choice(self.exact), self.where(1)
        way = self.rng.choice(["from", "in", "scalar"])
        if way == "from":
            inner = select(self.every(), "v", where)
            outer = self.where(1)
            return (f"SELECT * FROM ({inner[0]}) AS w WHERE {outer.ours}",
                    f"SELECT * FROM ({inner[1]}) AS w WHERE {outer.duck}")  # fmt: skip
        if way == "in":
            word = self.rng.choice(["IN", "NOT IN"])
            inner = select([(node.ours, node, None)], "v", where)
            made = [f"{node.ours} {word} ({text})" for text in inner]
        else:
            name = self.rng.choice(["min", "max"]) if node.type != "bool" else "bool_or"
            extreme = replace(node, ours=f"{name}({node.ours})", duck=f"{name}({node.duck})", level=ATOM)
            made = [f"{node.ours} = ({text})" for text in select([("most", extreme, None)], "v", where)]
        return select(self.every(), "v", Node("bool", *made))

    def ordered(self):
        """By all keys, which makes the order total."""
        ours, duck = select(self.every(), "v", self.where(0.3))
        limit = self.rng.randint(1, 10)
        orders = [], []
        for place in range(self.keys):
            way = self.rng.choice(["", " ASC", " DESC"])
            nulls = self.rng.choice(["", " NULLS FIRST", " NULLS LAST"])
            orders[0].append(f"g{place}{way}{nulls}")
            # As Postgres does, where nothing is said: NULL is larger than all else.
            orders[1].append(f"g{place}{way}{nulls or (' NULLS FIRST' if 'DESC' in way else ' NULLS LAST')}")
        if not self.keys:
            return ours, duck
        return tuple(f"{text} ORDER BY {', '.join(order)} LIMIT {limit}" for text, order in zip((ours, duck), orders))


def case(seed, number):
    """A line: the events keep their digits, so they are put into it as text."""
    rng = random.Random(f"{seed}/{number}")
    records = events(rng)
    ours, duck, columns, keys = view(rng)
    queries = Queries(rng, columns, keys)
    kinds = [queries.plain, queries.plain, queries.grouped, queries.joined, queries.nested, queries.ordered]
    made = [rng.choice(kinds)() for _ in range(rng.randint(1, 4))]
    head = {
        "id": number, "seed": seed, "columns": ", ".join(f"{name} {type}" for name, (type, _) in COLUMNS.items()),
        "view": ours, "queries": [query for query, _ in made],
        "oracle": {"view": duck, "queries": [query for _, query in made]},
    }  # fmt: skip
    return json.dumps(head, ensure_ascii=False)[:-1] + ', "events": [' + ", ".join(records) + "]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--out", help="a file; else stdout")
    options = parser.parse_args()
    numbers = range(options.cases) if options.only is None else [options.only]
    out = open(options.out, "w", encoding="utf-8") if options.out else sys.stdout
    with out:
        for number in numbers:
            print(case(options.seed, number), file=out)


if __name__ == "__main__":
    main()
