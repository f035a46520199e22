"""Windows over clips and robot episodes: which there are, in what order, and their samples. See `Database.windows`."""
