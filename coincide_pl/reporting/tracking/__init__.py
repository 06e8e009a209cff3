"""What goes to Weights & Biases, and what is read from the files that it keeps on disk."""
