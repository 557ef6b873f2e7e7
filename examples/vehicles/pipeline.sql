-- Where vehicles are, and how they are driven.
CREATE TABLE positions (
  time TIMESTAMP, vehicle TEXT, lat DOUBLE, lon DOUBLE, kmh INT,
  WATERMARK FOR time AS time - INTERVAL '2 minutes'
) WITH (connector = 'kafka', topic = 'positions', format = 'json');

-- The last position of each. Positions that come late do not move it back.
CREATE MATERIALIZED VIEW last_position AS
SELECT vehicle, last_value(lat ORDER BY time) AS lat, last_value(lon ORDER BY time) AS lon, max(time) AS seen
FROM positions
GROUP BY vehicle;

CREATE MATERIALIZED VIEW driving AS
SELECT tumble(time, INTERVAL '1 hour') AS hour, vehicle,
       count(*) AS positions, max(kmh) AS fastest, count(*) FILTER (WHERE kmh > 100) AS too_fast
FROM positions
GROUP BY 1, 2;
