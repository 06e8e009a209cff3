"""The command `coincide`, also called `lightning`: its verbs, its messages, its processes."""
