"""A Python environment of a target's own, where its packages cannot live with ours; here what its row declares of it.

`setup` makes it, `process` runs the target's worker in it, `serve` is what runs there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgetrack.errors import UsageError

_PIN = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w., -]+\])?==[\w.!+]+( *;[^\n]+)?", re.ASCII)
_BOUNDS = re.compile(r">=3\.([0-9]{1,2}),<3\.([0-9]{1,2})")
_NAME = re.compile(r"[a-z0-9_]{1,40}")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class PipStep:
    """One run of `pip install` in the environment.

    Attributes:
        requirements: each pinned, `name==version`, with a marker behind `;` where it is not for every machine.
        no_deps: install nothing that they ask for: for a package whose metadata says more than it needs.
        no_build_isolation: build with what earlier steps have installed.
        index_url: in place of the user's package index, such as one of wheels for the processor alone.
    """

    requirements: tuple[str, ...]
    no_deps: bool = False
    no_build_isolation: bool = False
    index_url: str = ""

    def __post_init__(self) -> None:
        if not self.requirements:
            raise UsageError("a PipStep without requirements; give one at least, such as ('numpy==1.26.4',)")
        for one in self.requirements:
            if not _PIN.fullmatch(one):
                raise UsageError(f"the requirement {one!r} is not pinned; expected name==version")
        if self.index_url and not re.fullmatch(r"https://[^\s]+", self.index_url):
            raise UsageError(f"the package index {self.index_url!r} is no https:// address")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Behind `pip install`."""
        flags = [("--no-deps", self.no_deps), ("--no-build-isolation", self.no_build_isolation)]
        index = ("--index-url", self.index_url) if self.index_url else ()
        return (*(flag for flag, given in flags if given), *index, *self.requirements)


@dataclass(frozen=True)
class PythonEnvironment:
    """What `edgetrack target setup` makes, and what runs in it.

    Attributes:
        name: of its folder, and of the target that sets it up, small letters, digits and underscores; others may share
            it.
        python: the versions of Python that its packages take, as `>=3.8,<3.12`.
        steps: what is installed, in this order; NumPy must be among it.
        imports: modules that must import when all is installed.
        worker: the module of the target's package that runs in it: one file of functions, see `serve`.
    """

    name: str
    python: str
    steps: tuple[PipStep, ...]
    imports: tuple[str, ...]
    worker: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"the environment's name {self.name!r}: expected small letters, digits and underscores")
        if not self.minors:
            raise UsageError(f"environment {self.name!r}: python is {self.python!r}; expected such as >=3.8,<3.12")
        for module in (*self.imports, self.worker):
            if not _MODULE.fullmatch(module):
                raise UsageError(f"environment {self.name!r}: {module!r} is no name of a module")

    @property
    def minors(self) -> range:
        """N of the Python versions 3.N that it takes; empty where `python` says none."""
        found = _BOUNDS.fullmatch(self.python)
        return range(int(found[1]), int(found[2])) if found else range(0)

    @property
    def distributions(self) -> tuple[str, ...]:
        """The names of what is installed by name."""
        pins = (one for step in self.steps for one in step.requirements)
        return tuple(dict.fromkeys(re.split(r"\[|==", one)[0] for one in pins))
