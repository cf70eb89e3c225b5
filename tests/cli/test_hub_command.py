"""`edgetrack pull` and `push`, against a plain web server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgetrack.bundle import open_bundle, pack
from edgetrack.bundle.manifest import LicenceInfo, WeightsInfo
from edgetrack.cli.main import app
from tests.builders import scripted_manifest, write_scripted


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process, in `tmp_path`: no exported bundle is needed."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a packed bundle, which lies in `tmp_path / "www"`."""
    (tmp_path / "www").mkdir()
    weights = WeightsInfo(origin="custom", licence=LicenceInfo(name="LicenseRef-Mine"))
    with open_bundle(write_scripted(tmp_path / "made", scripted_manifest("free", weights=weights))) as opened:
        pack(opened, tmp_path / "www" / "b.zip")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://localhost:{server.server_address[1]}/b.zip"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pull_refuses_trusts_pins_and_the_bundle_is_found_by_its_name(run, served, tmp_path) -> None:
    refused = run("pull", served)
    assert refused.exit_code == 2
    assert "--trust-on-first-use" in refused.stderr
    trusted = run("pull", served, "--trust-on-first-use")
    assert trusted.exit_code == 0, trusted.output
    digest = hashlib.sha256((tmp_path / "www" / "b.zip").read_bytes()).hexdigest()
    assert f"edgetrack-lock.json now pins sha256 {digest}" in trusted.stderr
    assert trusted.stdout == "out/free  0.0 MiB  (custom weights)\n"
    told = json.loads(run("inspect", "free", "--json").stdout)
    assert told["weights"]["licence"] == {"name": "LicenseRef-Mine", "redistribution": False}
    assert "LicenseRef-Mine; the weights may not be passed on" in run("inspect", "free").stdout
    (tmp_path / "www" / "b.zip").write_bytes(b"another file")
    changed = run("pull", served, "--overwrite")
    assert (changed.exit_code, changed.stdout) == (1, "")
    assert f"not {digest}" in changed.stderr
    assert run("inspect", "free").exit_code == 0


@pytest.mark.parametrize("verb", ["track", "bench", "verify", "inspect", "pack"])
def test_no_other_verb_fetches(run, verb) -> None:
    done = run(verb, "hf://owner/name@main/b.zip", *(["synthetic:drift"] if verb == "track" else []))
    assert done.exit_code == 2
    assert "fetch it first: edgetrack pull hf://owner/name@main/b.zip" in done.stderr


def test_push_asks_for_a_licence_that_allows_it(run, served, tmp_path) -> None:
    done = run("push", "made", "hf://owner/name/b.zip")
    assert done.exit_code == 2
    assert "(LicenseRef-Mine) may not be passed on" in done.stderr
    assert run("push", "made", "hf://owner/name/b.zip", "--private").exit_code == 2


def test_export_takes_a_licence_with_weights_of_ones_own_alone(run) -> None:
    given = ("export", "nanotrack_v2", "--target", "torch", "--weights", "untrained", "--dry-run")
    assert "give --licence" in run(*given, "--redistribute").stderr
    assert run(*given, "--licence", "").exit_code == 2
    done = run("export", "smat", "--weights", "default", "--licence", "MIT", "--dry-run")
    assert done.exit_code == 2
    assert "terms of their own" in done.stderr
