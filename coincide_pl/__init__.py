"""Choose visual instruction-tuning data with COINCIDE, and finetune and compare on it."""

__version__ = "0.1.0"
