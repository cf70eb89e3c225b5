"""The `edgetrack` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgetrack import __version__
from edgetrack.cli import calibrate
from edgetrack.cli.bench import bench
from edgetrack.cli.check import check
from edgetrack.cli.compare import compare
from edgetrack.cli.doctor import doctor
from edgetrack.cli.evaluate import evaluate
from edgetrack.cli.export import export
from edgetrack.cli.inspect import inspect
from edgetrack.cli.list import list_bundles
from edgetrack.cli.pack import pack, unpack
from edgetrack.cli.report import report
from edgetrack.cli.track import track
from edgetrack.cli.train import train
from edgetrack.cli.verify import verify
from edgetrack.errors import EdgetrackError

app = typer.Typer(
    name="edgetrack",
    help="Export, run and measure single-object trackers on real devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgetrack {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exit codes: 0 ok, 1 a check failed, 2 usage, 3 a backend or extra is missing, 4 the device is not available."""


app.command()(export)
app.command()(track)
app.command()(bench)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(check)
app.command()(report)
app.add_typer(calibrate.app, name="calibrate")
app.command()(train)
app.command()(verify)
app.command()(inspect)
app.command("list")(list_bundles)
app.command()(pack)
app.command()(unpack)
app.command()(doctor)


def main() -> None:
    """Run the command; every error of ours becomes one message and its exit code."""
    try:
        app()
    except EdgetrackError as error:
        sys.stderr.write(f"edgetrack: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("edgetrack: interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output has gone; writing more would only raise again at exit.
        sys.stderr.close()
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()
