"""What runs in a target's own environment: `python -I serve.py WORKER.py FOLDER`, calls on stdin, replies on stdout.

This file is run by its path, by a Python that has NumPy and the target's packages and nothing of edgetrack: it imports
the standard library and NumPy alone, and is written for Python 3.8.

A call is one line of JSON: {"name": a function of the worker, "arrays": [[name, dtype, shape, offset], ...], "options":
{...}}; the arrays' bytes lie in `FOLDER/in.bin`. The function gets `(arrays, say, **options)`: arrays by name that are
not to be written to, and a function that takes a line of progress. It returns arrays by name, or a pair of such arrays
and JSON values, or None. Replies are lines, too; the arrays of one lie in `FOLDER/out.bin`:

    {"type": "said", "text": ...}                         any number of times
    {"type": "returned", "arrays": [...], "values": {...}}    or
    {"type": "raised", "error": class name, "message": ...}
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from typing import Any

ALIGNMENT = 64
KINDS = "biuf"
"""Of NumPy's types: truth values, whole numbers, numbers."""


def read_arrays(path: str, layout: Any) -> dict[str, Any]:
    """Arrays by name, not to be written to, of a file that `write_arrays` wrote; ValueError where it is shorter."""
    import numpy as np

    data = b""
    if layout:
        with open(path, "rb") as file:  # noqa: PTH123 - this runs without edgetrack, and often
            data = file.read()
    arrays = {}
    for name, dtype, shape, offset in layout:
        kind = np.dtype(dtype)
        if kind.kind not in KINDS or min(shape, default=1) < 0 or offset < 0:
            raise ValueError(f"array {name!r} is stated as {dtype} {shape} at {offset}")
        count = 1
        for size in shape:
            count *= size
        arrays[name] = np.frombuffer(data, kind, count, offset).reshape(shape) if count else np.zeros(shape, kind)
    return arrays


def write_arrays(path: str, arrays: Any) -> list[tuple[str, str, list[int], int]]:
    """Write arrays behind one another, each in C order from a multiple of 64 bytes; name, dtype, shape, offset."""
    import numpy as np

    layout: list[tuple[str, str, list[int], int]] = []
    with open(path, "wb") as file:  # noqa: PTH123
        for name, value in arrays.items():
            array = np.ascontiguousarray(value).reshape(np.shape(value))
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} is of {array.dtype}; expected numbers or truth values")
            file.write(bytes(-file.tell() % ALIGNMENT))
            layout.append((str(name), array.dtype.str, list(array.shape), file.tell()))
            file.write(array.data if array.size else b"")
    return layout


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("edgetrack_worker", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _answer(worker: Any, call: Any, say: Any) -> dict[str, Any]:
    name = call["name"]
    function: Any = getattr(worker, name, None)
    if name.startswith("_") or getattr(function, "__module__", None) != worker.__name__:
        raise AttributeError(f"the worker has no function {name!r}")
    found = function(read_arrays("in.bin", call["arrays"]), say, **call["options"])
    arrays, values = found if isinstance(found, tuple) else (found or {}, {})
    return {"type": "returned", "arrays": write_arrays("out.bin", arrays), "values": dict(values)}


def main(worker_file: str, folder: str) -> None:
    """Serve until stdin ends. What libraries print to stdout goes to stderr, files that they drop go to `folder`."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # the process is killed when the thread that started it has ended
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.chdir(folder)

    def send(reply: Any) -> None:
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()

    loaded: list[Any] = []

    def reply_to(line: bytes) -> dict[str, Any]:
        try:
            if not loaded:
                loaded.append(_load(worker_file))
            return _answer(loaded[0], json.loads(line), lambda text: send({"type": "said", "text": str(text)}))
        except Exception as error:
            traceback.print_exc()
            return {"type": "raised", "error": type(error).__name__, "message": str(error) or repr(error)}

    for line in iter(sys.stdin.buffer.readline, b""):
        send(reply_to(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
