"""The stages that handloom computes for every clip."""
