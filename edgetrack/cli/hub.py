"""`edgetrack pull` and `push`: bundles from and to elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetrack.cli.options import BundleArgument, OverwriteOption

_ADDRESS = "hf://OWNER/NAME[@REVISION]/FILE.zip"


def pull(
    address: Annotated[
        str,
        typer.Argument(metavar="ADDRESS", help=f"{_ADDRESS} or https://HOST/FILE.zip, with #sha256=HASH behind it."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the bundle. Default: out/<name of the bundle>.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust-on-first-use",
            help="Where no hash is known, take what is there and note its hash in the lock file.",
        ),
    ] = False,
    lock: Annotated[
        Path, typer.Option("--lock", help="File with the hash that each address had when it was first trusted.")
    ] = Path("edgetrack-lock.json"),
    max_size: Annotated[
        int, typer.Option("--max-size", min=1, metavar="MIB", help="Refuse a zip of more MiB than this.")
    ] = 2048,
    overwrite: OverwriteOption = False,
) -> None:
    """Fetch a bundle, check its hash and all of its files, and put it in place.

    A download over https that is cut is resumed when the same command is typed again. No other verb fetches bundles.
    """
    from edgetrack.cli.console import human_size, print_text, stderr
    from edgetrack.hub.pull import PullRequest
    from edgetrack.hub.pull import pull as run
    from edgetrack.presentation.progress import shown_progress

    request = PullRequest(address, output, overwrite, trust, lock, max_size << 20)
    with shown_progress(stderr()) as progress:
        pulled = run(request, progress)
    if pulled.noted:
        stderr().print(f"trusted for the first time: {lock} now pins sha256 {pulled.sha256}")
    size = human_size(sum(file.size for file in pulled.manifest.files.values()))
    print_text(f"{pulled.path}  {size}  ({pulled.manifest.weights.origin} weights)")


def push(
    bundle: BundleArgument,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help=f"{_ADDRESS}; the revision is a branch.")],
    create: Annotated[bool, typer.Option("--create", help="Make the repository where there is none.")] = False,
    private: Annotated[bool, typer.Option("--private", help="With --create: for its members alone.")] = False,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Message of the commit. Default: the bundle's name.")
    ] = None,
) -> None:
    """Pack a bundle and upload it to Hugging Face; its manifest must allow that the weights are passed on."""
    from edgetrack.cli.console import print_text, stderr
    from edgetrack.errors import UsageError
    from edgetrack.hub.push import PushRequest
    from edgetrack.hub.push import push as run
    from edgetrack.presentation.progress import shown_progress

    if private and not create:
        raise UsageError("--private is for a repository that is made; give --create, too")
    with shown_progress(stderr()) as progress:
        pushed = run(PushRequest(bundle, address, create, private, message), progress)
    print_text(f"edgetrack pull '{pushed.address}'")
