"""Records, their readers, encoding to tokens and labels, batches, and the DataModule."""
