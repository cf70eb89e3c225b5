"""coremltools, imported late and quietly, in the versions that work."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgetrack.errors import BackendMissingError

REMEDY = "install it with: pip install 'edgetrack[coreml]'"


def import_coremltools() -> Any:
    """The package.

    Raises:
        BackendMissingError: it is not installed, or numpy is too new for it.
    """
    # It logs what is absent on other systems, and versions that it was not tested with.
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with quiet():
        try:
            import coremltools
        except ImportError as error:
            raise BackendMissingError(f"coremltools is not installed ({error}); {REMEDY}") from error
    major, minor = (int(part) for part in np.__version__.split(".")[:2])
    if (major, minor) >= (2, 4):
        raise BackendMissingError(f"coremltools 9 fails with numpy {np.__version__}, it needs one below 2.4; {REMEDY}")
    return coremltools


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools draws bars on stderr and warns of every constant."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
