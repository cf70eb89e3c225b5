"""ncnn as a target of edgetrack: converted by pnnx, run by the ncnn package on the processor; docs/ncnn.md."""

from edgetrack.capabilities import Target

TARGET = Target(
    name="ncnn",
    backend="edgetrack_ncnn.backend:NcnnGraph",
    exporter="edgetrack_ncnn.exporter:NcnnExporter",
    packages=("ncnn",),
    extra="",
    precisions=("fp32", "fp16"),
    tested="ncnn 1.0.20261020 on x86 (NanoTrack; SMAT is not taken)",
    about="ncnn on Arm and x86 processors; small, without dependencies in C++",
    setup="exporting also needs pnnx: pip install pnnx",
)
