"""Segments as pictures: a strip of time, and the points of things on the image."""
