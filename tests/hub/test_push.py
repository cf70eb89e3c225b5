"""What `push` refuses, before anything is asked of a server."""

from __future__ import annotations

import pytest

from edgetrack.bundle.manifest import LicenceInfo, WeightsInfo
from edgetrack.errors import UsageError
from edgetrack.hub.push import PushRequest, push
from tests.builders import scripted_manifest, write_scripted

ADDRESS = "hf://owner/name/b.zip"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (WeightsInfo(origin="custom"), "states no licence of the weights"),
        (
            WeightsInfo(origin="custom", licence=LicenceInfo(name="LicenseRef-Mine")),
            r"its weights \(LicenseRef-Mine\) may not be passed on",
        ),
    ],
)
def test_weights_that_may_not_be_passed_on_stay_here(server, tmp_path, weights, said) -> None:
    bundle = write_scripted(tmp_path / "b", scripted_manifest("b", weights=weights))
    with pytest.raises(UsageError, match=said):
        push(PushRequest(str(bundle), ADDRESS, endpoint=server.base))
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://h.org/b.zip", "edgetrack pack, copy the zip there"),
        (f"{ADDRESS}#sha256={'0' * 64}", "the hash follows from the bundle"),
        ("hf://owner/name/b.tar", r"ends in \.zip"),
    ],
)
def test_where_nothing_is_published_is_said(given, address, said) -> None:
    with pytest.raises(UsageError, match=said):
        push(PushRequest(str(given / "scripted"), address))
