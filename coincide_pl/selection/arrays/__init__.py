"""Large arrays: rows read in blocks, exact products, k-means, nearest neighbors."""
