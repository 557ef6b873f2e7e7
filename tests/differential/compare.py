#!/usr/bin/env python3
"""Compares bifold's answers to random cases with DuckDB's, cell by cell.

    python3 tests/differential/compare.py cases.ndjson answers.ndjson
    python3 tests/differential/compare.py --self-test cases.ndjson      # answers made by DuckDB, whole and spoilt

Needs the package of tests/duckdb/requirements.txt. All cells are compared exactly, as values (-0.0 equals 0.0, NaN
equals NaN); columns that round (`…__scale` in the oracle) within 1e-12 of the scale. Exit code 1 on any difference,
and if more cases are refused than --refused allows: a check that nothing passes through says nothing.
"""

import argparse
import base64
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal

import duckdb
from expressions import MACROS

ANSWERS = ("speed", "split", "batch", "plain")
TOLERANCE = 1e-12
# A quotient of decimals is cut behind 16 digits; DuckDB's is rounded there.
LAST_DIGIT = 1.01e-16
# What the contract calls the types of DuckDB's answers. Widths of integers and decimals are not compared.
KINDS = {"BOOLEAN": "boolean", "DOUBLE": "double", "VARCHAR": "text", "TIMESTAMP": "timestamp"}
KINDS |= {name: "int" for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")}
SHOWN = 3


def kind(type):
    name = str(type).split("(")[0]
    return {"DECIMAL": "decimal", "decimal": "decimal", "bigint": "int"}.get(name) or KINDS.get(name, name)


class Oracle:
    """DuckDB with the events of one case at a time."""

    def __init__(self):
        self.database = duckdb.connect()
        self.database.execute("SET threads = 1")
        # It takes a condition that is NULL for a true one now and then (2.0.0: `CASE WHEN s IS NOT NULL THEN s ELSE s END = s`).
        self.database.execute("PRAGMA disable_optimizer")
        self.database.execute(MACROS)

    def load(self, case):
        """The table t, with each value read from its digits."""
        names, types = zip(*(column.split(" ", 1) for column in case["columns"].split(", ")))
        self.database.execute(f"CREATE OR REPLACE TABLE t ({case['columns']})")
        rows = [[literal(event.get(name), type) for name, type in zip(names, types)] for event in case["events"]]
        if rows:
            values = ", ".join(f"({', '.join(row)})" for row in rows)
            casts = ", ".join(f"CAST({name} AS {type})" for name, type in zip(names, types))
            self.database.execute(f"INSERT INTO t SELECT {casts} FROM (VALUES {values}) AS raw({', '.join(names)})")

    def table(self, sql):
        """The answer to a query: columns as (name, kind), rows, and rows of scales by name."""
        cursor = self.database.execute(sql)
        names, types = [column[0] for column in cursor.description], [column[1] for column in cursor.description]
        rows = cursor.fetchall()
        shown = [place for place, name in enumerate(names) if not name.endswith("__scale")]
        scales = {name[: -len("__scale")]: place for place, name in enumerate(names) if name.endswith("__scale")}
        columns = [(names[place], kind(types[place])) for place in shown]
        cells = [{names[place]: row[place] for place in shown} for row in rows]
        return columns, cells, [{name: row[place] for name, place in scales.items()} for row in rows]

    def answers(self, case):
        """The view's answer, then those of the queries over it."""
        self.load(case)
        self.database.execute(f"CREATE OR REPLACE TABLE v AS {case['oracle']['view']}")
        yield self.table("SELECT * FROM v")
        for query in case["oracle"]["queries"]:
            yield self.table(query)


def literal(value, type):
    """A value of an event, whose numbers are texts, as a text of SQL that DuckDB casts without rounding."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return f"'{value}'"
    if type.startswith("DECIMAL"):
        value = format(Decimal(value), "f")
    return "'" + value.replace("'", "''") + "'"


def encoded(value):
    """A cell of DuckDB's as the contract writes it in JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        text = value.isoformat(timespec="microseconds" if value.microsecond % 1000 else "milliseconds")
        return (text if value.microsecond else text[:19]) + "Z"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def decoded(cell, kind):
    """A cell of JSON as a value that equals what is equal; what the contract does not allow there equals nothing."""
    try:
        if cell is None:
            return None
        if kind == "int" and type(cell) is int:
            return cell
        if kind == "double" and (type(cell) in (int, float) or cell in ("NaN", "Infinity", "-Infinity")):
            number = float(cell)
            return "NaN" if math.isnan(number) else number + 0.0
        if kind == "decimal" and type(cell) is str:
            return Decimal(cell)
        if (kind, type(cell)) in (("boolean", bool), ("text", str), ("timestamp", str)):
            return (kind, cell)
    except (ArithmeticError, ValueError):
        pass
    return ("not of its type", repr(cell))


def near(ours, theirs, scale):
    """Whether two cells of a column that rounds are the same; what is not defined may be NULL or NaN."""
    ours, theirs = (None if cell == "NaN" else cell for cell in (ours, theirs))
    if ours is None or theirs is None or isinstance(ours, tuple):
        return ours is theirs
    ours, theirs, scale = float(ours), float(theirs), float(scale or 0)
    return ours == theirs or abs(ours - theirs) <= max(TOLERANCE * max(scale, abs(theirs)), LAST_DIGIT)


def table_differences(answer, theirs, ordered):
    """What differs between an answer and DuckDB's table, in words."""
    columns, cells, scales = theirs
    named = [(column["name"], kind(column["type"])) for column in answer["columns"]]
    # NULL alone is text to bifold, as to PostgreSQL, and whatever its oracle was cast to to DuckDB.
    untyped = [name for name, type in named if type == "text" and all(row.get(name) is None for row in answer["rows"])]
    named = [next((c for c in columns if c[0] == pair[0]), pair) if pair[0] in untyped else pair for pair in named]
    if named != columns:
        yield f"columns {named}, DuckDB has {columns}"
        return
    exact = [(name, kind) for name, kind in columns if not (scales and name in scales[0])]
    about = [(name, kind) for name, kind in columns if (name, kind) not in exact]

    def split(row):
        values = [tuple(decoded(row.get(name, "missing"), kind) for name, kind in part) for part in (exact, about)]
        return values[0], values[1]

    ours = [split(row) for row in answer["rows"]]
    mine = [split({name: encoded(cell) for name, cell in row.items()}) for row in cells]
    if ordered and [row[0] for row in ours] != [row[0] for row in mine]:
        yield f"in this order: {shown(ours)}; DuckDB: {shown(mine)}"
        return
    here, there = defaultdict(list), defaultdict(list)
    for key, row in ours:
        here[key].append(row)
    for (key, row), scale in zip(mine, scales):
        there[key].append((row, scale))
    for key in dict.fromkeys([*here, *there]):
        if len(here[key]) != len(there[key]):
            yield f"{len(here[key])} rows, DuckDB has {len(there[key])}: {shown([(key, ())])}"
            continue
        for row, (other, scale) in zip(sorted(here[key], key=repr), sorted(there[key], key=lambda pair: repr(pair[0]))):
            for (name, _), a, b in zip(about, row, other):
                if not near(a, b, scale[name]):
                    yield f"{name} of {shown([(key, ())])}: {a!r}, DuckDB {b!r}"


def shown(rows):
    """Rows as a reader wants them: NULL, numbers and texts in quotes."""

    def cell(value):
        value = value[1] if isinstance(value, tuple) and value[0] != "not of its type" else value
        return "NULL" if value is None else str(value) if isinstance(value, (Decimal, float)) else repr(value)

    parts = ["(" + ", ".join(map(cell, key + about)) + ")" for key, about in rows[:10]]
    return " ".join(parts) + (" …" if len(rows) > 10 else "")


def case_differences(case, answer, expected):
    """Pairs of a statement and what is wrong with its answer."""
    view, *queries = expected
    if set(answer["answers"]) != set(ANSWERS):
        yield case["view"], f"the answers are {sorted(answer['answers'])}, not {sorted(ANSWERS)}"
    for name, rows in answer["answers"].items():
        for found in table_differences({"columns": answer["columns"], "rows": rows}, view, False):
            yield case["view"], f"{name}: {found}"
    if len(answer["queries"]) != len(queries):
        yield case["view"], f"{len(answer['queries'])} answers to {len(queries)} queries"
    for query, ours, theirs in zip(case["queries"], answer["queries"], queries):
        if "error" in ours:
            yield query, f"fails: {ours['error']}"
            continue
        for found in table_differences(ours, theirs, " ORDER BY " in query):
            yield query, found


def report(case, differences):
    """The first differences of a case, and what is needed to see them again."""
    print(f"seed {case['seed']}, case {case['id']}: {len(differences)} differences;"
          f" generate.py --seed {case['seed']} --only {case['id']} writes it")  # fmt: skip
    told = set()
    for statement, words in differences[:SHOWN]:
        if statement not in told:
            place = case["queries"].index(statement) if statement in case["queries"] else None
            theirs = case["oracle"]["view"] if place is None else case["oracle"]["queries"][place]
            if place is not None and case["view"] not in told:
                print(f"  view    {case['view']}")
            print(f"  {'view ' if place is None else 'query'}   {statement}\n  DuckDB  {theirs}")
        told |= {statement, case["view"]}
        print(f"    {words}")


class Totals:
    def __init__(self):
        self.views = self.queries = self.cells = self.differences = 0
        self.refused = Counter()

    def add(self, case, answer, oracle):
        """Compares a case, and counts it."""
        if "refused" in answer:
            self.refused[answer["refused"]] += 1
            return
        try:
            expected = list(oracle.answers(case))
        except duckdb.Error as error:
            found = [(case["view"], f"DuckDB fails: {str(error).splitlines()[0]}")]
        else:
            found = list(case_differences(case, answer, expected))
            sizes = [len(columns) * len(cells) for columns, cells, _ in expected]
            self.cells += sizes[0] * len(ANSWERS) + sum(sizes[1:])
        self.views += 1
        self.queries += len(case["queries"])
        self.differences += len(found)
        if found:
            report(case, found)


def cases_of(path):
    """Cases with the digits of their events' numbers."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            digits = json.loads(line, parse_int=str, parse_float=str)
            yield digits | {"id": int(digits["id"]), "seed": int(digits["seed"])}


def compare(cases, answers, bound):
    with open(answers, encoding="utf-8") as lines:
        answers = {answer["id"]: answer for answer in map(json.loads, lines)}
    oracle, totals, count, seeds = Oracle(), Totals(), 0, {}
    for case in cases_of(cases):
        count, seeds = count + 1, seeds | {case["seed"]: None}
        if case["id"] in answers:
            totals.add(case, answers[case["id"]], oracle)
        else:
            totals.differences += 1
            print(f"seed {case['seed']}, case {case['id']}: no answer")
    for message, times in totals.refused.most_common():
        print(f"refused {times}: {message}")
    refused = totals.refused.total()
    enough = totals.views and totals.cells and refused <= bound * count
    if not enough:
        print(f"{refused} of {count} cases are refused, {totals.cells} cells are compared: too little is")
    sizes = f"{count} cases, {totals.views} views, {totals.queries} queries, {totals.cells} cells, {refused} refused"
    print(f"differential: seed {', '.join(map(str, seeds))}: {sizes}, {totals.differences} differences")
    return 0 if enough and not totals.differences else 1


def answer_of(case, expected):
    """An answer in bifold's format that says what DuckDB says."""
    tables = [
        {
            "columns": [{"name": name, "type": kind} for name, kind in columns],
            "rows": [{name: encoded(cell) for name, cell in row.items()} for row in cells],
        }
        for columns, cells, _ in expected
    ]
    rows = {name: [dict(row) for row in tables[0]["rows"]] for name in ANSWERS}
    answer = {"id": case["id"], "columns": tables[0]["columns"], "answers": rows, "queries": tables[1:]}
    return json.loads(json.dumps(answer))


def spoil(answer, rng):
    """Changes one cell, or drops one row, of one answer; says how, or None if there is nothing to change."""
    tables = [(name, rows) for name, rows in answer["answers"].items() if rows]
    tables += [("query", query["rows"]) for query in answer["queries"] if query["rows"]]
    if not tables:
        return None
    name, rows = rng.choice(tables)
    if rng.random() < 0.1:
        return f"{name}: a row less, {rows.pop()}"
    row = rng.choice(rows)
    field = rng.choice(list(row))
    cell = row[field]
    if isinstance(cell, bool):
        row[field] = not cell
    elif isinstance(cell, (int, float)):
        row[field] = cell + 1 if isinstance(cell, int) else cell * 1.001 if cell else 1.0
        row[field] = 0.0 if not -1e308 <= row[field] <= 1e308 or row[field] == cell else row[field]
    elif cell is None:
        row[field] = 0
    else:
        row[field] = str(Decimal(cell) + 1) if re.fullmatch(r"-?\d+\.\d+", cell) else cell + "1"
    return f"{name}: {field} was {cell!r}, is {row[field]!r}"


def self_test(cases):
    """Whether every oracle runs, whole answers pass, and one changed cell does not."""
    oracle, rng, bad, filled, spoilt, count = Oracle(), random.Random(1), Counter(), Counter(), 0, 0
    for case in cases_of(cases):
        count += 1
        try:
            expected = list(oracle.answers(case))
        except duckdb.Error as error:
            bad["the oracle fails"] += 1
            print(f"case {case['id']}: {str(error).splitlines()[0]}\n  {case['oracle']}")
            continue
        filled["views with rows"] += bool(expected[0][1])
        filled["queries with rows"] += sum(bool(cells) for _, cells, _ in expected[1:])
        answer = answer_of(case, expected)
        for statement, words in case_differences(case, answer, expected):
            bad["a whole answer differs"] += 1
            print(f"case {case['id']}: {words}\n  {statement}")
        how = spoil(answer, rng)
        spoilt += how is not None
        if how and not any(case_differences(case, answer, expected)):
            bad["a spoilt answer passes"] += 1
            print(f"case {case['id']}: {how} goes unseen\n  {case['view']}")
    failed = ", ".join(f"{times} times {what}" for what, times in bad.items()) or "no failure"
    print(f"self-test: {count} cases, {dict(filled)}, {spoilt} spoilt answers, {failed}; DuckDB {duckdb.__version__}")
    return 0 if count and spoilt and not bad else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    parser.add_argument("answers", nargs="?")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--refused", type=float, default=0.03, help="the largest share of cases that may be refused")
    options = parser.parse_args()
    if options.self_test == bool(options.answers):
        parser.error("give a file of answers, or --self-test")
    if options.self_test:
        sys.exit(self_test(options.cases))
    sys.exit(compare(options.cases, options.answers, options.refused))


if __name__ == "__main__":
    main()
