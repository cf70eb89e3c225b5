"""Engines are a cache of the ONNX: found by their key, checked by their hash, built again where either differs.

An engine is compiled code. TensorRT is handed only what was built from this ONNX, by this version, for this compute
capability, and whose bytes are those that were recorded then (`edgetrack.runtime.backends.cache`).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from edgetrack.bundle.manifest import FilePath, GraphInfo, Sha256
from edgetrack.decoding import converted
from edgetrack.errors import BundleIntegrityError
from edgetrack.io import sha256
from edgetrack.runtime.backends.cache import CompiledCache, CompiledKey
from edgetrack.runtime.backends.tensorrt.builder import SETTINGS

log = logging.getLogger(__name__)
Builder = Callable[[bytes], bytes]
MAX_ENGINE_BYTES = 2 << 30


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine is built from, by and for.

    Attributes:
        onnx_sha256: of the ONNX file.
        package, version: of TensorRT.
        capability: compute capability, such as `8.6`.
        settings: number of our builder settings.
    """

    onnx_sha256: Sha256
    package: str
    version: str
    capability: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,2}\.[0-9]\Z")]
    settings: int = SETTINGS

    def describe(self) -> str:
        """For messages: `tensorrt_rtx 1.7.1.116 for compute capability 8.6`."""
        return f"{self.package} {self.version} for compute capability {self.capability}"


class EngineInfo(Key, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine that a bundle brings, as its manifest records it: its file, the file's hash, and its key."""

    file: FilePath
    sha256: Sha256

    @property
    def key(self) -> Key:
        """Without the file."""
        return Key(**{name: getattr(self, name) for name in Key.__struct_fields__})


def find_engine(info: GraphInfo, path: Path, key: Key, cache: Path | None, build: Builder) -> bytes:
    """The engine of a graph: the bundle's, else the cached one, else a new one, which is cached.

    Args:
        info: the graph, with the engines that the bundle brings.
        path: of the ONNX file.
        key: what the engine has to be.
        cache: folder for engines, or None.
        build: makes the engine's bytes from those of the ONNX.

    Raises:
        BundleIntegrityError: the bundle's engine of this key is not the one that the manifest records.
    """
    shipped = _shipped(info, path, key)
    if shipped is not None:
        return shipped
    compiled = CompiledCache(cache, "tensorrt", "engine")
    name = f"{key.onnx_sha256[:24]}-{key.package}-{key.capability}.engine"
    needed: CompiledKey = msgspec.structs.asdict(key)
    if (cached := compiled.read(info.name, name, needed)) is not None:
        return cached
    log.warning("graph %s: building an engine by %s; this takes seconds to minutes", info.name, key.describe())
    engine = build(path.read_bytes())
    compiled.keep(name, engine, needed)
    return engine


def _shipped(info: GraphInfo, path: Path, key: Key) -> bytes | None:
    """The bundle's engine of this key; None where it brings none."""

    def refused(words: str) -> BundleIntegrityError:
        return BundleIntegrityError(
            f"graph {info.name!r} records an engine that is none of TensorRT: {words}; export the bundle again"
        )

    engines = [converted(record, EngineInfo, refused) for record in info.engines]
    for engine in engines:
        if engine.key == key:
            root = path.parents[info.file.count("/")]
            data = (root / engine.file).read_bytes()
            if sha256(data) != engine.sha256:
                raise BundleIntegrityError(
                    f"{engine.file} is not the engine that the manifest records; it was not loaded. Copy the bundle "
                    "again from where it was made, or export it again"
                )
            return unpacked(data, engine.file)
    if engines:
        brought = "; ".join(dict.fromkeys(engine.describe() for engine in engines))
        stale = any(engine.onnx_sha256 != key.onnx_sha256 for engine in engines)
        log.warning(
            "graph %s: the bundle's engines are not used: built by %s%s, needed is %s",
            info.name, brought, " from another ONNX file" if stale else "", key.describe(),
        )  # fmt: skip
    return None


def packed(engine: bytes) -> bytes:
    """As a bundle holds an engine: deflated, for most of one is the source text of kernels."""
    return zlib.compress(engine, 6)


def unpacked(data: bytes, name: str) -> bytes:
    """The engine of `packed`.

    Raises:
        BundleIntegrityError: it is not one, or larger than an engine may be.
    """
    inflate = zlib.decompressobj()
    try:
        engine = inflate.decompress(data, MAX_ENGINE_BYTES)
    except zlib.error as error:
        raise BundleIntegrityError(f"{name} is not a packed engine: {error}; export the bundle again") from None
    if not inflate.eof:
        raise BundleIntegrityError(f"{name} is cut, or unpacks to more than {MAX_ENGINE_BYTES} bytes; export it again")
    return engine
