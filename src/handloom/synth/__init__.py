"""Rendered egocentric scenes with exact truth: the demo's, the tests' and the accuracy benchmark's videos."""
