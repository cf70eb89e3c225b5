"""Two sources of frames as one: a colour video and what a second sensor saw of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgetrack.box import Box
from edgetrack.errors import InvalidFrameError, SourceError, SourceInterruptedError
from edgetrack.media import Frame, FrameSource, ImageSource
from edgetrack.media.folders import read_deep_image
from edgetrack.runtime.frames import as_input


class PairedSource(FrameSource):
    """Frames of uint8 (H, W, 6): both sources' BGR channels; names, sizes and boxes are the first one's.

    Args:
        colour: the frames.
        aux: the second images, frame by frame; image files of 16 bits or floats are depth.

    Raises:
        SourceError: the two have not as many frames, as far as that is known.
    """

    def __init__(self, colour: FrameSource, aux: FrameSource) -> None:
        if colour.length is not None and aux.length is not None and colour.length != aux.length:
            raise SourceError(
                f"{colour.name} has {colour.length} frames, {aux.name} {aux.length}; expected one second image for "
                "each frame: cut the longer of the two"
            )
        self._colour, self._aux = colour, aux
        self.name, self.length, self.fps, self.size = colour.name, colour.length, colour.fps, colour.size

    @property
    def ground_truth(self) -> list[Box | None] | None:
        return self._colour.ground_truth

    def __iter__(self) -> Iterator[Frame]:
        second = _images(self._aux)
        for index, frame in enumerate(self._colour):
            aux = next(second, None)
            if aux is None:
                raise SourceInterruptedError(f"{self._aux.name} ends before frame {index} of {self.name}")
            try:
                yield as_input(frame, aux, 2)
            except InvalidFrameError as error:
                raise SourceInterruptedError(f"frame {index} of {self.name} and {self._aux.name}: {error}") from error

    def close(self) -> None:
        self._colour.close()
        self._aux.close()


def _images(source: FrameSource) -> Iterator[Any]:
    if isinstance(source, ImageSource):
        return (read_deep_image(path, index) for index, path in enumerate(source.paths))
    return iter(source)
