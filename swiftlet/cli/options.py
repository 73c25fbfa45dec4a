"""Commands and their options as values, the parser over them, and the help made from them.

Not argparse: importing it and declaring the thirty options of `run` takes longer than starting a container,
and it knows neither `-it` as docker's users type it nor a command line that belongs to the guest.
"""

from __future__ import annotations

from swiftlet.model.error import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Option:
    """`names` as typed ("-e --env"); a switch without `metavar`; one with `many` may be given again and again."""

    __slots__ = ("help", "key", "many", "metavar", "names")

    def __init__(self, names: str, help: str, metavar: str = "", *, many: bool = False) -> None:
        self.names = tuple(names.split())
        self.key = self.names[-1].lstrip("-")
        self.help = help
        self.metavar = metavar
        self.many = many


class Parsed:
    """What was typed. Options are asked for by their last name without dashes."""

    __slots__ = ("arguments", "values")

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.values: dict[str, list[str]] = {}

    def on(self, key: str) -> bool:
        """Whether a switch, or any other option, was given."""
        return key in self.values

    def one(self, key: str, otherwise: str = "") -> str:
        """An option's last value."""
        return self.values[key][-1] if key in self.values else otherwise

    def many(self, key: str) -> list[str]:
        """All values of an option, in order."""
        return self.values.get(key, [])


class Command:
    """One command.

    name: as typed, "run" or "template ls". usage: what follows the name. least, most: how many arguments it
    takes (most -1: any number). ours: how many arguments come before a command of the guest's, which is taken as
    it stands (-1: there is none). whole: whether, by what was typed so far, there is none after all. rewrite:
    replaces a token before it is understood. examples: whole command lines.
    """

    __slots__ = (
        "about", "examples", "execute", "least", "most", "name", "options", "ours", "rewrite", "summary",
        "usage", "whole",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        summary: str,
        execute: Callable[[Parsed], int],
        *,
        usage: str = "",
        arguments: tuple[int, int] = (0, 0),
        options: tuple[Option, ...] = (),
        examples: tuple[str, ...],
        about: str = "",
        ours: int = -1,
        rewrite: Callable[[str], list[str]] | None = None,
        whole: Callable[[Parsed], bool] | None = None,
    ) -> None:
        self.name = name
        self.summary = summary
        self.execute = execute
        self.usage = usage
        self.least, self.most = arguments
        self.options = options + COMMON
        self.examples = examples
        self.about = about
        self.ours = ours
        self.rewrite = rewrite
        self.whole = whole


COMMON = (
    Option("--debug", "show where in swiftlet an error arose"),
    Option("--help", "show this and exit"),
)

JSON = Option("--json", "print JSON for machines")
QUIET = Option("-q --quiet", "print ids or names only")


def check_one_form(parsed: Parsed, name: str) -> None:
    """Refuse --json beside -q where each is a form of the same listing. Raises InputError."""
    if parsed.on("json") and parsed.on("quiet"):
        raise InputError(f"{name}: --json and -q are two forms of one list", "leave one out; --json has ids and names")


def rewrite_terminal(token: str) -> list[str]:
    """`-it` as users of docker type it, where -t itself means a template.

    A token made of the letters i, t and d alone that has both i and t asks for a terminal: -it, -ti, -itd,
    -dit. Everything else stays as it is: `-t i` and `-td` name templates.
    """
    letters = token[1:]
    if token.startswith("-") and set(letters) in ({"i", "t"}, {"i", "t", "d"}) and len(letters) == len(set(letters)):
        return ["--tty" if letter == "t" else f"-{letter}" for letter in letters]
    return [token]


def parse(command: Command, words: list[str]) -> Parsed:
    """Understand the words after a command's name. Raises InputError with a pointer to the command's help."""
    return _Parser(command, words).parse()


class _Parser:
    def __init__(self, command: Command, words: list[str]) -> None:
        self.command = command
        self.words = words[::-1]
        self.parsed = Parsed()
        self.by_name = {name: option for option in command.options for name in option.names}

    def parse(self) -> Parsed:
        while self.words:
            word = self.words.pop()
            if word == "--":
                self._take_rest()
            elif len(word) > 1 and word[0] == "-" and not word[1].isdigit():  # -5 is a number
                self._take_option(word)
            else:
                self._take_argument(word)
        if not self.parsed.on("help"):
            self._check_count()
        return self.parsed

    def _take_argument(self, word: str) -> None:
        self.parsed.arguments.append(word)
        whole = self.command.whole is not None and self.command.whole(self.parsed)
        if 0 <= self.command.ours <= len(self.parsed.arguments) and not whole:
            if self.command.ours and self.words and self.words[-1] == "--":
                self.words.pop()
            self._take_rest()

    def _take_rest(self) -> None:
        self.parsed.arguments += self.words[::-1]
        self.words = []

    def _take_option(self, word: str) -> None:
        if self.command.rewrite:
            first, *rest = self.command.rewrite(word)
            self.words += rest[::-1]
            word = first
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            self._store(name, value if equals else None)
            return
        name, rest_of_word = word[:2], word[2:]
        option = self._find(name)
        if not option.metavar and rest_of_word:
            self._store(name, None)
            self.words.append("-" + rest_of_word)
        else:
            self._store(name, rest_of_word.removeprefix("=") if rest_of_word else None)

    def _store(self, name: str, value: str | None) -> None:
        option = self._find(name)
        if not option.metavar:
            if value is not None:
                raise self._wrong(f"{name} takes no value")
            value = ""
        elif value is None:
            if not self.words and name == "-h":  # nobody means an empty host name
                option, value = self.by_name["--help"], ""
            elif not self.words:
                raise self._wrong(f"{name} needs a value ({option.metavar})")
            else:
                value = self.words.pop()
        self.parsed.values.setdefault(option.key, []).append(value)

    def _find(self, name: str) -> Option:
        option = self.by_name.get(name)
        if option is None and name == "-h":
            option = self.by_name["--help"]
        if option is None:
            raise self._wrong(f"unknown option {name}")
        return option

    def _check_count(self) -> None:
        count, command = len(self.parsed.arguments), self.command
        if count < command.least:
            raise self._wrong(f"too few arguments: {command.usage}")
        if 0 <= command.most < count:
            raise self._wrong(f"one argument too many: {self.parsed.arguments[command.most]!r}")

    def _wrong(self, message: str) -> InputError:
        name = self.command.name
        return InputError(f"{name}: {message}", f"`swiftlet {name} --help` shows how it is used")


def help_of(command: Command) -> str:
    """The text of `--help`."""
    lines = [f"Usage: swiftlet {command.name} {command.usage}".rstrip(), "", command.summary]
    if command.about:
        lines += ["", command.about]
    lines += ["", "Options:", *(_option_line(option) for option in command.options)]
    lines += ["", "Examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines) + "\n"


def _option_line(option: Option) -> str:
    names = ", ".join(option.names)
    left = ("" if option.names[0][1] != "-" else "    ") + f"{names} {option.metavar}".rstrip()
    separator = "\n" + " " * 34 if len(left) > 30 else " " * (32 - len(left))
    return f"  {left}{separator}{option.help}"
