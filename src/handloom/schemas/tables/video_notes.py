"""What is unusual about a video: the closed set of words in the column `video_notes`."""

from typing import Final

VIDEO_NOTES: Final[dict[str, str]] = {
    "several_streams": "the file holds several video streams; `video_stream` says which one was read",
    "mirrored": "the file says that players mirror the picture; frames are as players show them",
    "turned_askew": "the file turns the picture by an angle between quarter turns; the nearest was applied",
    "interlaced": "each frame holds two half pictures of different times; they were not separated",
    "hdr_pq": "colours are coded for HDR (PQ); they were not tone-mapped, pictures look pale",
    "hdr_hlg": "colours are coded for HDR (HLG); they were not tone-mapped, pictures look pale",
    "clock_restarts": "the file's clock starts again (joined files): times go on from the part before",
    "start_left_out": "the first frames need others from before the file's start: the video begins after them",
    "untimed_left_out": "some frames, at most a tenth of a clip's, have no time in the file; they were left out",
    "size_changes": "the picture's size changes in the video; `width` and `height` are those of the clip",
}
