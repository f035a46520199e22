"""Pieces that several recipes are made of: transformers, poolings, perceptrons, encoders of pictures and text."""
