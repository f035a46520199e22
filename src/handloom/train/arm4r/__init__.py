"""ARM4R: robot policies pre-trained on 3D point tracks of human video (arXiv 2502.13142)."""
