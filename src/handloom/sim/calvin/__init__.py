"""CALVIN's benchmark of long tasks in words: an installation elsewhere simulates, policies here act."""
