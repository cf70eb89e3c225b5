"""Execution providers of ONNX Runtime: who computes which nodes is known, and nobody steps in unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from edgetrack.errors import BackendMissingError, DeviceUnavailableError, UsageError
from edgetrack.runtime.backends.base import BackendOptions
from edgetrack.runtime.backends.onnxruntime.providers import (
    CPU,
    NO_FALLBACK,
    PROVIDERS,
    assigned,
    choose,
    require_chosen,
)

EVERYTHING = SimpleNamespace(
    __version__="1.31", get_available_providers=lambda: [provider.name for provider in PROVIDERS.values()]
)


class Settings:
    """A session's, as far as they are set."""

    intra_op_num_threads, enable_mem_pattern = 2, True

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


def session(first: str, **nodes: tuple[str, ...]) -> Any:
    """A session with nodes by provider; none: a version that does not tell."""
    parts = [
        SimpleNamespace(ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=kind) for kind in kinds])
        for name, kinds in nodes.items()
    ]
    told = {"get_provider_graph_assignment_info": lambda: parts} if nodes else {}
    return SimpleNamespace(get_providers=lambda: [first, CPU], **told)


def chosen(device: str, **options: Any) -> Any:
    return choose(EVERYTHING, BackendOptions(device=device, **options))


@pytest.mark.parametrize(
    ("device", "providers"),
    [
        ("cpu", [(CPU, {})]),
        ("cuda", [("CUDAExecutionProvider", {"device_id": "0"})]),
        ("tensorrt:1", [("TensorrtExecutionProvider", {"device_id": "1"})]),
        ("openvino:gpu", [("OpenVINOExecutionProvider", {"device_type": "GPU", "num_of_threads": "3"})]),
        ("hetero:tensorrt.1,cuda.1,cpu", [("TensorrtExecutionProvider", {"device_id": "1"}),
                                          ("CUDAExecutionProvider", {"device_id": "1"}), (CPU, {})]),
    ],
)  # fmt: skip
def test_a_device_is_one_provider_and_its_options(device: str, providers: Any) -> None:
    choice = chosen(device, threads=3)
    assert list(choice.providers) == providers
    settings = Settings()
    choice.configure(settings)
    assert (settings.entries.get(NO_FALLBACK) == "1") == (device not in ("cpu", "hetero:tensorrt.1,cuda.1,cpu"))


def test_what_single_providers_ask_of_a_session() -> None:
    xnnpack, directml = Settings(), Settings()
    chosen("xnnpack").configure(xnnpack)
    chosen("directml").configure(directml)
    assert (xnnpack.intra_op_num_threads, directml.enable_mem_pattern) == (1, False)


@pytest.mark.parametrize("device", [name for name in PROVIDERS if name != "cpu"])
def test_a_provider_that_this_build_lacks_says_where_it_comes_from(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(BackendMissingError, match=f"has no {PROVIDERS[device].name}, only {CPU}") as caught:
        graph_file("onnx").open(device=device)
    assert PROVIDERS[device].source in str(caught.value)


@pytest.mark.parametrize("device", ["hetero:abc,cpu", "hetero"])
def test_a_list_of_what_is_no_provider(device: str) -> None:
    with pytest.raises(UsageError, match="hetero:xnnpack,cpu"):
        chosen(device)


def test_nodes_that_went_elsewhere_are_named() -> None:
    nodes = {"XnnpackExecutionProvider": ("Conv", "Conv"), CPU: ("Softmax", "Div", "Softmax")}
    with pytest.raises(DeviceUnavailableError, match=r"3 nodes of this graph \(2 Softmax, 1 Div\)") as caught:
        require_chosen(session("XnnpackExecutionProvider", **nodes), chosen("xnnpack"))
    assert "--device hetero:xnnpack,cpu allows that" in str(caught.value)
    said = require_chosen(session("XnnpackExecutionProvider", **nodes), chosen("hetero:xnnpack,cpu"))
    assert said == "XnnpackExecutionProvider 2, CPUExecutionProvider 3"


def test_a_version_that_does_not_tell_is_asked_for_its_first_provider() -> None:
    assert require_chosen(session(CPU), chosen("cpu")) == CPU
    with pytest.raises(DeviceUnavailableError, match="chose CPUExecutionProvider instead of CUDAExecutionProvider"):
        require_chosen(session(CPU), chosen("cuda:0"))


def test_a_real_session_tells_its_nodes(graph_file: Callable[..., Any]) -> None:
    file = graph_file("onnx")
    for device in ("cpu", "hetero:cpu"):
        graph = file.open(device=device)
        name, count = graph.placement.split()
        assert (name, int(count) > 10) == (CPU, True)
        graph.close()


def test_a_graph_that_a_provider_computes_in_part_is_refused_with_its_nodes(
    graph_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's own error names none: the session is made once more to ask."""
    file, real, strict = graph_file("onnx"), onnxruntime.InferenceSession, []

    def start(path: str, settings: Any, **given: Any) -> Any:
        try:
            strict.append(settings.get_session_config_entry(NO_FALLBACK))
        except RuntimeError:  # nobody has set it
            strict.append("0")
        if strict[-1] == "1":
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
        found = real(path, settings, providers=[CPU])
        found.get_providers = lambda: [PROVIDERS["xnnpack"].name, CPU]
        return found

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDERS["xnnpack"].name, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    with pytest.raises(DeviceUnavailableError, match=r"XnnpackExecutionProvider cannot compute \d+ nodes .*Conv"):
        file.open(device="xnnpack")
    assert strict == ["1", "0"]


def test_counts_are_by_operator() -> None:

    assert assigned(session(CPU, **{CPU: ("Conv", "Conv", "Relu")})) == {CPU: Counter(Conv=2, Relu=1)}
