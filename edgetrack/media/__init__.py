"""Frames in, boxes and pictures out: synthetic scenes, sources, result files and overlays."""

from edgetrack.media.overlay import VideoWriter, draw
from edgetrack.media.results import BoxRecord, BoxWriter
from edgetrack.media.scenes import Scene, load_scene, scene_names
from edgetrack.media.sources import FrameSource, open_source

__all__ = [
    "BoxRecord",
    "BoxWriter",
    "FrameSource",
    "Scene",
    "VideoWriter",
    "draw",
    "load_scene",
    "open_source",
    "scene_names",
]
