"""Records and their readers, encoding to tokens and labels, and batches."""
