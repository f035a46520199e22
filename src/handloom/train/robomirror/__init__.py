"""RoboMirror (arXiv 2512.23649): latents of the wearer's motion, and their reconstruction from what a model sees."""
