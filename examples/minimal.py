"""Track with a bundle of family `center` and without edgetrack: python minimal.py BUNDLE FOLDER x,y,w,h

Written from docs/bundle-spec.md (its sections are named); needs numpy, OpenCV, and onnxruntime or openvino.
"""

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np

bundle, frames = Path(sys.argv[1]), [cv2.imread(str(path)) for path in sorted(Path(sys.argv[2]).glob("*.jpg"))]
x, y, w, h = map(float, sys.argv[3].split(","))
manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
assert manifest["schema"] == 1, "another schema"
assert manifest.get("family", manifest["tracker"]) in ("center", "smat", "ostrack"), "another family"
assert "lost" not in manifest, "a model of losses"
p = {"clip_margin": 10, "lost_below": 0, **manifest["procedure"]}
assert not set(p) & {"clip", "crop", "state", "window", "reports", "on_lost", "update"}, "more than this reader does"
tensors = {}  # all inputs and outputs by name: an init graph's output is the step's input of that name


def opened(graph):  # 2: the target's file, and OpenVINO's precision
    if manifest["target"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(bundle / graph["file"]), providers=["CPUExecutionProvider"])
        return lambda fed: dict(zip([o.name for o in session.get_outputs()], session.run(None, fed), strict=True))
    import openvino

    model = openvino.Core().compile_model(bundle / graph["file"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda fed: {key.any_name: value for key, value in model(fed).items()}


def run(role):  # 3: init once a target, step every frame
    for graph, call in ((g, call) for g, call in graphs if g["role"] == role):
        tensors.update(call({t["name"]: tensors[t["name"]] for t in graph["inputs"]}))


def crop(frame, factor, size):  # 4.1, square
    side = max(1, math.ceil(math.sqrt(w * h) * factor))
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    square, (high, wide) = np.zeros((side, side, 3), np.uint8), (frame.shape[0] - 1, frame.shape[1] - 1)
    cut = frame[max(0, top) : max(0, min(high, top + side)), max(0, left) : max(0, min(wide, left + side))]
    square[max(0, -top) :, max(0, -left) :][: cut.shape[0], : cut.shape[1]] = cut
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR), side


graphs = [(graph, opened(graph)) for graph in manifest["graphs"]]
tensors["template"], _ = crop(frames[0], p["template_factor"], p["template_size"])
run("init")
for frame in frames[1:]:
    tensors["search"], side = crop(frame, p["search_factor"], p["search_size"])
    run("step")
    score, size, offset = (tensors[name][0] for name in ("score", "size", "offset"))
    n, lost = score.shape[-1], True
    if all(np.isfinite(one).all() for one in (score, size, offset)):  # 4.1, decoding
        c = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, n + 1) / (n + 1)))
        row, column = divmod(int((score[0] * np.outer(c, c).astype(np.float32)).argmax()), n)
        cx, cy = ((k + float(o[row, column])) / n for k, o in zip((column, row), offset, strict=True))
        wide, high = (float(one[row, column]) * side for one in size)
        x1, y1 = cx * side + x + w / 2 - side / 2 - wide / 2, cy * side + y + h / 2 - side / 2 - high / 2
        m, lost = p["clip_margin"], float(score[0, row, column]) < p["lost_below"]
        x, x2 = min(max(0.0, x1), frame.shape[1] - m), min(max(m, x1 + wide), frame.shape[1])
        y, y2 = min(max(0.0, y1), frame.shape[0] - m), min(max(m, y1 + high), frame.shape[0])
        w, h = max(m, x2 - x), max(m, y2 - y)
    print(f"{x:.6f},{y:.6f},{w:.6f},{h:.6f}", "lost" if lost else "", sep="," if lost else "")
