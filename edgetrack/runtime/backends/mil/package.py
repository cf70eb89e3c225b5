"""The specification of a Core ML package, with coremltools' protobuf classes: what the file says, and its signature."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from edgetrack.bundle.integrity import LIMITS, is_file_name
from edgetrack.bundle.manifest import TensorInfo
from edgetrack.decoding import decode_json
from edgetrack.errors import BackendMissingError, BundleIntegrityError
from edgetrack.io import read_bytes
from edgetrack.runtime.backends.base import GraphSignature

REMEDY = "install it with: pip install 'edgetrack[coreml]'"
_ARRAYS = {65568: "float32", 65552: "float16", 131104: "int32"}


def import_coremltools() -> Any:
    """The package.

    Raises:
        BackendMissingError: it is not installed, or numpy is too new for it.
    """
    # It logs what is absent on other systems, and versions that it was not tested with.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with quiet():
        try:
            import coremltools
        except ImportError as error:
            raise BackendMissingError(f"coremltools is not installed ({error}); {REMEDY}") from error
    major, minor = (int(part) for part in np.__version__.split(".")[:2])
    if (major, minor) >= (2, 4):
        raise BackendMissingError(f"coremltools 9 fails with numpy {np.__version__}, it needs one below 2.4; {REMEDY}")
    return coremltools


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools draws bars on stderr and warns of every constant."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class _Item(msgspec.Struct):
    path: str


class _Items(msgspec.Struct):
    items: dict[str, _Item] = msgspec.field(name="itemInfoEntries")
    root: str = msgspec.field(name="rootModelIdentifier")


def refuse(package: Path, why: object) -> NoReturn:
    """Raise BundleIntegrityError on a package."""
    raise BundleIntegrityError(f"Core ML package {package.name} cannot be read: {why}; export the bundle again")


def read_file(path: Path) -> bytes:
    """All of a file that may be as large as a bundle allows; OSError where it cannot be read, or is larger."""
    return read_bytes(path, min(path.stat().st_size, LIMITS.file_bytes))


def specification_file(package: Path) -> Path:
    """The file of a package with its specification, as the package's list of files names it.

    Raises:
        BundleIntegrityError: it names none, or one outside the package.
    """
    listing = package / "Manifest.json"
    try:
        found = decode_json(read_bytes(listing), _Items, lambda why: BundleIntegrityError(f"{listing.name}: {why}"))
    except (OSError, BundleIntegrityError) as error:
        refuse(package, error)
    item = found.items.get(found.root)
    if item is None or not is_file_name(item.path):
        refuse(package, f"{listing.name} names no file of the package as its model")
    return package / "Data" / item.path


def read_spec(package: Path) -> Any:
    """The specification of a package, an ML program with a function `main`.

    Raises:
        BundleIntegrityError: it is not one, or not an ML program.
        BackendMissingError: coremltools is missing.
    """
    import_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(read_file(specification_file(package)))
    except (OSError, DecodeError) as error:
        refuse(package, error)
    if spec.WhichOneof("Type") != "mlProgram" or "main" not in spec.mlProgram.functions:
        refuse(package, "it holds no ML program")
    return spec


def main_block(spec: Any) -> Any:
    """The block of the main function that is run, with inputs, operations and outputs."""
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def signatures(spec: Any) -> tuple[GraphSignature, GraphSignature]:
    """Inputs and outputs as the manifest states them: an image is uint8 (H, W, 3), BGR."""
    return {i.name: _tensor(i.type) for i in spec.description.input}, {
        o.name: _tensor(o.type) for o in spec.description.output
    }


def _tensor(kind: Any) -> tuple[str, tuple[int, ...]]:
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        try:
            order = image.ColorSpace.Name(image.colorSpace)
        except ValueError:  # a number that stands for none
            order = str(image.colorSpace)
        return ("uint8" if order == "BGR" else f"{order} image"), (image.height, image.width, 3)
    array = kind.multiArrayType
    return _ARRAYS.get(array.dataType, f"type {array.dataType}"), tuple(array.shape)


def is_image(tensor: TensorInfo) -> bool:
    """Whether a tensor is a Core ML image; other uint8 ones, several crops at once, are arrays of floats there."""
    return tensor.dtype == "uint8" and len(tensor.shape) == 3 and tensor.shape[2] == 3


def as_stated(found: GraphSignature, tensors: Iterable[TensorInfo]) -> GraphSignature:
    """A package's signature with uint8 for arrays of floats that stand for it."""
    floats = {t.name for t in tensors if t.dtype == "uint8" and not is_image(t)}
    return {n: ("uint8" if n in floats and d == "float32" else d, shape) for n, (d, shape) in found.items()}
