"""The command line: parse, call one pipeline, print, exit.

stdout is data, stderr is progress and messages. Exit codes: 0 done; 1 failed; 2 usage or settings; 3 finished, some
clips rejected, or a part of an ingest's input unusable; 130 interrupted. Pipelines are imported inside
the commands, so that `handloom --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from handloom import __version__
from handloom.cli import calibrate, clips, export, ingest, machine, remove, scenes, search, train  # noqa: F401 - each adds its commands
from handloom.cli.console import DONE, FAILED, INTERRUPTED, USAGE, UsageError, app, say, set_up_logs
from handloom.cli.sim import imitate, sim  # noqa: F401
from handloom.cli.skills import run, skill  # noqa: F401
from handloom.errors import ConfigError, HandloomError, with_extra


def main() -> None:
    """Entry point: errors of handloom become one message and an exit code; bugs keep their trace."""
    os.environ.setdefault("LANCE_LOG", "error")  # Lance's own progress would mix with ours
    # Child processes must not import a file random.py of the working directory.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _check_working_folder()
        code = app(standalone_mode=False) or DONE
        if code == INTERRUPTED:
            say("interrupted")
        sys.exit(code)
    except UsageError as error:
        _show_usage(error)
        sys.exit(USAGE)
    except typer.Abort:  # so older versions of typer end at Ctrl-C
        say("interrupted")
        sys.exit(INTERRUPTED)
    except HandloomError as error:
        say(f"error: {error}")
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "handloom":
            raise
        from handloom.pipelines.doctor import extra_of

        say(f"error: this command needs the package {error.name}, which is not installed")
        module = (error.name or "").split(".")[0]
        extra = "train" if module == "torch" else extra_of(module)  # two extras bring it; training needs it
        say(f"hint: {with_extra(extra) if extra else f'pip install {module}'}; `handloom doctor` shows what is missing")
        sys.exit(FAILED)
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        say(f"error: MuJoCo: {error}\nhint: unset MUJOCO_GL: handloom finds out by itself how this machine draws")
        sys.exit(USAGE)
    except BrokenPipeError:  # the reader of stdout has ended: `handloom search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _show_usage(error: Any) -> None:
    """Print a wrong or missing option or argument with its help; other errors (no such command, ...) as click does."""
    param, command = getattr(error, "param", None), error.ctx.command_path if error.ctx else "handloom"
    if param is None:
        error.show()
        return
    problem = error.format_message().replace("Value error, ", "").replace(": Input", ": input").rstrip(".")
    name = param.opts[0] if param.param_type_name == "option" else param.name.upper()
    help_ = f"{name}: {param.help.rstrip('.')}. " if getattr(param, "help", None) else ""
    say(f"error: {command}: {problem[:1].lower()}{problem[1:]}\nhint: {help_}`{command} --help` shows all options")


def _check_working_folder() -> None:
    """Raise ConfigError if the working directory is gone: without one, every video would be rejected as unreadable."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the folder that this command was started in is gone", "cd to a folder that exists") from None


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every commit and shard.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    set_up_logs(verbose)
