"""Vision-language models: a question about a clip's frames, and an answer that is checked."""
