"""A journal that makes batches durable before a slower database has them."""
