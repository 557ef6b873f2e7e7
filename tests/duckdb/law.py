#!/usr/bin/env python3
"""Compares bifold's merged answers with DuckDB's over the same events.

    LAW_DUCKDB=FOLDER cargo test -p bifold-tests --test all duckdb
    python3 tests/duckdb/law.py FOLDER

Needs the package of requirements.txt. Exact, but for doubles (1e-9 relative, absolute below 1) and for numbers of
distinct values from sketches (5 %). Exit code 1 and the difference if there is one.
"""

import json
import math
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb

COLUMNS = {
    "time": "TIMESTAMP",
    "channel": "TEXT",
    "page": "TEXT",
    "user": "TEXT",
    "n": "BIGINT",
    "small": "INT",
    "price": "DOUBLE",
    "weight": "DOUBLE",
    "wild": "DOUBLE",
    "cost": "DECIMAL(12,2)",
    "big": "DECIMAL(38,4)",
    "ok": "BOOLEAN",
    "tags": "TEXT[]",
    "_topic": "TEXT",
    "_partition": "INT",
    "_offset": "BIGINT",
    "_index": "INT",
    "_timestamp": "TIMESTAMP",
}


def same(ours, theirs):
    """Whether a cell of the answers' JSON is what DuckDB says."""
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if ours is None and isinstance(theirs, float):
        return math.isnan(theirs)  # what is not defined, such as the correlation of a constant
    if ours is None or theirs is None or isinstance(theirs, (bool, str)):
        return ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    if isinstance(theirs, datetime):
        return datetime.fromisoformat(ours) == theirs
    if isinstance(theirs, Decimal):
        return Decimal(ours) == theirs
    if isinstance(ours, str):  # a double that is no number, an integer beyond 64 bits
        ours = float(ours) if isinstance(theirs, float) else int(ours)
    if isinstance(theirs, float):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        return both_nan or ours == theirs or abs(ours - theirs) <= 1e-9 * max(abs(ours), abs(theirs), 1.0)
    return isinstance(ours, int) and ours == theirs


def key(row, keys):
    """A key to look rows up by: keys are texts, times, booleans and numbers that JSON says alike."""
    cells = [cell.isoformat() if isinstance(cell, datetime) else cell for cell in row[:keys]]
    return json.dumps([cell + 0.0 if isinstance(cell, float) else cell for cell in cells])


def differences(answer, cursor):
    names = [column[0] for column in cursor.description]
    if names != answer["columns"]:
        yield f"columns {answer['columns']}, DuckDB has {names}"
        return
    keys = answer["keys"]
    ours = {key(row, keys): row for row in answer["rows"]}
    theirs = {key(row, keys): row for row in cursor.fetchall()}
    if len(ours) != len(answer["rows"]):
        yield "two rows of one group"
    for missing in sorted(ours.keys() ^ theirs.keys()):
        yield f"only {'bifold' if missing in ours else 'DuckDB'} has {missing}"
    for group in sorted(ours.keys() & theirs.keys()):
        for name, mine, other in zip(names, ours[group], theirs[group]):
            if name in answer["about"]:
                good = abs(mine - other) <= 0.05 * other
            else:
                good = same(mine, other)
            if not good:
                yield f"{name} of {group}: bifold {mine!r}, DuckDB {other!r}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    database = duckdb.connect()
    database.execute(
        "CREATE TABLE events AS SELECT * FROM read_json(?, format = 'newline_delimited', columns = ?)",
        [str(folder / "events.ndjson"), COLUMNS],
    )
    events = database.execute("SELECT count(*) FROM events").fetchone()[0]
    bad = cells = 0
    for answer in answers:
        found = list(differences(answer, database.execute(answer["sql"])))
        cells += len(answer["rows"]) * len(answer["columns"])
        bad += len(found)
        print(f"{answer['view']}: {len(answer['rows'])} rows, {len(found)} differences")
        for difference in found[:10]:
            print(f"  {difference}")
    print(f"{events} events, {len(answers)} views, {cells} cells, {bad} differences; DuckDB {duckdb.__version__}")
    sys.exit(1 if bad or not events or not cells else 0)


if __name__ == "__main__":
    main()
