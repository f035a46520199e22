"""handloom turns hours of human video into training data for robots."""

__version__ = "0.1.0"
