"""Tables and figures of finished runs, their wall-clock, and what goes to W&B."""
