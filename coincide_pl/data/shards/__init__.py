"""Data in shards, tar or Parquet, here or at a URL: an index, and images read out of them."""
