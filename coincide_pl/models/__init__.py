"""Loading Hugging Face models, the reference and target modules, the tiny built-in model."""
