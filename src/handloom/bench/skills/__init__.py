"""How well constraints that few clips teach tell executions of a skill from others."""
