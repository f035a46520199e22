"""How often skills that few videos teach succeed on a robot arm in simulation."""
