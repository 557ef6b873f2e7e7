-- A shop: what people view, click, search, put into carts and buy.
CREATE TABLE shop (
  time TIMESTAMP,
  event TEXT,             -- view, click, search, cart, purchase
  "user" TEXT,
  product TEXT,
  category TEXT,
  region TEXT,
  amount DECIMAL(10, 2),  -- of a purchase
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'shop', format = 'json');

-- What is sold, minute by minute.
CREATE MATERIALIZED VIEW revenue AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, category,
       count(*) AS purchases, sum(amount) AS revenue, avg(amount) AS basket
FROM shop WHERE event = 'purchase'
GROUP BY 1, 2;

-- What people look at.
CREATE MATERIALIZED VIEW products AS
SELECT product, count(*) AS events, approx_distinct("user") AS people,
       count(*) FILTER (WHERE event = 'purchase') AS sold
FROM shop WHERE product IS NOT NULL
GROUP BY product;

-- How many of those who come buy, by region and hour.
CREATE MATERIALIZED VIEW conversion AS
SELECT date_trunc('hour', time) AS hour, region,
       count(DISTINCT "user") AS people,
       count(DISTINCT "user") FILTER (WHERE event = 'purchase') AS buyers
FROM shop
GROUP BY 1, 2;

-- Everything, in one row.
CREATE MATERIALIZED VIEW totals AS
SELECT count(*) AS events, count(*) FILTER (WHERE event = 'purchase') AS purchases, sum(amount) AS revenue
FROM shop;
