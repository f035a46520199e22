"""What the gallery costs in a browser: how long until a hit is seen, and until a frame is."""
