"""Frames in, boxes and pictures out: synthetic scenes, sources, result files and overlays."""

from edgetrack.media._folders import ImageSource, natural_key
from edgetrack.media._groundtruth import ground_truth_for
from edgetrack.media._images import IMAGE_SUFFIXES, stated_size
from edgetrack.media._quiet import quiet_cv2
from edgetrack.media._source import check_size
from edgetrack.media._types import Frame
from edgetrack.media._videos import VIDEO_SUFFIXES
from edgetrack.media.overlay import VideoWriter, draw
from edgetrack.media.results import BoxRecord, BoxWriter
from edgetrack.media.scenes import Scene, load_scene, scene_names
from edgetrack.media.sources import FrameSource, open_source

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "BoxRecord",
    "BoxWriter",
    "Frame",
    "FrameSource",
    "ImageSource",
    "Scene",
    "VideoWriter",
    "check_size",
    "draw",
    "ground_truth_for",
    "load_scene",
    "natural_key",
    "open_source",
    "quiet_cv2",
    "scene_names",
    "stated_size",
]
