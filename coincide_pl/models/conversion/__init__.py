"""From the files of the original LLaVA and TinyLLaVA to Hugging Face's format: `convert`."""
