"""Skills on a robot arm: a table with things in MuJoCo, plans from a skill's constraints, and their execution."""
