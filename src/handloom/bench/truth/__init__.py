"""Clips with truth: rendered ones, and those of folders in published layouts."""
