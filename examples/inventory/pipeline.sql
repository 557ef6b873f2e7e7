-- Stock: what came in minus what went out.
CREATE TABLE movements (
  time TIMESTAMP, product TEXT, warehouse TEXT,
  kind TEXT,              -- in, out
  quantity BIGINT,
  WATERMARK FOR time AS time - INTERVAL '1 hour'
) WITH (connector = 'kafka', topic = 'movements', format = 'json');

CREATE MATERIALIZED VIEW stock AS
SELECT product, warehouse, sum(CASE kind WHEN 'in' THEN quantity ELSE -quantity END) AS on_hand, max(time) AS last_movement
FROM movements
WHERE kind IN ('in', 'out')
GROUP BY product, warehouse;

CREATE MATERIALIZED VIEW turnover AS
SELECT date_trunc('day', time) AS day, product,
       sum(quantity) FILTER (WHERE kind = 'in') AS came_in, sum(quantity) FILTER (WHERE kind = 'out') AS went_out
FROM movements
GROUP BY 1, 2;
