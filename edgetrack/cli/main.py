"""The `edgetrack` command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from edgetrack import __version__
from edgetrack.cli import calibrate, defaults, recipe, target
from edgetrack.cli.ablate import ablate
from edgetrack.cli.bench import bench
from edgetrack.cli.check import check
from edgetrack.cli.compare import compare
from edgetrack.cli.doctor import doctor
from edgetrack.cli.evaluate import evaluate
from edgetrack.cli.export import ExportCommand, export
from edgetrack.cli.help import Verb, VerbGroup, page
from edgetrack.cli.hub import pull, push
from edgetrack.cli.inspect import inspect
from edgetrack.cli.list import list_bundles
from edgetrack.cli.pack import pack, unpack
from edgetrack.cli.report import report
from edgetrack.cli.schema import schema
from edgetrack.cli.track import track
from edgetrack.cli.train import train
from edgetrack.cli.tune import tune
from edgetrack.cli.verbosity import with_verbosity
from edgetrack.cli.verify import verify
from edgetrack.errors import EdgetrackError

BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it
NO_MEMORY = "not enough memory; close other programs, or raise the limit (ulimit -v)"
INTERRUPTED = 130  # 128 + SIGINT


class Verbs(VerbGroup):
    """Runs a verb; whatever ends it becomes one line on stderr and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, whose options have the defaults of the user's file; help is there however broken that is."""
        if ctx.resilient_parsing:  # the shell asks what could be typed
            with suppress(EdgetrackError):
                defaults.apply(ctx)
        elif not {"-h", "--help"} & set(args):
            defaults.apply(ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk shows here at the latest
        except EdgetrackError as error:
            _end(str(error), error.exit_code)
        except KeyboardInterrupt as error:
            # A verb that has ended in order says which signal it was.
            (number,) = error.args or (INTERRUPTED - 128,)
            _end("interrupted", 128 + number)
        except BrokenPipeError:
            # The reader of our output has gone: writing more, also at exit, would only raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(BROKEN_PIPE) from None
        except MemoryError:
            _end(NO_MEMORY, 1)
        except RecursionError:
            _end("a file is nested too deeply to be read", 1)
        except ImportError as error:
            from edgetrack.system.opencv import broken_numpy, missing_opencv

            missing = missing_opencv(error) or broken_numpy(error)
            if missing is None:
                raise
            _end(str(missing), missing.exit_code)
        except UnicodeEncodeError as error:
            _end(f"the name {error.object!r} is not UTF-8 and cannot be kept; rename the file or folder", 1)
        except OSError as error:
            place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            _end(place + (error.strerror or str(error)), 1)
        return result


def _end(message: str, code: int) -> NoReturn:
    from edgetrack.presentation.sanitize import log_line

    with suppress(OSError):
        lines = map(log_line, f"edgetrack: {message}".split("\n"))
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    with suppress(OSError):
        sys.stdout.flush()
        raise SystemExit(code) from None
    # What is left in the buffer cannot be written either: keep the interpreter from trying at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(code) from None


app = typer.Typer(
    cls=Verbs,
    name="edgetrack",
    help="Export, run and measure single-object trackers on real devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes 0.2 s to import, half of what `edgetrack --help` costs
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
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


app.command(cls=ExportCommand, epilog=page("export.md"))(with_verbosity(export))
app.command(cls=Verb, epilog=page("run.md"))(with_verbosity(track))
app.command(cls=Verb, epilog=page("bench.md"))(with_verbosity(bench))
app.command("eval", cls=Verb, epilog=page("eval.md"))(with_verbosity(evaluate))
app.command(cls=Verb, epilog=page("compare.md"))(with_verbosity(compare))
app.command(cls=Verb, epilog=page("check.md"))(with_verbosity(check))
app.command(cls=Verb, epilog=page("tune.md"))(with_verbosity(tune))
app.command(cls=Verb, epilog=page("ablate.md"))(with_verbosity(ablate))
app.command(cls=Verb, epilog=page("report.md"))(with_verbosity(report))
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(recipe.app, name="recipe")
app.add_typer(target.app, name="target")
app.command(cls=Verb, epilog=page("train.md"))(with_verbosity(train))
app.command(cls=Verb, epilog=page("bundle.md"))(with_verbosity(verify))
app.command(cls=Verb, epilog=page("bundle.md"))(with_verbosity(inspect))
app.command("list", cls=Verb, epilog=page("bundle.md"))(with_verbosity(list_bundles))
app.command(cls=Verb, epilog=page("bundle-spec.md"))(with_verbosity(schema))
app.command(cls=Verb, epilog=page("bundle.md"))(with_verbosity(pack))
app.command(cls=Verb, epilog=page("bundle.md"))(with_verbosity(unpack))
app.command(cls=Verb, epilog=page("hub.md"))(with_verbosity(pull))
app.command(cls=Verb, epilog=page("hub.md"))(with_verbosity(push))
app.command(cls=Verb, epilog=page("troubleshooting.md"))(with_verbosity(doctor))


def main() -> None:
    """Run the command line; a stream that the caller has closed takes nothing and disturbs nobody."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open as long as the process is
        # A name that is not UTF-8, or a terminal that is not, must not end the run.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        app()
    except MemoryError:  # before a verb has begun
        _end(NO_MEMORY, 1)


if __name__ == "__main__":
    main()
