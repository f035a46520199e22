"""Skills as in VLMimic: constraints learned from the segments of a few clips, matched with others, and adapted."""
