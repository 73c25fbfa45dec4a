"""`swiftlet template`: the templates that are known, what is in them and why."""

from __future__ import annotations

import os
import sys

from swiftlet.api.client import Client
from swiftlet.cli.options import JSON, Command, Option, Parsed, check_one_form
from swiftlet.cli.progress import last_of
from swiftlet.cli.table import print_json, print_list, print_table, printable, size_text
from swiftlet.cli.workload import template_path
from swiftlet.model.error import CorruptError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ls(parsed: Parsed) -> int:
    """List templates."""
    check_one_form(parsed, "template ls")
    with Client() as client:
        templates = client.call("Templates")[0]["templates"]
    print_list(parsed, templates, "reference", ("TEMPLATE", "FILES", "SIZE", "SOURCE", "DESCRIPTION"), _line)
    return 0


def _line(template: dict[str, Any]) -> tuple[str, ...]:
    resolved = template.get("resolved")
    return (
        template["reference"],
        str(template["files"]) if resolved else "-",
        size_text(template["bytes"]) if resolved else "-",
        template.get("source") or "",
        template.get("description") or "",
    )


def show(parsed: Parsed) -> int:
    """Show one template as declared, and what it resolved to."""
    with Client() as client:
        found = client.call("Template", {"template": template_path(parsed.arguments[0], os.getcwd())})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    template, closure = found["template"], found.get("closure")
    sys.stdout.write(f"{template['name']}@{template['version']}   ({printable(str(found.get('origin')))})\n")
    for member, value in template.items():
        if member not in ("name", "version") and value:
            sys.stdout.write(f"  {member}: {printable(_text(value))}\n")
    if closure:
        size = size_text(closure["bytes"])
        sys.stdout.write(f"resolved: {closure['files']} files, {size}, closure {closure['digest'][:12]}\n")
    else:
        sys.stdout.write("not resolved yet\n")
    return 0


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(item)}" for name, item in value.items())
    return ", ".join(_text(item) for item in value) if isinstance(value, list) else str(value)


def resolve(parsed: Parsed) -> int:
    """Resolve templates; with a lock file, to exactly what it names."""
    if (parsed.on("lock") or parsed.on("output")) and len(parsed.arguments) > 1:
        raise InputError("template resolve: a lock file belongs to one template", "resolve them one at a time")
    folder = os.getcwd()
    parameters = {
        "templates": [template_path(template, folder) for template in parsed.arguments],
        "lock": _read_lock(parsed.one("lock")) if parsed.on("lock") else None,
        "upgrade": parsed.on("upgrade"),
    }
    closures = _last("Resolve", parameters, parsed)["closures"]
    if parsed.on("output"):
        _write_lock(parsed.one("output"), closures[0]["lock"])
    if parsed.on("json"):
        print_json(closures)
    elif parsed.on("quiet"):
        sys.stdout.write("".join(f"{closure['digest']}\n" for closure in closures))
    else:
        print_table(("TEMPLATE", "FILES", "SIZE", "REUSED", "CLOSURE"), [_resolved(closure) for closure in closures])
    return 0


def _resolved(closure: dict[str, Any]) -> tuple[str, ...]:
    size, reused = size_text(closure["bytes"]), size_text(closure.get("reused_bytes"))
    return closure["template"], str(closure["files"]), size, reused, closure["digest"][:12]


def explain(parsed: Parsed) -> int:
    """Say why a file is in a template, from the file up to what was asked for."""
    template, path = parsed.arguments
    with Client() as client:
        found = client.call("Explain", {"template": template_path(template, os.getcwd()), "path": path})[0]
    if parsed.on("json"):
        print_json(found)
        return 0
    for depth, entry in enumerate(found["chain"] or [found["entry"]]):
        why, source = entry.get("why") or "asked for", entry.get("source")
        sys.stdout.write(printable("  " * depth + f"{entry['path']}: {why}" + (f"  [{source}]" if source else "")))
        sys.stdout.write("\n")
    for other in found.get("others") or ():
        sys.stdout.write(printable(f"also of this name: {other}") + "\n")
    return 0


def verify(parsed: Parsed) -> int:
    """Check every file of resolved templates against its digest."""
    folder = os.getcwd()
    templates = [template_path(template, folder) for template in parsed.arguments]
    asked = {"templates": templates, "repair": parsed.on("repair")}
    return report_damage(_last("TemplateVerify", asked, parsed), parsed)


def report_damage(answer: dict[str, Any], parsed: Parsed) -> int:
    """Print what a verification found; raises CorruptError when that is something."""
    damaged = answer["damaged"]
    if parsed.on("json"):
        print_json({"checked": answer["checked"], "damaged": damaged, "repaired": answer.get("repaired")})
        return CorruptError.exit_code if damaged else 0
    for damage in damaged:
        sys.stdout.write(printable(f"{damage['path']}: {damage['problem']}") + "\n")
    if damaged:
        sys.stdout.flush()
        raise _corrupt(f"{len(damaged)} of {answer['checked']} files are damaged", bool(answer.get("repaired")))
    sys.stdout.write(f"{answer['checked']} files checked, none damaged\n")
    return 0


def _corrupt(told: str, repaired: bool) -> CorruptError:
    if not repaired:
        return CorruptError(told, "verify --repair takes them out of use, so that the next run fetches them anew")
    hint = "`swiftlet template resolve`, or the next run, fetches a template's files anew"
    return CorruptError(f"{told}, and were taken out of use", hint)


def _last(method: str, parameters: dict[str, Any], parsed: Parsed) -> dict[str, Any]:
    with Client() as client:
        return last_of(client, method, parameters, quiet=parsed.on("quiet"))


def _read_lock(path: str) -> Any:
    import json

    try:
        with open(path, "rb") as file:
            return json.load(file)
    except OSError as error:
        raise InputError(f"lock file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"lock file {path} is not JSON: {error}") from None


def _write_lock(path: str, lock: Any) -> None:
    """Write beside and rename, so that a lock file is whole or not there."""
    import json

    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(json.dumps(lock, indent=1, sort_keys=True) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise InputError(f"lock file {path}: {error.strerror}") from None


REPAIR = Option("--repair", "take what is damaged out of use")
_SILENT = Option("-q --quiet", "show no progress")

COMMANDS = (
    Command(
        "template ls",
        "List the templates that are known.",
        ls,
        usage="[-q | --json]",
        options=(Option("-q --quiet", "print references only"), JSON),
        examples=("swiftlet template ls", "swiftlet template ls --json"),
    ),
    Command(
        "template show",
        "Show a template and what it resolved to.",
        show,
        usage="[--json] TEMPLATE",
        arguments=(1, 1),
        options=(JSON,),
        examples=("swiftlet template show python@3.11", "swiftlet template show --json ./my.yaml"),
    ),
    Command(
        "template resolve",
        "Find and fetch all files of templates.",
        resolve,
        usage="[OPTIONS] TEMPLATE...",
        arguments=(1, -1),
        options=(
            Option("--lock", "resolve to what this lock file names", "FILE"),
            Option("-o --output", "write the lock file", "FILE"),
            Option("--upgrade", "take newer versions than those of the last time"),
            Option("-q --quiet", "no progress, print digests only"),
            JSON,
        ),
        examples=(
            "swiftlet template resolve nginx@1.22",
            "swiftlet template resolve --upgrade -o nginx.lock nginx@1.22",
            "swiftlet template resolve --lock nginx.lock nginx@1.22",
        ),
    ),
    Command(
        "template explain",
        "Say why a file is in a template.",
        explain,
        usage="[--json] TEMPLATE PATH|NAME",
        arguments=(2, 2),
        options=(JSON,),
        about="A NAME without a slash, such as a soname, is looked for in every folder.",
        examples=(
            "swiftlet template explain nginx@1.22 libpcre2-8.so.0",
            "swiftlet template explain nginx@1.22 /lib/x86_64-linux-gnu/libpcre2-8.so.0",
        ),
    ),
    Command(
        "template verify",
        "Check every file of resolved templates.",
        verify,
        usage="[--repair] [TEMPLATE...]",
        arguments=(0, -1),
        options=(REPAIR, _SILENT, JSON),
        examples=("swiftlet template verify", "swiftlet template verify --repair nginx@1.22"),
    ),
)
