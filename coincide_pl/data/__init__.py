"""Records, their readers, encoding to tokens and labels, batches, and the order in which they are read."""
