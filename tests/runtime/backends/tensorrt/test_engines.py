"""Engines by key and hash: what is loaded, what is built again, what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrack.bundle.manifest import GraphInfo
from edgetrack.errors import BundleIntegrityError
from edgetrack.io import sha256
from edgetrack.runtime.backends.cache import CompiledRecord
from edgetrack.runtime.backends.tensorrt import engines
from edgetrack.runtime.backends.tensorrt.engines import EngineInfo, Key, find_engine, packed, unpacked

ONNX = b"an onnx file"
KEY = Key(onnx_sha256=sha256(ONNX), package="tensorrt_rtx", version="1.7", capability="8.6")
OTHERS = [
    {"version": "1.8"},
    {"onnx_sha256": sha256(b"another")},
    {"capability": "8.9"},
    {"package": "tensorrt"},
    {"settings": 99},
]


class Place:
    """A bundle's folder, a cache, and a builder that counts."""

    def __init__(self, root: Path) -> None:
        self.cache, self.onnx = root / "cache", root / "bundle" / "step.onnx"
        self.onnx.parent.mkdir()
        self.onnx.write_bytes(ONNX)
        self.built = 0

    def build(self, onnx: bytes) -> bytes:
        assert onnx == ONNX
        self.built += 1
        return b"engine %d" % self.built

    def info(self, *shipped: EngineInfo) -> GraphInfo:
        return GraphInfo(
            name="step",
            role="step",
            file="step.onnx",
            inputs=(),
            outputs=(),
            engines=tuple(map(msgspec.to_builtins, shipped)),
        )

    def ship(self, engine: bytes = b"shipped", **change: str) -> EngineInfo:
        data, key = packed(engine), msgspec.structs.replace(KEY, **change)
        path = self.onnx.parent / "engines" / "step.engine.zlib"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return EngineInfo(file="engines/step.engine.zlib", sha256=sha256(data), **msgspec.structs.asdict(key))

    def find(self, *shipped: EngineInfo, key: Key = KEY) -> bytes:
        return find_engine(self.info(*shipped), self.onnx, key, self.cache, self.build)

    def cached(self, suffix: str) -> Path:
        (path,) = (self.cache / "tensorrt").glob(f"*{suffix}")
        return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_engine_is_built_once_and_then_cached(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    assert place.find() == place.find() == b"engine 1"
    assert place.built == 1
    said = "building an engine by tensorrt_rtx 1.7 for compute capability 8.6"
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert (place.cache / "tensorrt").stat().st_mode & 0o077 == 0


def test_shipped_engine_of_the_key_is_used_and_nothing_is_cached(place: Place) -> None:
    assert place.find(place.ship(capability="8.9"), place.ship()) == b"shipped"
    assert place.built == 0
    assert not place.cache.exists()


@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_shipped_engine_of_another_key_is_not_used_and_says_so(
    place: Place, caplog: pytest.LogCaptureFixture, change: dict[str, str]
) -> None:
    assert place.find(place.ship(**change)) == b"engine 1"
    assert "the bundle's engines are not used: built by" in caplog.records[0].getMessage()


@pytest.mark.parametrize("change", [{"capability": "86"}, {"file": "../x"}, {"speed": 1}, {"settings": "one"}])
def test_record_that_is_none_of_tensorrt_is_refused(place: Place, change: dict[str, str | int]) -> None:
    record = {**msgspec.to_builtins(place.ship()), **change}
    info = msgspec.structs.replace(place.info(), engines=(record,))
    with pytest.raises(BundleIntegrityError, match="graph 'step' records an engine that is none of TensorRT"):
        find_engine(info, place.onnx, KEY, None, place.build)


def test_shipped_engine_with_another_hash_is_refused(place: Place) -> None:
    shipped = place.ship()
    (place.onnx.parent / shipped.file).write_bytes(packed(b"from an enemy"))
    with pytest.raises(BundleIntegrityError, match=r"not the engine that the manifest records; it was not loaded"):
        place.find(shipped)
    assert place.built == 0


@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_cached_engine_of_another_key_is_built_again_with_the_reason(
    place: Place, caplog: pytest.LogCaptureFixture, change: dict[str, str]
) -> None:
    place.find()
    record = msgspec.json.decode(place.cached(".json").read_bytes(), type=CompiledRecord)
    stale = msgspec.structs.replace(record, key=msgspec.structs.asdict(msgspec.structs.replace(KEY, **change)))
    place.cached(".json").write_bytes(msgspec.json.encode(stale))
    caplog.clear()
    assert place.find() == b"engine 2"
    assert f"the cached engine was built by or for another: {next(iter(change))} " in caplog.records[0].getMessage()
    assert place.find() == b"engine 2"


def test_new_version_replaces_the_cached_engine(place: Place) -> None:
    place.find()
    newer = msgspec.structs.replace(KEY, version="1.8")
    assert place.find(key=newer) == place.find(key=newer) == b"engine 2"
    assert len(list((place.cache / "tensorrt").iterdir())) == 2


def spoil_engine(place: Place) -> None:
    place.cached(".engine").write_bytes(b"from an enemy")


def spoil_record(place: Place) -> None:
    place.cached(".json").write_bytes(b"{")


def lose_record(place: Place) -> None:
    place.cached(".json").unlink()


@pytest.mark.parametrize("spoil", [spoil_engine, spoil_record, lose_record])
def test_spoiled_cache_is_built_again_and_never_loaded(place: Place, spoil: Callable[[Place], None]) -> None:
    place.find()
    spoil(place)
    assert place.find() == b"engine 2"
    assert place.find() == b"engine 2"


def test_cache_that_others_can_write_is_not_used(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.find()
    (place.cache / "tensorrt").chmod(0o777)
    assert [place.find(), place.find()] == [b"engine 2", b"engine 3"]
    assert "engines are not cached" in caplog.text


def test_cache_that_cannot_be_made_is_no_error(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.cache.write_bytes(b"a file")
    with caplog.at_level(logging.WARNING):
        assert place.find() == b"engine 1"
    assert "engines are not cached" in caplog.text


def test_without_a_cache_every_time_is_the_first(place: Place) -> None:
    for count in (1, 2):
        assert find_engine(place.info(), place.onnx, KEY, None, place.build) == b"engine %d" % count


@given(st.binary(max_size=2000))
def test_packing_is_undone(engine: bytes) -> None:
    assert unpacked(packed(engine), "engine") == engine


def test_packed_engine_that_is_cut_or_no_such_thing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(b"engine" * 1000)
    for broken in (b"", data[:-5], b"noise"):
        with pytest.raises(BundleIntegrityError):
            unpacked(broken, "engine")
    monkeypatch.setattr(engines, "MAX_ENGINE_BYTES", 100)
    with pytest.raises(BundleIntegrityError, match="unpacks to more than 100 bytes"):
        unpacked(data, "engine")
