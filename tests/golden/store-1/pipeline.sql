CREATE TABLE e (
  t TIMESTAMP, robot BOOLEAN, n BIGINT, k TEXT, s TEXT, x DOUBLE, y DOUBLE, d DECIMAL(38,0), c DECIMAL(38,3), ts TIMESTAMP,
  WATERMARK FOR t AS t
) WITH (connector = 'kafka', topic = 'e', format = 'json');

CREATE MATERIALIZED VIEW distinct_from AS
SELECT count(*) AS n FROM e WHERE robot IS DISTINCT FROM true AND n > 1;

CREATE MATERIALIZED VIEW nulls AS
SELECT count(*) FILTER (WHERE k NOT IN ('x') OR k NOT IN ('y')) AS a, count(*) FILTER (WHERE NOT (k ~ '.*')) AS b,
       count(*) FILTER (WHERE NOT (k LIKE '%')) AS c, count(*) FILTER (WHERE k SIMILAR TO 'x') AS d
FROM e;

CREATE MATERIALIZED VIEW extremes AS
SELECT k, min(CAST(s AS DOUBLE)) AS least, max(CAST(s AS DOUBLE)) AS greatest, max(x / 0.0) AS divided FROM e GROUP BY k;

CREATE MATERIALIZED VIEW casts AS
SELECT count(*) FILTER (WHERE d > 0.5) AS above, max(coalesce(d, 0.5)) AS known FROM e;

CREATE MATERIALIZED VIEW literals AS
SELECT count(*) FILTER (WHERE c = 1234567890123456.789) AS equal, sum(n * 1.1) AS product FROM e;

CREATE MATERIALIZED VIEW fields AS
SELECT k, named_struct('n', sum(n)) AS of, count(*) AS events FROM e GROUP BY k;

CREATE MATERIALIZED VIEW times AS
SELECT count(ts AT TIME ZONE 'UTC') AS zoned, count(CASE WHEN robot THEN ts ELSE TIMESTAMP '2024-01-01 00:00:00' END) AS chosen FROM e;

CREATE MATERIALIZED VIEW measures AS
SELECT round(covar_pop(y, x), 6) AS together, round(var_pop(y), 6) AS spread FROM e;

CREATE MATERIALIZED VIEW kept WITH (retention = '365 days') AS
SELECT date_trunc('day', t) AS day, count(*) AS n FROM e GROUP BY 1;
