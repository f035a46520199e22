"""Training on the table: recipes (settings, a network, a report) and the one loop that trains them, without Ray."""
