"""RKNN: the NPUs of Rockchip's chips as a target of edgetrack; docs/rknn.md.

`ENVIRONMENT` is what builds and simulates, on x86 computers; a board needs rknn-toolkit-lite2 alone.
"""

from edgetrack.capabilities import Target
from edgetrack.environments import PipStep, PythonEnvironment

ENVIRONMENT = PythonEnvironment(
    name="rknn",
    python=">=3.11,<3.12",
    steps=(
        # Its metadata asks for torch 2.4 at most and for an OpenCV with windows; neither is needed here.
        PipStep(("rknn-toolkit2==2.5.0",), no_deps=True),
        PipStep(
            (
                "numpy==1.26.4",
                "onnx==1.17.0",
                "onnxruntime==1.20.1",
                "protobuf==4.25.4",
                "scipy==1.17.1",
                "tqdm==4.70.1",
                "ruamel.yaml==0.19.1",
                "fast-histogram==0.14",
                "opencv-python-headless==4.11.0.86",
                "psutil==7.2.2",
                "torch==2.13.0",
            )
        ),
        # Last, for what went before brings a newer one: the toolkit needs pkg_resources, which went out of it.
        PipStep(("setuptools==69.5.1",)),
    ),
    imports=("pkg_resources", "rknn.api"),
    worker="edgetrack_rknn.worker",
)

TARGET = Target(
    name="rknn",
    backend="edgetrack_rknn.backend:RknnGraph",
    exporter="edgetrack_rknn.exporter:RknnExporter",
    packages=("rknn-toolkit-lite2",),
    modules={"rknn-toolkit-lite2": "rknnlite"},
    extra="",
    environment=ENVIRONMENT,
    quantizer="rknn-toolkit2",
    precisions=("fp16", "int8"),
    made_from="onnx",
    devices=("cpu", "npu:N"),
    device_needed="a board with a Rockchip NPU",
    tested="rknn-toolkit2 2.5.0 (built and simulated; no board was at hand)",
    about="NPUs of Rockchip boards; built and simulated on x86 (--device cpu), run there (--device npu)",
    setup="on a board: pip install rknn-toolkit-lite2, of the version of its librknnrt.so",
)
