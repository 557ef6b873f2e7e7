-- Edits of a wiki.
CREATE TABLE edits (
  time TIMESTAMP, channel TEXT, page TEXT, "user" TEXT, "isRobot" BOOLEAN, added BIGINT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'edits', format = 'json');

CREATE MATERIALIZED VIEW edits_by_channel AS
SELECT tumble(time, INTERVAL '10 minutes') AS since, channel,
       count(*) AS edits, sum(added) AS added, count(DISTINCT "user") AS editors
FROM edits WHERE NOT "isRobot"
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW pages AS
SELECT page, count(*) AS edits, count(*) FILTER (WHERE "isRobot") AS by_robots, max(time) AS last_edit
FROM edits
GROUP BY page;
