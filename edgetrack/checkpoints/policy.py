"""What a global name in a pickle means: tensor machinery, inert data, or code that is refused.

A pickle names classes and functions in the same way, and telling them apart would need an import. So nothing is
ever imported: a name is sorted by its text alone.

* Names that tensors are made of get a meaning of our own (`GlobalKind`).
* Names on the refused lists are ways to run code, reach files or walk to other objects. They mean that the file
  is hostile or at least not only weights, so reading stops with `UnsafeCheckpointError`.
* Every other name becomes an inert placeholder, class or function alike. The refused lists are therefore there to
  tell the user about a bad file; that nothing runs does not depend on them being complete.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum, auto

import torch

from edgetrack.errors import UnsafeCheckpointError


class GlobalKind(Enum):
    """What the interpreter makes of a global name when the pickle calls it."""

    TENSOR = auto()
    PARAMETER = auto()
    MAPPING = auto()
    SIZE = auto()
    STORAGE = auto()
    INERT = auto()


@dataclass(frozen=True)
class Global:
    """A name in a pickle, never resolved: `kind` says what calling it does, `known` whether it is on a list here."""

    qualified: str
    kind: GlobalKind
    known: bool
    dtype: torch.dtype | None = None


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_TENSOR_MACHINERY = {
    "torch._utils._rebuild_tensor_v2": GlobalKind.TENSOR,
    "torch._utils._rebuild_parameter": GlobalKind.PARAMETER,
    "torch._utils._rebuild_parameter_with_state": GlobalKind.PARAMETER,
    "collections.OrderedDict": GlobalKind.MAPPING,
    "torch.Size": GlobalKind.SIZE,
}

_STORAGE_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
}

_STORAGES = {
    "torch.storage.UntypedStorage": torch.uint8,
    **{f"torch.{name}Storage": dtype for name, dtype in _STORAGE_DTYPES.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in _STORAGE_DTYPES.items()},
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HARMLESS_BUILTINS = _words(
    "bool bytearray bytes complex dict float frozenset int list long object range set slice str tuple unicode xrange"
)

# Data that needs no mention: it is replaced by a placeholder, but it is not a class of the trainer's.
_HARMLESS = {
    *(f"builtins.{name}" for name in _HARMLESS_BUILTINS),
    *(f"torch.{name}" for name in vars(torch) if isinstance(getattr(torch, name), torch.dtype)),
    "torch.device",
    "_codecs.encode",
    "copyreg._reconstructor",
}

# Plain data classes in modules that are otherwise refused.
_DATA_CLASSES = {
    "functools.partial",  # Lightning's hyper-parameters; the function that it wraps is a name of its own
    "types.SimpleNamespace",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
}

_REFUSED_PACKAGES = _words(
    """
    IPython _aix_support _asyncio _codecs _ctypes _frozen_importlib _frozen_importlib_external _imp _io _operator
    _osx_support _pickle _posixsubprocess _pyio _socket _thread _winapi antigravity ast asyncio atexit bdb builtins
    bz2 cProfile cgi cloudpickle cmd code codecs codeop commands compileall concurrent copyreg ctypes dbm dill dis
    distutils doctest ensurepip faulthandler fileinput ftplib functools gc getpass glob gzip http idlelib imaplib imp
    importlib inspect io jinja2 joblib lib2to3 linecache lzma mako marshal mmap msvcrt multiprocessing nntplib nt
    ntpath operator optparse os pathlib pdb pickle pickletools pip pipes pkg_resources pkgutil platform poplib popen2
    posix posixpath profile pstats pty py_compile pydoc readline requests rlcompleter runpy sched select selectors
    setuptools shelve shlex shutil signal site smtpd smtplib socket socketserver sqlite3 ssl subprocess symtable sys
    sysconfig tarfile telnetlib tempfile threading timeit tkinter tokenize trace turtle types unittest urllib
    urllib2 venv webbrowser winreg wsgiref xmlrpc yaml zipapp zipfile zipimport
    """
)

_REFUSED_MODULES = (
    "logging.config",
    "numpy.ctypeslib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.lib",
    "numpy.testing",
    "torch._C",
    "torch._dynamo",
    "torch._inductor",
    "torch.classes",
    "torch.distributed",
    "torch.fx",
    "torch.hub",
    "torch.jit",
    "torch.library",
    "torch.multiprocessing",
    "torch.onnx",
    "torch.ops",
    "torch.package",
    "torch.serialization",
    "torch.testing",
    "torch.utils.bottleneck",
    "torch.utils.collect_env",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
)

# Names that run code, open files or reach other objects in whatever module they are.
_REFUSED_NAMES = _words(
    """
    _load_from_bytes attrgetter check_call check_output compile delattr eval exec execfile execl execle execv execve
    fork fromfile genfromtxt getattr globals import_file import_module itemgetter load load_library loads loadtxt
    locals memmap methodcaller myeval open partial popen popen2 run_module run_path runcode runcommand runeval
    runsource runstring setattr spawn spawnl spawnv startfile system
    """
)


@functools.lru_cache(maxsize=4096)
def classify(module: str, name: str) -> Global:
    """Sort the name `module.name` of a pickle by its text; nothing is imported.

    Raises:
        UnsafeCheckpointError: the name stands for code or for a way to reach it.
    """
    module = _PYTHON_2.get(module, module)
    qualified = f"{module}.{name}"
    if qualified in _TENSOR_MACHINERY:
        return Global(qualified, _TENSOR_MACHINERY[qualified], known=True)
    if qualified in _STORAGES:
        return Global(qualified, GlobalKind.STORAGE, known=True, dtype=_STORAGES[qualified])
    if qualified in _HARMLESS:
        return Global(qualified, GlobalKind.INERT, known=True)
    if qualified not in _DATA_CLASSES and _is_code(module, name):
        raise UnsafeCheckpointError(refusal(f"it names {shown(qualified)}, which is code to run and not weights"))
    return Global(qualified, GlobalKind.INERT, known=False)


_REFUSED_WORDS = _REFUSED_PACKAGES | _REFUSED_NAMES


def _is_code(module: str, name: str) -> bool:
    if module.partition(".")[0] in _REFUSED_PACKAGES:
        return True
    # "torch" with the name "hub.load" reaches as far as "torch.hub" with the name "load".
    if any(f"{module}.{name}.".startswith(f"{refused}.") for refused in _REFUSED_MODULES):
        return True
    return any(part in _REFUSED_WORDS or _is_special(part) for part in name.split("."))


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def refusal(found: str) -> str:
    """The text of an `UnsafeCheckpointError`: what was found, that nothing was run, what to do."""
    return (
        f"refused, because reading it the usual way could run code: {found}. Nothing of it was run or imported. "
        "Get the file from a source you trust, or have its owner convert the weights to safetensors "
        "(safetensors.torch.save_file) and read that file"
    )


def shown(text: object, limit: int = 120) -> str:
    """`text` from a file, cut to `limit` characters and free of anything that a terminal would act on."""
    plain = ascii(text)[1:-1] if isinstance(text, str) else ascii(text)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."
