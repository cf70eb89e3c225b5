"""What may be handed to a tracker as a frame, with or without a second image, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import cv2
import numpy as np

from edgetrack.arrays import Array, Images
from edgetrack.box import Box
from edgetrack.errors import InvalidFrameError, SourceError, SourceInterruptedError
from edgetrack.media.frames import Frame
from edgetrack.media.sources import FrameSource

_CONVERSIONS = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}
DEPTH_LIMIT = 10_000.0


def as_bgr(frame: Any) -> Images:
    """A frame as uint8 (H, W, 3) BGR.

    Taken as it is: uint8 (H, W, 3), also a non-contiguous view. Converted: grey, (H, W) or (H, W, 1), is repeated over
    the three channels; of BGRA, (H, W, 4), the alpha channel is dropped. The size may change from frame to frame.

    Raises:
        InvalidFrameError: not an array, empty, of another dtype (its value range cannot be known) or shape.
    """
    if not isinstance(frame, np.ndarray):
        hint = "; the video has probably ended or the file was not found" if frame is None else ""
        raise InvalidFrameError(f"frame is {type(frame).__name__}, expected a uint8 numpy array (H, W, 3){hint}")
    if frame.size == 0:
        raise InvalidFrameError(f"frame is empty, its shape is {frame.shape}; expected uint8 (H, W, 3)")
    if frame.dtype != np.uint8:
        raise InvalidFrameError(
            f"frame has dtype {frame.dtype}, expected uint8 with values 0..255; convert it, for values 0..1 by "
            "(frame * 255).round().astype('uint8')"
        )
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    if channels == 3:
        return frame
    if channels in _CONVERSIONS:
        return cast(Images, cv2.cvtColor(np.ascontiguousarray(frame), _CONVERSIONS[channels]))
    raise InvalidFrameError(f"frame has shape {frame.shape}, expected (H, W, 3) BGR, (H, W, 4) BGRA or (H, W) grey")


def as_input(frame: Any, aux: Any, modalities: int) -> Images:
    """What a procedure takes: uint8 (H, W, 3), or (H, W, 6) with the second image's channels behind the first's.

    Args:
        frame: see `as_bgr`; for two modalities also both images as one, uint8 (H, W, 6).
        aux: the second image, see `as_aux`; of the frame's size, showing the same place in the same pixel.
        modalities: how many images a frame the tracker takes, 1 or 2.

    Raises:
        InvalidFrameError: an image cannot be used, the second one is missing, not wanted, or of another size.
    """
    if modalities == 1:
        both = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 6
        if aux is not None or both:
            raise InvalidFrameError("this tracker takes one image a frame, given two; leave aux (--aux) out")
        return as_bgr(frame)
    if aux is None:
        if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 6:
            if frame.size == 0:
                raise InvalidFrameError(f"frame is empty, its shape is {frame.shape}; expected uint8 (H, W, 6)")
            return frame
        raise InvalidFrameError(
            "this tracker takes two images a frame, given one; give the second (thermal, depth or event) too: "
            "tracker.init(frame, box, aux), tracker.update(frame, aux); on the command line --aux PATH"
        )
    colour, second = as_bgr(frame), as_aux(aux)
    if colour.shape != second.shape:
        raise InvalidFrameError(
            f"aux is {second.shape[1]}x{second.shape[0]} pixels, the frame {colour.shape[1]}x{colour.shape[0]}; both "
            "must show the same place in the same pixel: align the two and scale them to one size first"
        )
    return np.concatenate((colour, second), axis=2)


def as_aux(aux: Any) -> Images:
    """A second image as uint8 (H, W, 3) BGR.

    uint8 is taken as `as_bgr` takes it: thermal and event images, or depth that is rendered already. uint16 and floats,
    (H, W) or (H, W, 1), are depth, rendered in colours by `render_depth`.

    Raises:
        InvalidFrameError: none of these.
    """
    if isinstance(aux, np.ndarray) and aux.dtype != np.uint8:
        plane = aux[..., 0] if aux.ndim == 3 and aux.shape[2] == 1 else aux
        is_depth = aux.dtype == np.uint16 or np.issubdtype(aux.dtype, np.floating)
        if plane.ndim == 2 and plane.size and is_depth:
            return render_depth(plane)
    try:
        return as_bgr(aux)
    except InvalidFrameError as error:
        raise InvalidFrameError(
            f"aux: {error}; or depth as uint16 or float (H, W), in units of which 10000 is as far as counts"
        ) from None


def render_depth(depth: Array) -> Images:
    """Depth (H, W) in colours, as published (docs/trackers/dmtrack.md, Normalisation): uint8 (H, W, 3).

    Clipped at three times the median, and at 10000; stretched to 0..255; OpenCV's colour map JET. The published
    tracker hands OpenCV's channel order to the network where it hands RGB of other images, so that order is turned
    round here. What is not finite counts as 0.
    """
    found = np.where(np.isfinite(depth), depth, 0).astype(np.float64)
    farthest = min(3.0 * float(np.median(found)), DEPTH_LIMIT)
    clipped = np.minimum(found, farthest)
    stretched = cv2.normalize(clipped, np.empty(clipped.shape), 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    coloured = cv2.applyColorMap(stretched, cv2.COLORMAP_JET)
    return cast(Images, coloured[..., ::-1])


def with_stand_in(frame: Images, modalities: int) -> Images:
    """A frame for a proof or a measurement: where a second image is missing, the negative of the first stands in.

    It has edges where the first has them, as thermal images have; it says nothing about accuracy.
    """
    if modalities == 1 or frame.shape[2] != 3:
        return frame
    return np.concatenate((frame, 255 - frame), axis=2)


class PairedSource(FrameSource):
    """Frames of uint8 (H, W, 6): both sources' BGR channels; names, sizes and boxes are the first one's.

    Args:
        colour: the frames.
        aux: the second images, frame by frame; image files of 16 bits or floats are depth.
        depth: whether images of one channel are depth also where they have 8 bits.

    Raises:
        SourceError: the two have different numbers of frames, as far as those are known.
    """

    def __init__(self, colour: FrameSource, aux: FrameSource, *, depth: bool = False) -> None:
        if colour.length is not None and aux.length is not None and colour.length != aux.length:
            raise SourceError(
                f"{colour.name} has {colour.length} frames, {aux.name} {aux.length}; expected one second image for "
                "each frame: cut the longer of the two"
            )
        self._colour, self._aux, self._depth = colour, aux, depth
        self.name, self.length, self.fps, self.size = colour.name, colour.length, colour.fps, colour.size
        self.live = colour.live or aux.live

    @property
    def ground_truth(self) -> list[Box | None] | None:
        return self._colour.ground_truth

    def truth_at(self, index: int) -> Box | None:
        return self._colour.truth_at(index)

    @property
    def notes(self) -> list[str]:
        return self._colour.notes + self._aux.notes

    @property
    def skipped(self) -> dict[int, str]:
        return self._colour.skipped | self._aux.skipped

    @property
    def breaks_s(self) -> list[float]:
        return self._colour.breaks_s + self._aux.breaks_s

    def __iter__(self) -> Iterator[Frame]:
        second = self._aux.deep()
        for index, frame in enumerate(self._colour):
            aux = next(second, None)
            if aux is None:
                raise SourceInterruptedError(f"{self._aux.name} ends before frame {index} of {self.name}")
            try:
                yield as_input(frame, render_depth(aux) if self._depth and aux.ndim == 2 else aux, 2)
            except InvalidFrameError as error:
                raise SourceInterruptedError(f"frame {index} of {self.name} and {self._aux.name}: {error}") from error

    def interrupt(self) -> None:
        self._colour.interrupt()
        self._aux.interrupt()

    def close(self) -> None:
        self._colour.close()
        self._aux.close()
