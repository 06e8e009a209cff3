"""COINCIDE's steps: transferability, density, budgets, and the order of picking."""
