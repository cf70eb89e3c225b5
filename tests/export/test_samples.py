"""The inputs that parity is proved on."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrack.export.samples import DEFAULT_SOURCES, MOMENTS, image_names, noise_sample
from edgetrack.media.sources import open_source
from edgetrack.models.smat import Network, deploy


@pytest.fixture(scope="module")
def graphs():
    return deploy(Network().eval())


def test_images_are_the_byte_inputs(graphs) -> None:
    assert image_names(graphs) == [("template", (128, 128, 3)), ("search", (256, 256, 3))]


def test_noise_is_the_same_everywhere_and_differs_by_name(graphs) -> None:
    first, second = noise_sample(graphs), noise_sample(graphs)
    for name, shape in image_names(graphs):
        image = first.inputs[name]
        assert (image.dtype, image.shape) == (np.uint8, shape)
        assert np.array_equal(image, second.inputs[name])
        assert abs(float(image.mean()) - 128) < 2
        assert abs(float(image.std()) - 48) < 3
    assert not np.array_equal(first.inputs["template"], first.inputs["search"][:128, :128])


@pytest.mark.parametrize("source", DEFAULT_SOURCES)
def test_built_in_sources_last_to_the_last_moment(source: str) -> None:
    with open_source(source) as frames:
        assert frames.length > max(MOMENTS)
        assert frames.ground_truth[0] is not None
