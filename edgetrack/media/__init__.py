"""Frames in, boxes and pictures out: synthetic scenes, sources, result files and overlays."""

from edgetrack.media.folders import IMAGE_SUFFIXES, ImageSource, ground_truth_for, natural_key, stated_size
from edgetrack.media.frames import Frame, ReadOptions, check_size, quiet_cv2
from edgetrack.media.overlay import draw, draw_attention
from edgetrack.media.scenes import Scene, load_scene, scene_names
from edgetrack.media.sources import FrameSource, open_source
from edgetrack.media.videos import VIDEO_SUFFIXES
from edgetrack.media.writers import BoxRecord, BoxWriter, VideoWriter

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "BoxRecord",
    "BoxWriter",
    "Frame",
    "FrameSource",
    "ImageSource",
    "ReadOptions",
    "Scene",
    "VideoWriter",
    "check_size",
    "draw",
    "draw_attention",
    "ground_truth_for",
    "load_scene",
    "natural_key",
    "open_source",
    "quiet_cv2",
    "scene_names",
    "stated_size",
]
