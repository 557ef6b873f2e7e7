"""Random expressions, built once and rendered twice: in bifold's dialect and in DuckDB's.

The two differ in known ways, and those alone are decided here; what both must agree on is left to DuckDB:

- what fails for a value is NULL in a view: TRY and TRY_CAST (queries fail instead: `strict` builds what cannot)
- int / int cuts, x / 0 and x % 0 are NULL, for doubles too; integer literals are BIGINT, decimal literals exact
- numbers of two types compare exactly: the macros below
- BIGINT beside DECIMAL gives the decimal that holds both, anything beside DOUBLE the nearest double
- precedence is Postgres's: ours is printed with as few parentheses as that allows, or with all; DuckDB's with all

Doubles whose results depend on the order of adding are kept out of sums by `limit` and `exact`.
"""

from dataclasses import dataclass, replace
from decimal import Decimal

# How tightly operators bind, by Postgres's table. FREE is a place where nothing needs parentheses.
FREE, OR, AND, NOT, IS, COMPARE, LIKE, OTHER, ADD, MULTIPLY, ZONE, MINUS, ATOM = range(13)
INTS = ("int", "bigint")
NUMBERS = (*INTS, "double", "decimal")
TYPE_LIMIT = {"int": 2**31, "bigint": 2**63}
BEYOND = float("inf")

# The sign of a - b without rounding: of a double and an exact number with log10(p) decimals (up to 6), and of two
# exact numbers that no decimal of 38 digits holds both. Where fractions have the same nearest double, which is at
# least 1e-6, both are compared in units of 2^-72 / p.
MACROS = """
CREATE OR REPLACE MACRO double_sign(a, b, p) AS CASE
    WHEN a IS NULL OR b IS NULL THEN NULL
    WHEN isnan(a) OR a > 1.5e38::DOUBLE THEN 1
    WHEN a < -1.5e38::DOUBLE THEN -1
    WHEN trunc(a)::HUGEINT > trunc(b)::HUGEINT THEN 1
    WHEN trunc(a)::HUGEINT < trunc(b)::HUGEINT THEN -1
    WHEN a - trunc(a) <> (((b % 1) * p)::BIGINT)::DOUBLE / p::DOUBLE
        THEN sign((a - trunc(a)) - (((b % 1) * p)::BIGINT)::DOUBLE / p::DOUBLE)
    ELSE sign(((a - trunc(a)) * 4722366482869645213696::DOUBLE)::HUGEINT * p
              - ((b % 1) * p)::HUGEINT * 4722366482869645213696::HUGEINT)
    END;
CREATE OR REPLACE MACRO exact_sign(a, b) AS CASE
    WHEN a IS NULL OR b IS NULL THEN NULL
    WHEN trunc(a)::HUGEINT > trunc(b)::HUGEINT THEN 1
    WHEN trunc(a)::HUGEINT < trunc(b)::HUGEINT THEN -1
    ELSE sign((a % 1)::DECIMAL(38,18) - (b % 1)::DECIMAL(38,18))
    END;
"""

TEXTS = ["x", "y", "axb", "", "12", "NaN", "%_", "a\nb"]
PATTERNS = ["%", "x", "x%", "%x%", "_", "a_b", "", "%\\_", "\\%%", "A%", "X", "%b"]
REGEXES = [".*", "x", "^x$", "^a", "b$", "[xy]", "x|y", "^$", "a.b", "^.$", "^(x|12)$", "[0-9]+", "N"]
# SQL's pattern and the regular expression that means the same of a whole text.
SIMILAR = [
    ("%", ".*"), ("x", "x"), ("(x|y)", "(x|y)"), ("a_b", "a.b"), ("_", "."), ("[xy]", "[xy]"), ("%(x|b)", ".*(x|b)"),
    ("a?xb*", "a?xb*"), ("[0-9]+", "[0-9]+"), ("x|y", "(x|y)"), ("_*", ".*"),
]  # fmt: skip
TIMES = [
    "1970-01-01 00:00:00", "2015-09-12 00:46:58.771", "9999-12-31 00:00:00", "0001-01-01 00:00:00",
    "1677-09-21 00:12:43.145224", "2262-04-12 00:00:00", "2015-09-12 01:00:00",
]  # fmt: skip
INTERVALS = ["1 hour", "1 day", "1 month", "90 minutes"]
UNITS = ["minute", "hour", "day", "week", "month", "quarter", "year"]


@dataclass(frozen=True)
class Node:
    """An expression. `duck` needs no parentheses around it; `ours` binds as tightly as `level` says."""

    type: str
    ours: str
    duck: str
    level: int = ATOM
    limit: float = BEYOND  # no value is larger, of a number
    digits: int = 0  # of a decimal, in all
    scale: int = 0  # of a decimal, behind the point
    exact: bool = False  # a double that is a multiple of 1/1024 below 2^40, so that sums of it do not round
    literal: bool = False


def quote(text):
    return "'" + text.replace("'", "''") + "'"


def column(name, type, **more):
    return Node(type, name, name, **more)


def whole(node):
    """Digits in front of the point that the type of an exact number has."""
    return {"int": 10, "bigint": 19}.get(node.type, node.digits - node.scale)


def as_double(node):
    """DuckDB's text of a number as the nearest double; by way of text, which does not round twice."""
    if node.type == "double":
        return node.duck
    return f"CAST(CAST({node.duck} AS VARCHAR) AS DOUBLE)"


def common(nodes):
    """What CASE, coalesce and the like make of numbers of several types, and the DuckDB texts cast to it; or None."""
    types = {node.type for node in nodes}
    limit = max(node.limit for node in nodes)
    if "double" in types:
        if any(node.scale > 6 for node in nodes):
            return None
        exact = all(node.exact or node.type == "int" for node in nodes)
        return dict(type="double", limit=limit, exact=exact), [as_double(node) for node in nodes]
    if "decimal" in types:
        scale = max(node.scale for node in nodes)
        digits = max(map(whole, nodes)) + scale
        if digits > 38:
            return None
        made = dict(type="decimal", limit=limit, digits=digits, scale=scale)
        return made, [f"CAST({node.duck} AS DECIMAL({digits},{scale}))" for node in nodes]
    made = dict(type="bigint" if "bigint" in types else types.pop(), limit=limit)
    return made, [node.duck for node in nodes]


def sign(a, b):
    """DuckDB's text for the sign of a - b where its own comparison would round or fail; None where it would not."""
    types = {a.type, b.type}
    if types <= {*INTS} or not types <= {*NUMBERS} or a.type == b.type == "double":
        return None
    if a.type == "double":
        return None if b.literal else f"double_sign({a.duck}, {b.duck}, {10**b.scale}::BIGINT)"
    if b.type == "double":
        return None if a.literal else f"(-double_sign({b.duck}, {a.duck}, {10**a.scale}::BIGINT))"
    return None if common([a, b]) else f"exact_sign({a.duck}, {b.duck})"


def relation(operator, a, b):
    """DuckDB's text of a comparison; `operator` may be IS DISTINCT FROM."""
    if "null" in (a.type, b.type):
        other = a.duck if b.type == "null" else b.duck
        return f"({other} IS NOT NULL)" if operator == "IS DISTINCT FROM" else "CAST(NULL AS BOOLEAN)"
    by_sign = sign(a, b)
    if by_sign is None:
        left, right = (a.duck, b.duck) if a.type == b.type != "decimal" else common([a, b])[1]
        return f"({left} {operator} {right})"
    if operator == "IS DISTINCT FROM":
        both = f"({a.duck} IS NULL) <> ({b.duck} IS NULL)"
        return f"(CASE WHEN {a.duck} IS NULL OR {b.duck} IS NULL THEN {both} ELSE {by_sign} <> 0 END)"
    return f"({by_sign} {operator} 0)"


class Expressions:
    """Random expressions over `leaves`; with `strict` none that can fail for a value."""

    def __init__(self, rng, leaves, strict=False):
        self.rng, self.leaves, self.strict = rng, leaves, strict

    def chance(self, share):
        return self.rng.random() < share

    def of(self, *types):
        return [leaf for leaf in self.leaves if leaf.type in types]

    def join(self, *parts):
        """Text of `parts`: texts, and pairs of a node and the level below which it needs parentheses."""
        full = self.chance(0.5)
        made = []
        for part in parts:
            if isinstance(part, tuple):
                node, least = part
                bare = node.level >= (ATOM if full and least else least)
                part = node.ours if bare else f"({node.ours})"
            made.append(part)
        return "".join(made)

    def call(self, name, *arguments):
        listed = ", ".join(self.join((argument, FREE)) for argument in arguments)
        return f"{name}({listed})"

    # Values

    def value(self, depth=1):
        """A value of a type that the leaves have; hardly ever a bare literal."""
        kinds = [self.number] * 3 if self.of(*NUMBERS) else []
        kinds += [self.text] * 2 * bool(self.of("text")) + [self.time] * bool(self.of("time"))
        return self.varying(self.rng.choice(kinds or [self.number]), depth)

    def varying(self, make, depth):
        """What `make` makes, at the third attempt at the latest no matter whether it is a literal."""
        for _ in range(2):
            node = make(depth)
            if not node.literal:
                return node
        return make(depth)

    def like(self, node, depth=1):
        """A value that can stand beside `node` in a comparison; seldom `node` itself."""
        if node.type in ("text", "time", "bool"):
            make = {"text": self.text, "time": self.time, "bool": self.boolean}[node.type]
            made = [make(depth) for _ in range(3)]
            return next((other for other in made if other.ours != node.ours), node)
        for _ in range(10):
            other = self.literal() if self.chance(0.4) else self.number(depth)
            if other.ours == node.ours and self.chance(0.9):
                continue
            if other.literal and other.limit > 2**53 and node.type == "double":
                continue
            if node.literal and node.limit > 2**53 and other.type == "double":
                continue
            if "double" not in (node.type, other.type) or max(node.scale, other.scale) <= 6:
                return other
        return node

    def literal(self):
        if self.chance(0.4):
            text = self.rng.choice(["0.1", "1.1", "0.25", "0.5", "1.0", "12.50", "100.75", "-2.5", "0.10"])
            digits, scale = len(text.strip("-").replace(".", "")), len(text.split(".")[1])
            digits -= text.strip("-").startswith("0.")
            more = dict(digits=digits, scale=scale, exact=float(text) * 4 % 1 == 0, limit=abs(float(text)))
            ours, duck = text, f"CAST('{text}' AS DECIMAL({digits},{scale}))"
            return Node("decimal", ours, duck, MINUS if text[0] == "-" else ATOM, literal=True, **more)
        number = self.rng.choice([0, 1, 2, 3, 7, 10, 12, 100, -1, -5, 2147483647, -2147483648, 9007199254740993])
        level = MINUS if number < 0 else ATOM
        duck = f"CAST({number} AS BIGINT)"
        return Node("bigint", str(number), duck, level, limit=abs(number), exact=True, literal=True)

    def number(self, depth=1):
        leaves = self.of(*NUMBERS)
        if depth <= 0 or not leaves or self.chance(0.3):
            return self.rng.choice(leaves) if leaves and self.chance(0.95) else self.literal()
        ways = [self.arithmetic] * 5 + [self.cast] * 3 + [self.choice] * 4 + [self.case, self.function]
        made = self.rng.choice(ways)(depth - 1, self.number)
        return made or self.rng.choice(leaves)

    def arithmetic(self, depth, _):
        operator = self.rng.choice("++--**//%")
        a, b = self.number(depth), self.literal() if self.chance(0.5) else self.number(depth)
        if operator == "%":
            return self.modulo(a)
        if operator == "/" and self.strict and (not b.literal or Decimal(b.ours) == 0):
            return None
        found = {a.type, b.type}
        if found <= {*INTS}:
            made = self.integers(operator, a, b)
        elif "double" in found:
            made = self.doubles(operator, a, b)
        else:
            made = self.decimals(operator, a, b)
        if made is None:
            return None
        level = ADD if operator in "+-" else MULTIPLY
        return Node(ours=self.join((a, level), f" {operator} ", (b, level + 1)), level=level, **made)

    def integers(self, operator, a, b):
        type = "bigint"
        limit = {"*": a.limit * b.limit, "/": a.limit}.get(operator, a.limit + b.limit)
        if self.strict and limit >= TYPE_LIMIT[type]:
            return None
        # Arithmetic of narrower integers is done in 64 bits.
        duck = f"TRY(CAST({a.duck} AS BIGINT) {operator.replace('/', '//')} {b.duck})"
        return dict(type=type, duck=duck, limit=min(limit, TYPE_LIMIT[type]))

    def doubles(self, operator, a, b):
        if max(a.scale, b.scale) > 6:
            return None
        left, right = as_double(a), as_double(b)
        limit = {"*": a.limit * b.limit, "/": BEYOND}.get(operator, a.limit + b.limit)
        limit = BEYOND if limit != limit else limit  # 0 * inf
        exact = operator in "+-" and all(node.exact or node.type == "int" for node in (a, b)) and limit < 2**40
        duck = f"({left} {operator} {right})"
        if operator == "/":
            duck = f"(CASE WHEN {right} = 0 THEN NULL ELSE {left} / {right} END)"
        return dict(type="double", duck=duck, limit=limit, exact=exact)

    def decimals(self, operator, a, b):
        """Sums and products that 38 digits hold; quotients are rounded and tested by themselves."""
        if operator == "/":
            return None
        if operator == "*":
            scale, digits = a.scale + b.scale, sum(whole(node) + node.scale for node in (a, b)) + 2
            limit = a.limit * b.limit
        else:
            scale = max(a.scale, b.scale)
            digits, limit = max(whole(a), whole(b)) + 2 + scale, a.limit + b.limit
        if digits > 38:
            return None
        # DuckDB holds a product of narrow decimals in 64 bits, whether it fits or not.
        left, right = (f"CAST({node.duck} AS DECIMAL({digits},{node.scale}))" for node in (a, b))
        duck = f"CAST({left} {operator} {right} AS DECIMAL({digits},{scale}))"
        return dict(type="decimal", duck=duck, digits=digits, scale=scale, limit=limit)

    def modulo(self, a):
        """By a literal; not by -1, which overflows in DuckDB for the least integer and is 0 elsewhere."""
        number = self.rng.choice([2, 3, 10, 1000] if self.strict else [0, 2, 3, 10, 1000])
        ours = self.join((a, MULTIPLY), f" % {number}")
        if a.type in INTS:
            return Node("bigint", ours, f"TRY({a.duck} % CAST({number} AS BIGINT))", MULTIPLY, limit=number)
        if a.type == "double" and a.exact:
            duck = f"(CASE WHEN {number} = 0 THEN NULL ELSE {a.duck} % CAST({number} AS DOUBLE) END)"
            return Node("double", ours, duck, MULTIPLY, limit=number, exact=True)
        return None

    def cast(self, depth, _):
        safe = [("int", "BIGINT"), ("int", "DOUBLE"), ("bigint", "DOUBLE"), ("int", "DECIMAL(12,2)")]
        unsafe = [("bigint", "INT"), ("bigint", "DECIMAL(10,2)"), ("text", "INT"), ("text", "BIGINT")]
        unsafe += [("text", "DECIMAL(10,2)"), ("text", "DOUBLE"), ("text", "DOUBLE"), ("text", "DOUBLE")]
        source, target = self.rng.choice(safe if self.strict else safe + unsafe)
        fitting = self.of(source)
        if not fitting:
            return None
        node = self.rng.choice(fitting)
        if target == "DOUBLE" and source == "text" and depth > 0 and self.chance(0.3):
            node = self.text(depth)
        type = target.split("(")[0].lower()
        more = dict(digits=int(target[8:10]), scale=2) if type == "decimal" else {}
        limit = BEYOND if source == "text" and type == "double" else node.limit
        limit = min(limit, 10.0 ** (more["digits"] - 2) if more else TYPE_LIMIT.get(type, BEYOND))
        ours, level = self.join("CAST(", (node, FREE), f" AS {target})"), ATOM
        if node.level == ATOM and self.chance(0.4):
            ours = f"{node.ours}::{target}"
        duck = as_double(node) if source == "bigint" and type == "double" else f"TRY_CAST({node.duck} AS {target})"
        if source == "text" and type in INTS:  # DuckDB would round '0.1'
            duck = f"(CASE WHEN regexp_full_match({node.duck}, '[0-9]+') THEN {duck} END)"
        return Node(type, ours, duck, level, limit=limit, exact=source == "int" and type == "double", **more)

    def unified(self, nodes):
        """The attributes and DuckDB texts of values side by side, or None where they cannot stand so."""
        if nodes[0].type in ("text", "time", "bool"):
            return dict(type=nodes[0].type), [node.duck for node in nodes]
        return common(nodes)

    def choice(self, depth, make):
        name = self.rng.choice(["coalesce", "greatest", "least", "nullif"])
        nodes = [make(depth)]
        nodes += [self.like(nodes[0], depth) for _ in range(1 if name == "nullif" else self.rng.randint(1, 2))]
        if all(node.literal for node in nodes):
            return None
        if name == "nullif":
            if nodes[0].literal or {node.type for node in nodes} > {nodes[0].type}:
                return None
            duck = f"(CASE WHEN {relation('=', *nodes)} THEN NULL ELSE {nodes[0].duck} END)"
            return replace(nodes[0], ours=self.call(name, *nodes), duck=duck, level=ATOM)
        found = self.unified(nodes)
        if not found:
            return None
        return Node(ours=self.call(name, *nodes), duck=f"{name}({', '.join(found[1])})", **found[0])

    def case(self, depth, make):
        """Both forms of CASE, with ELSE or without."""
        results = [make(depth)]
        results += [self.like(results[0], depth) for _ in range(self.rng.randint(0, 2))]
        found = self.unified(results)
        if not found or all(node.literal for node in results):
            return None
        otherwise = len(results) > 1 and self.chance(0.8)
        branches = list(zip(results, found[1]))
        last = branches.pop() if otherwise else None
        ours, duck = ["CASE"], ["(CASE"]
        subject = self.value(0) if self.chance(0.4) else None
        if subject:
            ours += [" ", (subject, FREE)]
        for result, text in branches:
            test = self.like(subject, 0) if subject else self.boolean(min(depth, 1))
            ours += [" WHEN ", (test, FREE), " THEN ", (result, FREE)]
            duck.append(f"WHEN {relation('=', subject, test) if subject else test.duck} THEN {text}")
        if last:
            ours += [" ELSE ", (last[0], FREE)]
            duck.append(f"ELSE {last[1]}")
        return Node(ours=self.join(*ours, " END"), duck=" ".join(duck) + " END)", **found[0])

    def function(self, depth, _):
        texts, times, doubles = self.of("text"), self.of("time"), self.of("double")
        ways = ["length"] * bool(texts) + ["extract"] * bool(times) + ["abs", "floor"] * bool(doubles)
        way = self.rng.choice(ways) if ways else None
        if way == "length":
            node = self.text(depth)
            duck = f"CAST(length({node.duck}) AS BIGINT)"
            return Node("int", self.call("length", node), duck, limit=100)
        if way == "extract":
            part, node = self.rng.choice(["year", "month", "day", "hour"]), self.rng.choice(times)
            duck = f"CAST(extract({part} FROM {node.duck}) AS INT)"
            ours = self.rng.choice([f"extract({part} FROM {node.ours})", f"date_part('{part}', {node.ours})"])
            return Node("int", ours, duck, limit=10000)
        if way:
            node = self.rng.choice(doubles)
            return Node("double", self.call(way, node), f"{way}({node.duck})", limit=node.limit + 1, exact=node.exact)
        return None

    def text(self, depth=1):
        leaves = self.of("text")
        if depth <= 0 or not leaves or self.chance(0.45):
            if leaves and self.chance(0.8):
                return self.rng.choice(leaves)
            text = quote(self.rng.choice(TEXTS))
            return Node("text", text, text, literal=True)
        way = self.rng.choice(["||", "call", "choice", "case", "cast"])
        made = None
        if way == "||":
            a, b = self.text(depth - 1), self.text(depth - 1)
            ours = self.join((a, OTHER), " || ", (b, OTHER + 1))
            made = Node("text", ours, f"({a.duck} || {b.duck})", OTHER)
        elif way == "call":
            name, node = self.rng.choice(["upper", "lower"]), self.text(depth - 1)
            made = Node("text", self.call(name, node), f"{name}({node.duck})")
        elif way == "cast" and self.of("int", "bigint", "bool"):
            node = self.rng.choice(self.of("int", "bigint", "bool"))
            made = Node("text", f"CAST({node.ours} AS TEXT)", f"CAST({node.duck} AS VARCHAR)")
        elif way in ("choice", "case"):
            made = getattr(self, way)(depth - 1, self.text)
        return made or self.rng.choice(leaves)

    def time(self, depth=1):
        leaves = self.of("time")
        if depth <= 0 or not leaves or self.chance(0.4):
            if leaves and self.chance(0.7):
                return self.rng.choice(leaves)
            text = f"TIMESTAMP {quote(self.rng.choice(TIMES))}"
            return Node("time", text, text, literal=True)
        if self.chance(0.4):
            unit, node = self.rng.choice(UNITS), self.time(depth - 1)
            return Node("time", f"date_trunc('{unit}', {node.ours})", f"date_trunc('{unit}', {node.duck})")
        return self.rng.choice([self.choice, self.case])(depth - 1, self.time) or self.rng.choice(leaves)

    def moved(self, node):
        """A time that only a predicate may use, as it may leave the years 1 to 9999."""
        if node.type != "time" or node.literal or self.chance(0.7):
            return node
        if self.chance(0.3):
            return replace(node, ours=self.join((node, ZONE), " AT TIME ZONE 'UTC'"), level=ZONE)
        operator, span = self.rng.choice("+-"), self.rng.choice(INTERVALS)
        ours = self.join((node, ADD), f" {operator} INTERVAL '{span}'")
        return replace(node, ours=ours, duck=f"({node.duck} {operator} INTERVAL '{span}')", level=ADD)

    # Booleans

    def boolean(self, depth=3):
        if depth <= 0:
            return self.simple_boolean()
        ways = [self.junction] * 8 + [self.negation] * 4 + [self.distinct] * 4 + [self.comparison] * 5
        ways += [self.member] * 4 + [self.between] * 2 + [self.match] * 4 + [self.null_test] * 2
        ways += [self.truth_test] * 3 + [self.pairs] * 3 + [self.boolean_case, self.simple_boolean]
        return self.rng.choice(ways)(depth - 1)

    def simple_boolean(self, _=0):
        leaves = self.of("bool")
        if leaves and self.chance(0.3):
            return self.rng.choice(leaves)
        if self.chance(0.15):
            word = self.rng.choice(["TRUE", "FALSE", "NULL"])
            return Node("bool", word, f"CAST({word} AS BOOLEAN)", literal=True)
        return self.rng.choice([self.comparison, self.member, self.match, self.null_test])(0)

    def junction(self, depth):
        word, level = self.rng.choice([("AND", AND), ("OR", OR)])
        nodes = [self.boolean(depth) for _ in range(self.rng.choice([2, 2, 2, 3]))]
        return self.joined(word, level, nodes)

    def joined(self, word, level, nodes):
        ours = [part for node in nodes for part in (f" {word} ", (node, level))]
        return Node("bool", self.join(*ours[1:]), "(" + f" {word} ".join(node.duck for node in nodes) + ")", level)

    def negation(self, depth):
        node = self.boolean(depth)
        return Node("bool", self.join("NOT ", (node, NOT)), f"(NOT {node.duck})", NOT)

    def distinct(self, depth):
        a = self.boolean(min(depth, 2)) if self.chance(0.4) else self.value(min(depth, 1))
        b = self.like(a, min(depth, 1))
        if self.chance(0.1) and not a.literal:
            b = Node("null", "NULL", "NULL")
        word = self.rng.choice(["IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
        duck = relation("IS DISTINCT FROM", a, b)
        duck = f"(NOT {duck})" if "NOT" in word else duck
        return Node("bool", self.join((a, IS + 1), f" {word} ", (b, IS + 1)), duck, IS)

    def comparison(self, depth):
        if depth > 0 and self.chance(0.2):
            a, b, operator = self.boolean(depth - 1), self.boolean(depth - 1), self.rng.choice(["=", "<>"])
        else:
            a = self.value(min(depth, 2))
            a, b = self.moved(a), self.like(a, min(depth, 1))
            if a.literal and not b.literal and self.chance(0.7):
                a, b = b, a
            operator = self.rng.choice(["=", "<>", "<", "<=", ">", ">=", "!="])
        duck = relation(operator, a, b)
        return Node("bool", self.join((a, COMPARE + 1), f" {operator} ", (b, COMPARE + 1)), duck, COMPARE)

    def member(self, depth):
        a = self.boolean(min(depth, 1)) if depth > 0 and self.chance(0.15) else self.value(min(depth, 1))
        items = [self.like(a, 0) for _ in range(self.rng.randint(1, 3))]
        if self.chance(0.2):
            items.append(Node("null", "NULL", "NULL"))
        return self.listed(a, items)

    def listed(self, a, items):
        self.rng.shuffle(items)
        word = self.rng.choice(["IN", "NOT IN"])
        duck = "(" + " OR ".join(relation("=", a, item) for item in items) + ")"
        duck = f"(NOT {duck})" if word == "NOT IN" else duck
        ours = [part for item in items for part in (", ", (item, FREE))][1:]
        return Node("bool", self.join((a, LIKE + 1), f" {word} (", *ours, ")"), duck, LIKE)

    def between(self, depth):
        a = self.value(min(depth, 1))
        a, low, high = self.moved(a), self.like(a, 0), self.like(a, 0)
        word = self.rng.choice(["BETWEEN", "NOT BETWEEN"])
        duck = f"({relation('>=', a, low)} AND {relation('<=', a, high)})"
        duck = f"(NOT {duck})" if word == "NOT BETWEEN" else duck
        ours = self.join((a, LIKE + 1), f" {word} ", (low, LIKE + 1), " AND ", (high, LIKE + 1))
        return Node("bool", ours, duck, LIKE)

    def match(self, depth, node=None):
        node = node or self.varying(self.text, min(depth, 1))
        way = self.rng.choice(["LIKE", "LIKE", "ILIKE", "~", "~", "~*", "SIMILAR TO"])
        negated = self.chance(0.35)
        if way in ("~", "~*"):
            pattern = quote(self.rng.choice(REGEXES))
            duck = f"regexp_matches({node.duck}, {pattern}{', ' + quote('i') if way == '~*' else ''})"
            ours, level = self.join((node, OTHER), f" {'!' * negated}{way} {pattern}"), OTHER
        elif way == "SIMILAR TO":
            pattern, regex = self.rng.choice(SIMILAR)
            duck = f"regexp_full_match({node.duck}, {quote(regex)}, 's')"
            ours, level = self.join((node, LIKE + 1), f" {'NOT ' * negated}{way} {quote(pattern)}"), LIKE
        else:
            pattern = quote(self.rng.choice(PATTERNS))
            duck = f"({node.duck} {way} {pattern} ESCAPE '\\')"
            ours, level = self.join((node, LIKE + 1), f" {'NOT ' * negated}{way} {pattern}"), LIKE
        return Node("bool", ours, f"(NOT {duck})" if negated else duck, level)

    def null_test(self, depth):
        node = self.boolean(min(depth, 2)) if depth > 0 and self.chance(0.3) else self.value(min(depth, 1))
        word = self.rng.choice(["IS NULL", "IS NOT NULL"])
        return Node("bool", self.join((node, IS + 1), f" {word}"), f"({node.duck} {word})", IS)

    def truth_test(self, depth):
        node = self.boolean(depth)
        negated, word = self.chance(0.5), self.rng.choice(["TRUE", "FALSE", "UNKNOWN"])
        duck = f"{node.duck} IS NULL" if word == "UNKNOWN" else f"coalesce({node.duck} = {word}, FALSE)"
        ours = self.join((node, IS + 1), f" IS {'NOT ' * negated}{word}")
        return Node("bool", ours, f"({'NOT ' * negated}({duck}))", IS)

    def pairs(self, _):
        """Two tests of one text that a rewrite may merge, such as `k NOT IN ('x') OR k NOT IN ('y')`."""
        leaves = self.of("text")
        if not leaves:
            return self.simple_boolean()
        leaf, nodes = self.rng.choice(leaves), []
        way = self.rng.choice(["in", "in", "match", "both"])
        for _ in range(2):
            if way == "in" or (way == "both" and self.chance(0.5)):
                texts = [quote(text) for text in self.rng.sample(["x", "y", "12"], self.rng.choice([1, 1, 2]))]
                node = self.listed(leaf, [Node("text", text, text, literal=True) for text in texts])
            else:
                node = self.match(0, leaf)
            nodes.append(node)
        both = self.joined(*self.rng.choice([("AND", AND), ("OR", OR)]), nodes)
        if self.chance(0.4):
            both = Node("bool", self.join("NOT ", (both, NOT)), f"(NOT {both.duck})", NOT)
        return both

    def boolean_case(self, depth):
        return self.case(min(depth, 1), self.boolean) or self.simple_boolean()
