CREATE TABLE orders (
  time TIMESTAMP, country TEXT, customer TEXT, item TEXT, pieces BIGINT, weight DOUBLE, price DECIMAL(10,2),
  total DECIMAL(38,4), gift BOOLEAN, labels TEXT[],
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'orders', format = 'json');

CREATE MATERIALIZED VIEW numbers AS
SELECT tumble(time, INTERVAL '1 hour') AS hour, country, count(*) AS orders, count(weight) AS weighed,
       sum(pieces) AS pieces, avg(pieces) AS mean_pieces, min(price) AS cheapest, max(item) AS last_item,
       sum(price) AS turnover, avg(price) AS mean_price, sum(total) AS total, stddev(weight) AS spread,
       var_pop(weight) AS variance, max(weight) AS heaviest, min(weight) AS lightest, corr(weight, pieces) AS correlation, covar_samp(weight, pieces) AS together,
       regr_slope(weight, pieces) AS slope, regr_r2(weight, pieces) AS fit, sum(pieces * 1.5) AS half_more, max(price / 3) AS third, bool_and(gift) AS all_gifts, bool_or(gift) AS any_gift,
       bit_xor(pieces) AS bits, sum(pieces) FILTER (WHERE gift) AS gift_pieces
FROM orders GROUP BY 1, 2;

CREATE MATERIALIZED VIEW sets AS
SELECT country, approx_distinct(customer) AS customers, approx_distinct(pieces) AS sizes, approx_distinct(price) AS prices,
       approx_distinct(weight) AS weights, count(DISTINCT customer) AS exact, sum(DISTINCT pieces) AS once,
       median(weight) AS middle, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY weight) AS heavy,
       percentile_cont(0.25) WITHIN GROUP (ORDER BY pieces) AS quarter
FROM orders GROUP BY country;

CREATE MATERIALIZED VIEW in_order AS
SELECT item, first_value(customer ORDER BY time) AS first_customer, last_value(price ORDER BY time) AS last_price,
       array_agg(country ORDER BY time DESC) AS countries, string_agg(customer, ',' ORDER BY time) AS customers,
       array_agg(DISTINCT country ORDER BY country) AS places, first_value(labels ORDER BY pieces) AS labels
FROM orders GROUP BY item;

CREATE MATERIALIZED VIEW everything AS
SELECT count(*) AS orders, sum(pieces) AS pieces, approx_distinct(customer) AS customers, max(time) AS latest FROM orders;
