"""Stages in several pools of actors: which of them share an actor, and what travels between the actors."""
