-- Payments by card: how many, how much, from how many countries, by hour and by day.
CREATE TABLE payments (
  time TIMESTAMP, card TEXT, merchant TEXT, country TEXT, amount DECIMAL(10, 2),
  WATERMARK FOR time AS time - INTERVAL '5 minutes'
) WITH (connector = 'kafka', topic = 'payments', format = 'json');

CREATE MATERIALIZED VIEW velocity_1h AS
SELECT tumble(time, INTERVAL '1 hour') AS hour, card,
       count(*) AS payments, sum(amount) AS amount, max(amount) AS largest, count(DISTINCT country) AS countries
FROM payments
GROUP BY 1, 2;

CREATE MATERIALIZED VIEW velocity_1d AS
SELECT date_trunc('day', time) AS day, card, count(*) AS payments, sum(amount) AS amount
FROM payments
GROUP BY 1, 2;
