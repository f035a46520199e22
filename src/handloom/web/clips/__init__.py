"""One clip of the gallery: what is known of it, its arrays, its truth, and its images, videos and downloads."""
