"""The gallery: a database in a browser (extra `[web]`)."""
