-- Sensors, downsampled.
CREATE TABLE readings (
  time TIMESTAMP, sensor TEXT, site TEXT, celsius DECIMAL(6, 2),
  WATERMARK FOR time AS time - INTERVAL '1 minute'
) WITH (connector = 'kafka', topic = 'readings', format = 'json');

CREATE MATERIALIZED VIEW readings_1m AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, sensor,
       count(*) AS readings, min(celsius) AS lowest, max(celsius) AS highest, avg(celsius) AS mean
FROM readings
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW readings_1h AS
SELECT tumble(time, INTERVAL '1 hour') AS hour, site,
       count(*) AS readings, min(celsius) AS lowest, max(celsius) AS highest, sum(celsius) AS total,
       count(*) FILTER (WHERE celsius < 2 OR celsius > 8) AS out_of_range
FROM readings
GROUP BY 1, 2;
