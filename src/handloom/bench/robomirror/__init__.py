"""How well RoboMirror's latents hold a person's motion, and how well they are made from what is seen alone."""
