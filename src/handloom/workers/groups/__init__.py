"""Workers of one group of stages: they pass clips on to the next group, and the last one writes them."""
