"""RKNN graphs: in rknn-toolkit2's simulator on a computer (`cpu`), or on the NPU of a board (`npu`, `npu:0`, ...)."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgetrack.bundle import read_json
from edgetrack.bundle.onnx_file import check_onnx
from edgetrack.errors import BackendMissingError, BundleError, BundleIntegrityError, DeviceUnavailableError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.environment import EnvironmentGraph
from edgetrack_rknn import ENVIRONMENT
from edgetrack_rknn.record import BuildRecord, board_file, record_file

COMPATIBLE = Path("/proc/device-tree/compatible")
"""Of Linux: who made the board and which chip it has, such as `radxa,rock-5b`, `rockchip,rk3588`; NUL between them."""
_CHIP = re.compile(r"rockchip,(r[kv][0-9]{4}[a-z]?)")
CORES = ("NPU_CORE_0", "NPU_CORE_1", "NPU_CORE_2")


def _import() -> Any:
    try:
        from rknnlite import api
    except ImportError as error:
        raise BackendMissingError(
            f"rknn-toolkit-lite2 is not installed ({error}); type on the board: pip install rknn-toolkit-lite2"
        ) from error
    return api


class RknnGraph(EnvironmentGraph):
    """A graph on the NPU, or in the simulator.

    Crops are handed over as they are, uint8 (height, width, 3), BGR: the runtime's own conversion takes the place of
    the graph's first nodes.
    """

    engine = "rknn"
    environment = ENVIRONMENT

    @classmethod
    def import_package(cls) -> None:
        if importlib.util.find_spec("rknnlite") is not None:
            _import()
        else:
            super().import_package()

    @classmethod
    def devices_here(cls) -> tuple[str, ...]:
        return ("npu",) if importlib.util.find_spec("rknnlite") is not None and chip_here() else ("cpu",)

    def _open(self, path: Path, options: BackendOptions) -> None:
        self._board: Any = None
        record = record_file(path)
        if not record.is_file():
            raise BundleIntegrityError(f"graph {self.info.name!r} has no {record.name}; export the bundle again")
        self._record = read_json(record, BuildRecord)
        kind, _, core = options.device.partition(":")
        if kind != "npu":
            options.require_cpu("simulated rknn")
            check_onnx(path, options.operators)
            super()._open(path, options)
            return
        options.refuse_hint("rknn", "rknn")
        self._require_board(self._record.platform)
        self._open_board(board_file(path), core)

    def _open_options(self, path: Path, options: BackendOptions) -> dict[str, Any]:
        return {"record": msgspec.to_builtins(self._record)}

    @staticmethod
    def _require_board(platform: str) -> None:
        chip = chip_here()
        if not chip:
            raise DeviceUnavailableError(
                f"{COMPATIBLE} names no chip of Rockchip: this is no board with its NPU; --device cpu simulates"
            )
        if not chip.startswith(platform):  # an rk3588s is an rk3588 with fewer pins
            raise DeviceUnavailableError(
                f"the bundle is built for {platform}, this board has {chip}; export it with --platform {chip}"
            )

    def _open_board(self, file: Path, core: str) -> None:
        api = _import()
        if core and int(core) >= len(CORES):
            raise DeviceUnavailableError(
                f"npu:{core}: cores are npu:0 to npu:{len(CORES) - 1}; npu lets the driver choose"
            )
        mask = getattr(api.RKNNLite, CORES[int(core)] if core else "NPU_CORE_AUTO")
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries results
            board = api.RKNNLite()
            try:
                if board.load_rknn(str(file)) != 0:
                    raise BundleIntegrityError(f"rknn-toolkit-lite2 cannot read {file.name}; export the bundle again")
                if board.init_runtime(core_mask=mask) != 0:
                    raise DeviceUnavailableError(
                        f"the NPU does not take {file.name}: librknnrt.so and the driver must be of the version of "
                        "rknn-toolkit2 that built it, see its messages above"
                    )
            except BaseException:
                board.release()
                raise
        self._board = board
        self.placement = f"{self._record.platform} NPU" + (f", core {core}" if core else "")
        # A crop gets its batch; the views stay, as the buffers do.
        self._fed = [value[None] if _is_crop(value) else value for value in self.inputs.values()]
        self._formats = ["nhwc" if _is_crop(value) else "nchw" for value in self.inputs.values()]

    def _infer(self) -> None:
        if self._board is None:
            super()._infer()
            return
        found = self._board.inference(inputs=self._fed, data_format=self._formats)
        if found is None:
            raise BundleError(f"graph {self.info.name!r} fails on the NPU; rknn-toolkit-lite2's messages are above")
        shapes, wanted = [value.shape for value in found], [value.shape for value in self.outputs.values()]
        if shapes != wanted:
            raise BundleError(f"graph {self.info.name!r}: the NPU gave {shapes}, the manifest says {wanted}")
        for buffer, value in zip(self.outputs.values(), found, strict=True):
            np.copyto(buffer, value)

    def _close(self) -> None:
        if self._board is None:
            super()._close()
        else:
            self._board.release()


def _is_crop(value: np.ndarray[Any, Any]) -> bool:
    return bool(value.dtype == np.uint8)


def chip_here(file: Path = COMPATIBLE) -> str:
    """The chip of this board, such as `rk3588`; empty where it is none of Rockchip's."""
    try:
        names = file.read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    return next((found[1] for name in names if (found := _CHIP.fullmatch(name))), "")
