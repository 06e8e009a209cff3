# One cell of the sweep, or the signals that all its cells read; see experiments/llava15/sweep.mk.
EXPERIMENT := experiments/vision_flan
include experiments/llava15/sweep.mk
