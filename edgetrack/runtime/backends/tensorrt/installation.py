"""Which TensorRT is installed, and how its kinds differ: the one place that knows.

`tensorrt_rtx`   RTX cards; networks are strongly typed; builds for other cards, on machines without a GPU too
`tensorrt`       JetPack's and the data-centre package; strongly typed from 10.12 on, builder flags before; builds for
                 the GPU that is there
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrack.errors import BackendMissingError, UsageError

RTX, CLASSIC = "tensorrt_rtx", "tensorrt"
TYPED_FROM = (10, 12)
JETSON_FILE = Path("/etc/nv_tegra_release")
REMEDY = (
    "install TensorRT-RTX with: pip install 'edgetrack[tensorrt]'; on Jetson use JetPack's own (an environment made "
    "with --system-site-packages sees it) and type: pip install 'edgetrack[tensorrt-jetson]'"
)


@dataclass(frozen=True)
class Installation:
    """An imported TensorRT.

    Attributes:
        module: the package.
        name: `tensorrt_rtx` or `tensorrt`.
        version: as the package states it.
    """

    module: Any
    name: str
    version: str

    @property
    def strongly_typed(self) -> bool:
        """Whether the network's own types are binding, so that no builder flag chooses precisions."""
        return self.name == RTX or numbers(self.version) >= TYPED_FROM

    @property
    def builds_for_others(self) -> bool:
        """Whether engines for other compute capabilities can be built, without a GPU."""
        return self.name == RTX

    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that it builds for by name, such as `8.6`; empty where it builds in place only."""
        if not self.builds_for_others:
            return ()
        found = (re.fullmatch(r"SM(\d+)(\d)", name) for name in self.module.ComputeCapability.__members__)
        return tuple(f"{match[1]}.{match[2]}" for match in found if match)

    def logger(self) -> Any:
        """The process's one logger: TensorRT keeps the first that it is given."""
        return _logger(self.module)


def numbers(version: str) -> tuple[int, ...]:
    """10.12.0.36 -> (10, 12, 0, 36); what is no number ends it."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def find_installation() -> Installation:
    """The TensorRT to use: JetPack's on Jetson, else TensorRT-RTX, else `tensorrt`.

    Raises:
        BackendMissingError: none can be imported; the message says why and what to type.
    """
    names = (CLASSIC,) if JETSON_FILE.exists() else (RTX, CLASSIC)
    reasons = []
    for name in names:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:  # a library of the package that is missing is an OSError
            reasons.append(f"{name}: {error}")
            continue
        return Installation(module, name, str(module.__version__))
    raise BackendMissingError(f"TensorRT is not installed ({'; '.join(reasons)}); {REMEDY}")


def check_capabilities(installation: Installation, wanted: tuple[str, ...]) -> None:
    """Check that engines can be built for these compute capabilities.

    Raises:
        UsageError: one is not known, comes twice, or only engines for this machine's GPU can be built.
    """
    known = installation.capabilities()
    if wanted and not known:
        raise UsageError(
            f"--compute-capability {','.join(wanted)}: {installation.name} {installation.version} builds for the GPU "
            "of this machine only, when a bundle is first run there; leave the option out, or install TensorRT-RTX"
        )
    for capability in wanted:
        if capability not in known:
            raise UsageError(
                f"--compute-capability {capability}: {installation.name} {installation.version} builds for "
                f"{', '.join(known)}"
            )
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"--compute-capability {','.join(wanted)}: one comes twice; give each once")


@functools.cache
def _logger(module: Any) -> Any:
    base: Any = module.ILogger

    class Collector(base):  # type: ignore[misc]
        """Keeps warnings and errors for our messages; TensorRT's own logger writes to stdout, which carries results."""

        def __init__(self) -> None:
            base.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= base.WARNING:
                self.lines.append(message.strip())

        def take(self) -> tuple[str, ...]:
            """What was said since the last call."""
            taken, self.lines = tuple(self.lines), []
            return taken

    return Collector()
