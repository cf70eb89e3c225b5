"""The file that runs in other Pythons."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from edgetrack.environments import serve


def test_it_is_written_for_python_3_8_and_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(serve.__file__).read_text("utf-8"), feature_version=(3, 8))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported - {"numpy"} <= sys.stdlib_module_names
