"""What runs inside Ray: models loaded once, then shard after shard. Scheduling, commits and progress are elsewhere."""
