"""Other people's formats: `export_parquet`, `export_arrow`, `read_index` in `handloom.export.shards`."""
