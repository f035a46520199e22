"""Parts of recipes: transformers, poolings, perceptrons, encoders of images and text, and what they ask of a table."""
