"""Windows of clips and robot episodes for training: spec, plan, order and samples. See `Database.windows`."""
