"""What Ray holds: models loaded once, then shard after shard. No knowledge of scheduling, commits or progress bars."""
