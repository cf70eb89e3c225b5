"""What an ML program may not say: each defect is named, and nothing large is allocated for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrack.bundle.manifest import GraphInfo
from edgetrack.errors import BundleError, BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.mil.backend import MilGraph
from edgetrack.runtime.backends.mil.package import main_block, read_spec, specification_file
from edgetrack.runtime.backends.mil.program import read_program
from tests.builders import write_ml_program

pytest.importorskip("coremltools", reason="COREMLTOOLS ABSENT: pip install 'edgetrack[coreml]'")
Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GraphInfo]:
    """A small package and its graph."""
    package = tmp_path_factory.mktemp("mil") / "step.mlpackage"
    return package, write_ml_program(package)


@pytest.fixture
def package(made: tuple[Path, GraphInfo], tmp_path: Path) -> Path:
    """The package, to spoil."""
    return Path(shutil.copytree(made[0], tmp_path / "step.mlpackage"))


def operation(spec: Any, kind: str) -> Any:
    return next(one for one in main_block(spec).operations if one.type == kind)


def blob(spec: Any) -> Any:
    values = [one.attributes["val"] for one in main_block(spec).operations if one.type == "const"]
    values += [
        one.attributes["quantized_data"] for one in main_block(spec).operations if one.type.startswith("constexpr")
    ]
    return next(value for value in values if value.WhichOneof("value") == "blobFileValue")


def renamed(kind: str, key: str, name: str) -> Change:
    def change(spec: Any) -> None:
        operation(spec, kind).inputs[key].arguments[0].name = name

    return change


def itself(spec: Any) -> None:
    one = operation(spec, "relu")
    one.inputs["x"].arguments[0].name = one.outputs[0].name


def twice(spec: Any) -> None:
    operation(spec, "sigmoid").outputs[0].name = operation(spec, "relu").outputs[0].name


def kind_of(kind: str) -> Change:
    def change(spec: Any) -> None:
        operation(spec, "relu").type = kind

    return change


def dimension(size: int) -> Change:
    def change(spec: Any) -> None:
        operation(spec, "relu").outputs[0].type.tensorType.dimensions[1].constant.size = size

    return change


def offset(at: int) -> Change:
    def change(spec: Any) -> None:
        blob(spec).blobFileValue.offset = at

    return change


def file(name: str) -> Change:
    def change(spec: Any) -> None:
        blob(spec).blobFileValue.fileName = name

    return change


def shape_of_blob(spec: Any) -> None:
    blob(spec).type.tensorType.dimensions[0].constant.size = 2**40


def block(spec: Any) -> None:
    operation(spec, "relu").blocks.add()


def wide(spec: Any) -> None:
    operation(spec, "relu").outputs[0].type.tensorType.dataType = 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (itself, "used before it is defined"),
        (renamed("relu", "x", "softmax_0"), "'softmax_0' is used before it is defined"),
        (renamed("relu", "x", "nothing"), "'nothing' is used before it is defined"),
        (twice, "is defined twice"),
        (kind_of("lstm"), "does not know the operation lstm; it knows those that edgetrack exports: add, "),
        (kind_of("layer_norm"), "missing a required argument"),
        (block, "control flow is not interpreted"),
        (dimension(2**62), "is larger than"),
        (dimension(2**24), "MiB in the reference interpreter, and|declares"),
        (dimension(5), r"it gives float32 \[1, 4, 8, 8\] and declares float32 \[1, 5, 8, 8\]"),
        (wide, "it mixes float16 and float32"),
        (offset(2**64 - 64), "the file has"),
        (offset(65), "in records of 64"),
        (offset(0), "no record of"),
        (shape_of_blob, "larger than|are no"),
        (file("@model_path/../../Manifest.json"), "is none of the package"),
        (file("/etc/passwd"), "is none of the package"),
        (file("@model_path/weights/absent.bin"), "No such file"),
    ],
)
def test_a_defect_is_named(made: tuple[Path, GraphInfo], package: Path, change: Change, words: str) -> None:
    spec = read_spec(package)
    change(spec)
    specification_file(package).write_bytes(spec.SerializeToString())
    with pytest.raises(BundleError, match=words):
        MilGraph(made[1], package, BackendOptions()).run()


def test_a_record_that_claims_more_than_the_file_is_refused(package: Path) -> None:
    path = specification_file(package).parent / "weights" / "weight.bin"
    data = bytearray(path.read_bytes())
    start = data.index(b"\xef\xbe\xad\xde")
    data[start + 8 : start + 16] = (2**64 - 1).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(BundleIntegrityError, match="18446744073709551615 bytes from"):
        read_program(package)


@pytest.mark.parametrize("path", ["../step.mlmodel", "/etc/passwd", ""])
def test_a_package_that_points_outside_itself_is_refused(package: Path, path: str) -> None:
    listing = package / "Manifest.json"
    stated = json.loads(listing.read_bytes())
    for item in stated["itemInfoEntries"].values():
        item["path"] = path
    listing.write_text(json.dumps(stated))
    with pytest.raises(BundleIntegrityError, match="names no file of the package"):
        read_spec(package)


def test_weights_are_what_the_vendors_reader_reads(made: tuple[Path, GraphInfo]) -> None:
    from coremltools.libmilstoragepython import _BlobStorageReader as Reader

    spec, program = read_spec(made[0]), read_program(made[0])
    reader = Reader(str(specification_file(made[0]).parent / "weights" / "weight.bin"))
    compared = 0
    for one in main_block(spec).operations:
        value = one.attributes["val"] if one.type == "const" else None
        if value is not None and value.WhichOneof("value") == "blobFileValue":
            theirs = np.array(reader.read_float_data(value.blobFileValue.offset), np.float32)
            np.testing.assert_array_equal(program.constants[one.outputs[0].name].reshape(-1), theirs)
            compared += 1
    (few,) = (one for one in program.operations if one.kind.startswith("constexpr"))
    stored = operation(spec, few.kind).attributes["quantized_data"].blobFileValue.offset
    np.testing.assert_array_equal(few.operands["quantized_data"].reshape(-1), reader.read_int8_data(stored))
    assert compared
