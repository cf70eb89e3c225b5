"""What an ONNX file looks like: its tensors, the family that they suggest, and a recipe to start from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from edgetrack.errors import UsageError
from edgetrack.io import readable

Size = int | str
FAMILIES = ("center", "box", "distances")
_OPEN = {"search": 256, "template": 128}


class FileTensor(NamedTuple):
    """An input or output of a file; a name or `?` in its shape is an open size."""

    name: str
    dtype: str
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{_quoted(self.name)} {self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


class FileSignature(NamedTuple):
    """What goes into a file and what comes out."""

    path: Path
    opset: int
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]


class Guess(NamedTuple):
    """What the files of a tracker seem to be.

    Attributes:
        family: `center`, `box` or `distances`; "" where nothing fits.
        inputs: file -> role -> tensor of the file, and `outputs` likewise.
        carried: output of the template's file -> the input of the other one that it feeds.
        doubts: what a person has to look at.
    """

    family: str
    inputs: dict[str, dict[str, FileTensor]]
    outputs: dict[str, dict[str, FileTensor]]
    carried: dict[str, str]
    doubts: tuple[str, ...]


def read_signature(path: Path) -> FileSignature:
    """Inputs and outputs of an ONNX file.

    Raises:
        CheckpointError: it is no sound ONNX model.
    """
    from edgetrack.exporting.onnx_model import dims_of, dtype_of, opset_of, read_onnx

    model = read_onnx(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    sides = ([v for v in model.graph.input if v.name not in constants], model.graph.output)
    inputs, outputs = (tuple(FileTensor(v.name, dtype_of(v), dims_of(v)) for v in side) for side in sides)
    return FileSignature(path, opset_of(model), inputs, outputs)


def _layout(tensor: FileTensor) -> str:
    """The layout of an image tensor; "" for one that is none."""
    places = {4: ((1, "nchw"), (3, "nhwc")), 3: ((0, "chw"), (2, "hwc")), 5: ((2, "ntchw"),)}
    for axis, layout in places.get(len(tensor.shape), ()):
        if tensor.shape[axis] in (3, 6):
            return layout
    return ""


def _side(tensor: FileTensor) -> int | None:
    """Of an image tensor, in pixels; None where it is open."""
    side = tensor.shape[_layout(tensor).index("h")]
    return side if isinstance(side, int) else None


def guess(files: Sequence[FileSignature]) -> Guess:
    """Guess family and roles from names and shapes; every guess is to be checked."""
    inputs: dict[str, dict[str, FileTensor]] = {}
    outputs: dict[str, dict[str, FileTensor]] = {}
    doubts: list[str] = []
    family = ""
    for file in files:
        inputs[file.path.stem] = _input_roles(file, doubts)
        found, roles = _output_roles(file)
        outputs[file.path.stem] = roles
        family = found or family
    carried = {}
    made = {tensor.name: tensor for file in files for tensor in file.outputs}
    for file in files:
        for tensor in file.inputs:
            taken = {t.name for t in inputs[file.path.stem].values()}
            if tensor.name not in taken and len(files) > 1:
                fits = [name for name, output in made.items() if output.shape == tensor.shape or name == tensor.name]
                if fits:
                    carried[fits[0]] = tensor.name
                    continue
            if tensor.name not in taken:
                doubts.append(f"input {_quoted(tensor.name)} {tensor.shape} plays no role that is known")
    return Guess(family, inputs, outputs, carried, tuple(doubts))


def _input_roles(file: FileSignature, doubts: list[str]) -> dict[str, FileTensor]:
    roles: dict[str, FileTensor] = {}
    images = [tensor for tensor in file.inputs if _layout(tensor)]

    def looks(tensor: FileTensor, *parts: str) -> bool:
        return any(part in tensor.name.lower() for part in parts)

    sizes = [side for side in map(_side, images) if side is not None]
    largest = max(sizes, default=0)
    for tensor in images:
        side = _side(tensor)
        if _layout(tensor) == "ntchw" and not looks(tensor, "search"):
            role = "templates"
        elif looks(tensor, "search") or tensor.name in ("x", "img_x"):
            role = "search"
        elif looks(tensor, "online", "_ot"):
            role = "online_template"
        elif looks(tensor, "template", "exemplar", "img_t") or tensor.name in ("z", "img_z"):
            role = "template"
        else:
            role = "search" if side is None or side == largest else "template"
            doubts.append(f"{_quoted(tensor.name)} is taken for {role} by its size")
        if role in roles:
            doubts.append(f"{_quoted(tensor.name)} and {_quoted(roles[role].name)} both look like {role}")
        roles.setdefault(role, tensor)
    for tensor in file.inputs:
        if tensor in images:
            continue
        if tensor.dtype == "bool" or looks(tensor, "mask"):
            crop = "search" if looks(tensor, "_x", "search") else "template"
            if len(tensor.shape) >= 2 and tensor.shape[-1] == tensor.shape[-2]:
                roles.setdefault(f"{crop}_mask", tensor)
        elif tensor.shape[-1:] == (4,) and looks(tensor, "anno", "box", "bbox"):
            roles.setdefault("target_box", tensor)
    return roles


def _output_roles(file: FileSignature) -> tuple[str, dict[str, FileTensor]]:
    """Family and roles of a file's outputs; "" for a file that gives features."""

    def maps(channels: int) -> list[FileTensor]:
        return [
            t for t in file.outputs
            if (len(t.shape) == 4 and t.shape[1] == channels and t.shape[2] == t.shape[3] and t.shape[2] != 1)
            or (channels > 1 and len(t.shape) == 3 and t.shape[0] == channels and t.shape[1] == t.shape[2])
            or (channels == 1 and len(t.shape) == 2 and t.shape[0] == t.shape[1] and t.shape[0] not in (1, 4))
        ]  # fmt: skip

    def named(tensors: list[FileTensor], *parts: str) -> FileTensor | None:
        return next((t for t in tensors if any(part in t.name.lower() for part in parts)), None)

    ones, twos, fours = maps(1), maps(2), maps(4)
    if fours and (ones or twos):
        return "distances", {"score": (ones or twos)[0], "reg": fours[0]}
    if ones and len(twos) >= 2:
        size = named(twos, "size", "wh") or next(t for t in twos if t is not named(twos, "off"))
        return "center", {"score": ones[0], "size": size, "offset": next(t for t in twos if t is not size)}
    boxes = [t for t in file.outputs if t.shape[-1:] == (4,) and all(size in (1, 4) or size == "?" for size in t.shape)]
    if boxes:
        scalars = [t for t in file.outputs if t not in boxes and all(size in (1, "?") for size in t.shape)]
        return "box", {"box": boxes[0]} | ({"score": scalars[0]} if scalars else {})
    return "", {}


def recipe_text(name: str, files: Sequence[FileSignature], family: str | None = None) -> str:
    """A recipe to start from, as TOML; what was guessed says so.

    Raises:
        UsageError: the outputs suggest no family, or not the one that is asked for.
    """
    found = guess(files)
    listed = "; ".join(f"{file.path.name}: {', '.join(map(str, file.outputs))}" for file in files)
    if not found.family:
        raise UsageError(
            f"the outputs suggest none of the families {', '.join(FAMILIES)} ({listed}); docs/onnx.md says what each "
            "one needs"
        )
    if family is not None and family != found.family:
        raise UsageError(f"the outputs look like family {found.family!r}, not {family!r} ({listed})")
    return "\n".join(_lines(name, files, found)) + "\n"


def _lines(name: str, files: Sequence[FileSignature], found: Guess) -> Iterator[str]:
    yield f"# Made by `edgetrack recipe new` from {', '.join(_quoted(readable(file.path.name)) for file in files)}."
    yield "# Check what is marked as a guess against the code that runs the file: a wrong colour order or"
    yield "# mean costs accuracy without a message."
    yield "schema = 1"
    yield f'name = "{name}"'
    yield f'family = "{found.family}"'
    yield ""
    for doubt in found.doubts:
        yield f"# check: {doubt}"
    yield "[procedure]"
    roles = {role: tensor for by_role in found.inputs.values() for role, tensor in by_role.items()}
    for crop in ("template", "search"):
        like = roles.get(crop) or roles.get("templates" if crop == "template" else "search")
        side = _side(like) if like is not None else None
        if found.family != "distances":
            yield f"{crop}_factor = {2.0 if crop == 'template' else 4.0}  # guess: 2 and 4 are the usual ones"
        yield f"{crop}_size = {side or _OPEN[crop]}" + ("" if side else "  # guess: the file leaves it open")
    yield from {
        "center": ("lost_below = 0.0  # a score below it flags the target as lost",),
        "box": (),
        "distances": (
            "stride = 16  # guess, and the four below: LightTrack's defaults",
            "penalty_k = 0.062",
            "window_influence = 0.38",
            "size_rate = 0.765",
            "size_smoothing = 2",
        ),
    }[found.family]
    if "online_template" in roles or "templates" in roles:
        yield '# update = "interval"  # or "best": when later crops become templates, see docs/onnx.md'
        yield "# update_interval = 25"
        yield "# update_above = 0.7"
    # The file with the maps; the others make features for it.
    main = next(stem for stem, outputs in found.outputs.items() if outputs)
    others = [file.path.stem for file in files if file.path.stem != main]
    if len(files) == 1:
        yield from _tensors("", found.inputs[main], found.outputs[main])
        return
    feeds = dict(found.carried)
    if found.inputs[main]:
        for stem in others:
            made = {t.name for f in files if f.path.stem == stem for t in f.outputs}
            carried = {o: i for o, i in feeds.items() if o in made}
            yield from _graph("template", [stem], {"template": next(iter(found.inputs[stem].values()))}, {}, carried)
        yield from _graph("step", [main], found.inputs[main], found.outputs[main], {}, list(feeds.values()))
        return
    backbone = others[0]
    image = next(iter(found.inputs[backbone].values()))
    output = next(t for f in files if f.path.stem == backbone for t in f.outputs)
    first, second = (t.name for f in files if f.path.stem == main for t in f.inputs[:2])
    yield "# check: which of the head's inputs is the template's"
    yield from _graph("template", [backbone], {"template": image}, {}, {output.name: first}, (), [image.name])
    yield ""
    yield "[onnx.step]"
    yield f"files = [{_quoted(backbone)}, {_quoted(main)}]"
    yield f"links = {{ {_quoted(f'{main}/{second}')} = {_quoted(f'{backbone}/{output.name}')} }}"
    yield f"inputs.search = {{ source = {_quoted(f'{backbone}/{image.name}')}, {', '.join(_pixels(image))} }}"
    yield f"inputs.{_role(first)} = {{ source = {_quoted(f'{main}/{first}')} }}"
    for role, tensor in found.outputs[main].items():
        yield f"outputs.{role} = {{ source = {_quoted(f'{main}/{tensor.name}')}{_activation(role, tensor)} }}"


def _quoted(text: str) -> str:
    """A string of TOML: JSON's, without pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _activation(role: str, tensor: FileTensor) -> str:
    """Of a score of two channels, background and target."""
    two = role == "score" and len(tensor.shape) >= 3 and tensor.shape[-3] == 2
    return ', activation = "softmax"' if two else ""


def _role(name: str) -> str:
    """A tensor's name as a role."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower()).strip("_")[:60]
    return plain or "feature"


def _pixels(tensor: FileTensor) -> list[str]:
    """What a recipe says of an image; nothing of another tensor."""
    layout = _layout(tensor)
    if not layout:
        return []
    said = [f'layout = "{layout}"', 'colour = "rgb"']
    if tensor.shape[layout.index("c")] == 6:
        said.append("repeat = 2")
    if tensor.dtype != "uint8":
        said += ["mean = [0.485, 0.456, 0.406]", "std = [0.229, 0.224, 0.225]"]
    return said


def _tensors(table: str, inputs: dict[str, FileTensor], outputs: dict[str, FileTensor]) -> Iterator[str]:
    yield ""
    yield "# guess: RGB with ImageNet's mean and deviation"
    for role, tensor in inputs.items():
        yield f"[{table}inputs.{role}]\nsource = {_quoted(tensor.name)}"
        yield from _pixels(tensor)
        yield ""
    yield '# add activation = "sigmoid" where the file leaves it out'
    yield f"[{table}outputs]"
    for role, tensor in outputs.items():
        yield f"{role} = {{ source = {_quoted(tensor.name)}{_activation(role, tensor)} }}"


def _graph(
    name: str,
    files: Sequence[str],
    inputs: dict[str, FileTensor],
    outputs: dict[str, FileTensor],
    gives: dict[str, str],
    takes: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> Iterator[str]:
    yield ""
    yield f"[onnx.{name}]"
    yield f"files = [{', '.join(map(_quoted, files))}]"
    for role, tensor in inputs.items():
        pixels = "".join(f", {said}" for said in _pixels(tensor))
        # A backbone that both crops go through was written for the larger one.
        pixels += ", reshape = true" if name == "template" and gives and tensor.name in shared else ""
        yield f"inputs.{role} = {{ source = {_quoted(tensor.name)}{pixels} }}"
    for taken in takes:
        yield f"inputs.{_role(taken)} = {{ source = {_quoted(taken)} }}"
    for made, fed in gives.items():
        yield f"outputs.{_role(fed)} = {{ source = {_quoted(made)} }}"
    for role, tensor in outputs.items():
        yield f"outputs.{role} = {{ source = {_quoted(tensor.name)}{_activation(role, tensor)} }}"
