"""`swiftlet`: finds the command that was typed, loads its module alone, and turns errors into lines and exit codes.

Exit codes are docker's: the guest's own, 125 when swiftlet failed, 126 and 127 when the guest's command could
not be started or found, 130 after Ctrl-C, 141 when whoever read our output left.
"""

from __future__ import annotations

import os
import sys

from swiftlet.cli.options import Command, help_of, parse
from swiftlet.model.error import InputError, SwiftletError

MODULES = {
    "run": "run",
    "start": "start",
    "ps": "ps",
    "logs": "logs",
    "exec": "exec",
    "attach": "start",
    "inspect": "inspect",
    "stats": "stats",
    "wait": "lifecycle",
    "kill": "lifecycle",
    "stop": "lifecycle",
    "rm": "lifecycle",
    "insert": "insert",
    "snapshot": "snapshot",
    "template": "template",
    "store": "store",
    "guest": "guest",
    "kernel": "kernel",
    "image": "image",
    "unikernel": "unikernel",
    "boot": "boot",
    "doctor": "doctor",
    "version": "version",
}
"""First word -> module below `swiftlet.cli`, in the order of the help. Each has COMMANDS."""

GROUPS = ("template", "store", "snapshot", "guest", "kernel", "image", "unikernel", "boot")
"""First words that are no command by themselves: a second one follows."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(words)
    except SwiftletError as error:
        return _report(error, words)
    except KeyboardInterrupt as interrupt:
        return 128 + getattr(interrupt, "number", 2)
    except BrokenPipeError:
        _forget_output()
        return 141
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return _report(SwiftletError(f"{about}{error.strerror or error}"), words, error)
    except Exception as error:
        bug = SwiftletError(f"internal error: {type(error).__name__}: {error}", "--debug shows where; please report it")
        return _report(bug, words, error)


def run_and_exit() -> None:
    """What the installed script calls: `main`, then out at once, without the interpreter's tidying up (1 ms)."""
    _open_standard_streams()
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 141
    os._exit(code)


def _open_standard_streams() -> None:
    """Whoever starts us with a closed stream must not get a socket of ours as number 0, 1 or 2."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]


def commands_of(word: str) -> tuple[Command, ...]:
    """The commands that begin with a word; ("template" has several). Raises InputError for an unknown one."""
    module = MODULES.get(word)
    if module is None:
        raise _unknown(word, MODULES)
    loaded = __import__(f"swiftlet.cli.{module}", fromlist=["COMMANDS"])
    return tuple(command for command in loaded.COMMANDS if command.name.split()[0] == word)


def find(words: list[str]) -> tuple[Command, list[str]]:
    """The command that a command line means, and the words after its name."""
    commands = commands_of(words[0])
    if " " not in commands[0].name:
        return commands[0], words[1:]
    second = words[1] if len(words) > 1 else ""
    if words[0] == "snapshot" and second not in ("", "ls", "rm", "take", "--help", "-h"):
        return commands[0], words[1:]  # `snapshot GUEST NAME`
    for command in commands:
        if command.name == f"{words[0]} {second}":
            return command, words[2:]
    raise _unknown(f"{words[0]} {second}".strip(), {command.name: "" for command in commands})


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        return _help(words[1:])
    if words[0] == "--version":
        words = ["version"]
    if words[0] in GROUPS and words[1:] in ([], ["--help"], ["-h"]):
        return _help(words[:1])
    command, rest = find(words)
    parsed = parse(command, rest)
    if parsed.on("help"):
        sys.stdout.write(help_of(command))
        return 0
    code = command.execute(parsed)
    sys.stdout.flush()
    return code


_FIRST = "swiftlet run --rm -t python@3.11 -- python3 -c 'print(\"hello\")'"


def _help(words: list[str]) -> int:
    if words and (words[0] not in GROUPS or len(words) > 1):
        sys.stdout.write(help_of(find(words)[0]))
        return 0
    group = "".join(f" {word}" for word in words)
    lines = [f"Usage: swiftlet{group} COMMAND [OPTIONS]", ""]
    lines += [] if words else ["Runs code with exactly the files it needs.", ""]
    commands = [command for name in words or MODULES for command in commands_of(name)]
    lines += ["Commands:", *(f"  {command.name:<18}{command.summary}" for command in commands)]
    lines += ["", f"`swiftlet{group} COMMAND --help` shows a command's options and examples."]
    lines += [] if words else ["", "To begin with:", "", f"  {_FIRST}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _unknown(word: str, known: dict[str, str]) -> InputError:
    import difflib

    from swiftlet.cli.elsewhere import COMMANDS

    if word in COMMANDS and known is MODULES:
        return InputError(f"there is no command {word!r}", COMMANDS[word])
    near = difflib.get_close_matches(word, known, n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(f"there is no command {word!r}", f"{meant}`swiftlet --help` lists the commands")


def _report(error: SwiftletError, words: list[str], cause: BaseException | None = None) -> int:
    if _wants_trace(words):
        import traceback

        traceback.print_exception(cause or error)
    print_error(error)
    return error.exit_code


def _wants_trace(words: list[str]) -> bool:
    """Whether --debug was typed for us; the guest's command may have an option of that name."""
    if "--debug" not in words:
        return False
    try:
        command, rest = find(words)
        return parse(command, rest).on("debug")
    except SwiftletError:
        return True


def print_error(error: SwiftletError) -> None:
    """`swiftlet: MESSAGE` and its hint on standard error, whatever a message may hold."""
    try:
        sys.stderr.write(f"swiftlet: {_one_line(str(error))}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {_one_line(error.hint)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def _one_line(text: str) -> str:
    """Printable: a template's author must not move the cursor of somebody's terminal."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


def _forget_output() -> None:
    """Point standard output elsewhere, or the interpreter complains again when it flushes at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
