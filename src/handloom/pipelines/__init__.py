"""One module per command: wiring only."""
