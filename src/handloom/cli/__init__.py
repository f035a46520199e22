"""The command line: parse, call one pipeline, print, exit.

stdout is data, stderr is progress and messages. Exit codes: 0 done; 1 failed; 2 usage or settings; 3 finished, some
clips rejected, or a part of an ingest's input unusable. Pipelines are imported inside the commands, so that
`handloom --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from handloom import __version__
from handloom.cli import calibrate, clips, export, ingest, machine, remove, scenes, search, train  # noqa: F401 - each adds its commands
from handloom.cli.console import DONE, FAILED, USAGE, UsageError, app, say
from handloom.errors import ConfigError, HandloomError, with_extra


def main() -> None:
    """Entry point: errors of ours become one message and an exit code; bugs keep their trace."""
    os.environ.setdefault("LANCE_LOG", "error")  # Lance's own progress would mix with ours
    # Spawned Pythons import nothing of the working directory: a file random.py may lie there.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _check_working_folder()
        sys.exit(app(standalone_mode=False) or DONE)
    except UsageError as error:
        _tell_usage(error)
        sys.exit(USAGE)
    except typer.Abort:
        say("stopped")
        sys.exit(FAILED)
    except HandloomError as error:
        say(f"error: {error}")
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "handloom":
            raise
        from handloom.pipelines.doctor import extra_of

        say(f"error: this command needs the package {error.name}, which is not installed")
        module = (error.name or "").split(".")[0]
        extra = "train" if module == "torch" else extra_of(module)  # two extras bring it: training is what needs it
        say(f"hint: {with_extra(extra) if extra else f'pip install {module}'}; `handloom doctor` shows what is missing")
        sys.exit(FAILED)
    except BrokenPipeError:  # the reader of our output has gone: `handloom search ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _tell_usage(error: UsageError) -> None:
    """A wrong or missing option or argument, with what it is for; the rest (no such command, ...) in click's words."""
    param, command = getattr(error, "param", None), error.ctx.command_path if error.ctx else "handloom"
    if param is None:
        error.show()
        return
    said = error.format_message().replace("Value error, ", "").replace(": Input", ": input").rstrip(".")
    name = param.opts[0] if param.param_type_name == "option" else param.name.upper()
    help_ = f"{name}: {param.help.rstrip('.')}. " if getattr(param, "help", None) else ""
    say(f"error: {command}: {said[:1].lower()}{said[1:]}\nhint: {help_}`{command} --help` shows all options")


def _check_working_folder() -> None:
    """Ray, and the paths of what is imported, are looked up in it: without one, every video is called unreadable."""
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
    from handloom import logs

    logs.setup(verbose)
