"""A humanoid with a fixed lower body that follows a person: RoboMirror's "imitate", adapted (docs/humanoid.md)."""
