"""Drawing rows: `draw_frame` (frame), `write_show` (show), `frames_from_row` (frames), `FrameKeeper` (thumbnail)."""
