-- A shop: what people search, look at, put into carts and buy.
CREATE TABLE shop (
  event_id TEXT,
  time TIMESTAMP,
  event TEXT,             -- search, view, click, cart, purchase
  "user" TEXT,
  session TEXT,
  region TEXT,
  category TEXT,
  product TEXT,           -- of all but searches
  query TEXT,             -- of a search
  amount DECIMAL(10, 2),  -- of a purchase
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'shop', format = 'json');

-- What is sold, minute by minute.
CREATE MATERIALIZED VIEW revenue AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, category,
       count(*) AS purchases, sum(amount) AS revenue, avg(amount) AS basket
FROM shop WHERE event = 'purchase'
GROUP BY 1, 2;

-- What people look at and buy now: order by looks in the query.
CREATE MATERIALIZED VIEW trending AS
SELECT tumble(time, INTERVAL '10 minutes') AS since, product,
       count(*) FILTER (WHERE event = 'view') AS looks, approx_distinct("user") AS people,
       count(*) FILTER (WHERE event = 'purchase') AS sold
FROM shop WHERE product IS NOT NULL
GROUP BY 1, 2;

-- What people search.
CREATE MATERIALIZED VIEW searches AS
SELECT date_trunc('hour', time) AS hour, query, category, count(*) AS searches, approx_distinct("user") AS people
FROM shop WHERE event = 'search'
GROUP BY 1, 2, 3;

-- How many of those who come buy, by region and hour.
CREATE MATERIALIZED VIEW conversion AS
SELECT date_trunc('hour', time) AS hour, region,
       count(DISTINCT session) AS visits,
       count(DISTINCT session) FILTER (WHERE event = 'purchase') AS with_purchase
FROM shop
GROUP BY 1, 2;

-- Who buys what: features for recommendations.
CREATE MATERIALIZED VIEW customers AS
SELECT "user", count(*) AS purchases, sum(amount) AS spent, max(time) AS last_purchase,
       last_value(category ORDER BY time) AS last_category, count(DISTINCT category) AS categories
FROM shop WHERE event = 'purchase'
GROUP BY "user";

-- Everything, in one row. Some events come twice, as producers that try again send them: ids tell.
CREATE MATERIALIZED VIEW totals AS
SELECT count(*) AS events, approx_distinct(event_id) AS ids,
       count(*) FILTER (WHERE event = 'purchase') AS purchases, sum(amount) AS revenue
FROM shop;
