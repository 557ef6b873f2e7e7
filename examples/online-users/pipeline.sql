-- Who is online: a user starts and ends, sometimes on several devices at once.
CREATE TABLE presence (
  time TIMESTAMP, "user" TEXT, region TEXT,
  event TEXT,             -- START, END
  WATERMARK FOR time AS time - INTERVAL '30 seconds'
) WITH (connector = 'kafka', topic = 'presence', format = 'json');

-- Devices online by user, and where the user was last.
CREATE MATERIALIZED VIEW online AS
SELECT "user", last_value(region ORDER BY time) AS region,
       sum(CASE event WHEN 'START' THEN 1 WHEN 'END' THEN -1 ELSE 0 END) AS devices, max(time) AS last_seen
FROM presence
GROUP BY "user";

-- How many come and go, minute by minute.
CREATE MATERIALIZED VIEW traffic AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, region,
       count(*) FILTER (WHERE event = 'START') AS started, count(*) FILTER (WHERE event = 'END') AS ended
FROM presence
GROUP BY 1, 2;
