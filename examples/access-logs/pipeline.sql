-- A web server's access log.
CREATE TABLE access (
  time TIMESTAMP, client TEXT, method TEXT, path TEXT, status INT, bytes BIGINT, ms INT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'access', format = 'json');

CREATE MATERIALIZED VIEW by_minute AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, count(*) AS requests,
       count(*) FILTER (WHERE status >= 500) AS errors, sum(bytes) AS bytes,
       approx_percentile_cont(ms, 0.95) AS p95_ms, max(ms) AS slowest_ms
FROM access
GROUP BY 1;

CREATE MATERIALIZED VIEW by_path AS
SELECT method, path, count(*) AS requests, count(DISTINCT client) AS clients,
       count(*) FILTER (WHERE status BETWEEN 400 AND 499) AS refused
FROM access
GROUP BY method, path;
