"""Targets with one fault each, on the evaluator of docs/targets.md; what the suite must find is beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from evaluator_target import TARGET as SOUND
from evaluator_target.backend import EvaluatorGraph

from edgetrack.errors import BundleIntegrityError
from edgetrack.runtime.backends.base import BackendOptions


class IgnoresDamage(EvaluatorGraph):
    """Keeps what it has once opened by the name of its file."""

    def _open(self, path, options):
        kept = Path(tempfile.gettempdir()) / f"kept-{path.name}"
        try:
            super()._open(path, options)
            kept.write_bytes(path.read_bytes())
        except BundleIntegrityError:
            super()._open(kept, options)


class FillsIn(EvaluatorGraph):
    """Runs nothing where a file cannot be read."""

    def _open(self, path, options):
        try:
            super()._open(path, options)
        except BundleIntegrityError:
            self._evaluator = None

    def _infer(self):
        if self._evaluator is not None:
            super()._infer()


class Wrong(EvaluatorGraph):
    """Is 1 % off."""

    def _infer(self):
        super()._infer()
        for value in self.outputs.values():
            value *= 1.01


class WrongElsewhere(EvaluatorGraph):
    """Is right where the bundle was exported, and nowhere else."""

    def _infer(self):
        super()._infer()
        if "edgetrack.exporting.pipeline" not in sys.modules:
            for value in self.outputs.values():
                value += 1


class ChangesInputs(EvaluatorGraph):
    """Uses its inputs as scratch."""

    def _infer(self):
        super()._infer()
        for value in self.inputs.values():
            value[...] = 0


class ReplacesBuffers(EvaluatorGraph):
    """Gives new arrays, of any shape."""

    def _infer(self):
        found = self._evaluator.run(list(self.outputs), self.inputs)
        self.outputs.update(zip(self.outputs, found, strict=True))


class AnyShape(EvaluatorGraph):
    """Puts what it has into whatever buffers there are."""

    def _check_signature(self, side, found):
        pass

    def _infer(self):
        from onnx.helper import tensor_dtype_to_np_dtype

        stated = [one.type.tensor_type for one in self._evaluator.proto_.graph.input]
        given = {
            name: np.resize(value, [size.dim_value for size in kind.shape.dim]).astype(
                tensor_dtype_to_np_dtype(kind.elem_type)
            )
            for name, kind, value in zip(self._evaluator.input_names, stated, self.inputs.values(), strict=True)
        }
        for buffer, value in zip(self.outputs.values(), self._evaluator.run(None, given), strict=True):
            buffer[...] = np.resize(value, buffer.shape)


class AnyOption(EvaluatorGraph):
    """Runs on any device, with any hint."""

    def _open(self, path, options):
        super()._open(path, BackendOptions())


class MissingPackage(EvaluatorGraph):
    """Lets a missing package be its user's riddle."""

    def _open(self, path, options):
        import onnx.reference

        del onnx
        super()._open(path, options)


class LeavesProcess(EvaluatorGraph):
    """Leaves the process behind that it has started."""

    def _open(self, path, options):
        super()._open(path, options)
        # It ends with its parent, whose stdin it reads, at the latest.
        read, self._write = os.pipe()
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=read)
        os.close(read)


FOUND = {
    "IgnoresDamage": {"test_damage_under_fresh_hashes_is_refused"},
    "FillsIn": {"test_damage_under_fresh_hashes_is_refused", "test_a_manifest_that_lies_is_found"},
    "Wrong": {"test_export_is_proven_and_says_by_what"},
    "WrongElsewhere": {"test_verify_passes_elsewhere_and_finds_other_outputs"},
    "ChangesInputs": {"test_a_run_depends_on_its_inputs_alone"},
    "ReplacesBuffers": {"test_a_run_depends_on_its_inputs_alone"},
    "AnyShape": {"test_a_manifest_that_lies_is_found"},
    "AnyOption": {"test_what_it_does_not_offer_is_refused"},
    "MissingPackage": {"test_missing_packages_are_named_with_what_to_type"},
    "LeavesProcess": {"test_a_closed_graph_is_closed"},
    "Nameless": {"test_row_says_what_the_target_is"},
}
"""Fault -> the checks that fail; where there is no bundle, all that need one fail, too."""


def _row(fault):
    backend = f"faulty:{fault}" if fault in globals() else SOUND.backend
    row = replace(SOUND, name=fault.lower(), backend=backend)
    return replace(row, about="") if fault == "Nameless" else row


globals().update({f"ROW_{fault}": _row(fault) for fault in FOUND})
