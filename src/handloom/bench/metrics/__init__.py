"""How far predictions are from the truth: arrays in, numbers out. Formulas and sources: docs/accuracy.md."""
