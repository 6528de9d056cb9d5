"""The table of verbs, and what an exception means to the shell that called us."""

from __future__ import annotations

import sys
import traceback
from contextlib import redirect_stdout
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import kvsim
from hw_profiles.errors import InputError
from kvsim import _compiled, _own
from kvsim.cli import _print, calibrate, calibrate_fit, calibrate_record, calibrate_run, calibrate_validate, new, trace
from kvsim.cli.cache import cache
from kvsim.cli.compare import compare
from kvsim.cli.list import list_names
from kvsim.cli.place import place
from kvsim.cli.plan import plan
from kvsim.cli.report import report
from kvsim.cli.reproduce import reproduce
from kvsim.cli.run import run as run_scenario
from kvsim.cli.show import show
from kvsim.cli.sweep import sweep
from kvsim.cli.validate import validate
from sim.invariants import InvariantError

DONE, NO, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; NO is raised by a verb as `typer.Exit(1)`."""


class Verbs(TyperGroup):
    """A group that answers an unknown verb with the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb in `args`, or raise InputError."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            names = sorted(self.commands)
            raise InputError("unknown verb", where=ctx.command_path, found=args[0], allowed=names, near=names)
        return super().resolve_command(ctx, args)


def make_app() -> typer.Typer:
    """Build the command line: one line per verb."""
    app = typer.Typer(cls=Verbs, add_completion=False, pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_front)
    app.command("run")(run_scenario)
    app.command("compare")(compare)
    app.command("sweep")(sweep)
    app.command("plan")(plan)
    app.command("cache")(cache)
    app.command("place")(place)
    app.command("report")(report)
    app.command("list")(list_names)
    app.command("show")(show)
    app.command("validate")(validate)
    app.command("reproduce")(reproduce)
    traces = typer.Typer(cls=Verbs, help="Statistics of a trace; fetch a public one; generate one.")
    traces.callback(invoke_without_command=True)(_bare)
    traces.command("stats")(trace.stats)
    traces.command("fetch")(trace.fetch)
    traces.command("generate")(trace.generate)
    traces.command("convert")(trace.convert)
    app.add_typer(traces, name="trace")
    starts = typer.Typer(cls=Verbs, help="Files to start from: a policy of your own.")
    starts.callback(invoke_without_command=True)(_bare)
    starts.command("policy")(new.policy)
    app.add_typer(starts, name="new")
    profiles = typer.Typer(cls=Verbs, help="Hardware profiles: measure a GPU, import public tables, compare, check.")
    profiles.callback(invoke_without_command=True)(_bare)
    profiles.command("run")(calibrate_run.run)
    profiles.command("fit")(calibrate_fit.fit)
    profiles.command("validate")(calibrate_validate.validate)
    profiles.command("import")(calibrate.import_profile)
    profiles.command("show")(calibrate.show_profiles)
    profiles.command("check")(calibrate.check_profile)
    profiles.command("record-importance")(calibrate_record.record_importance)
    app.add_typer(profiles, name="calibrate")
    return app


def run(arguments: list[str]) -> int:
    """Run the command line with `arguments` (less the program's name) and return the exit code."""
    command = typer.main.get_command(make_app())
    out = _print.Aside(sys.stdout) if "--json" in arguments else sys.stdout
    try:
        with redirect_stdout(out):
            code = command.main(arguments, prog_name="kvsim", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 -- the one place where every failure becomes an exit code
        return _explain(error)
    return code if isinstance(code, int) else DONE


def _explain(error: Exception) -> int:
    """Say on stderr, in one line, what went wrong; return the exit code for it."""
    if isinstance(error, InputError):
        return _fail(str(error), BAD_INPUT)
    if isinstance(error, InvariantError):
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        return _fail(f"a rule of the simulator broke (please report this): {error}{notes}", BUG)
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", BAD_INPUT)
    usage = getattr(error, "format_message", None)  # how every usage error of the parser describes itself
    if usage is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        return _fail(usage().rstrip(".") + hint, BAD_INPUT)
    traceback.print_exception(error)
    return _fail(f"unexpected {type(error).__name__} (a bug in kvsim: please report the lines above)", BUG)


def _fail(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


def _front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Simulate the KV-cache memory hierarchy of an LLM serving system."""
    if version:
        how = "compiled" if _compiled.current(_own.ROOT) else "interpreted"
        _print.line(f"kvsim {kvsim.__version__} ({how})")
        raise typer.Exit
    _bare(context)


def _bare(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        _print.line(context.get_help())
        raise typer.Exit
