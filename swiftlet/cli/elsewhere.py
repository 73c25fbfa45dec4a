"""What users of docker type and swiftlet has under another name, or not at all, for whom one line is enough.

Loaded only where a command is unknown or a template is not to be had. Nothing is done here.
"""

from __future__ import annotations

from swiftlet.model.error import SwiftletError

COMMANDS = {
    "build": "there is nothing to build: `run -v ./src:/app` shows your files, a template (YAML) names what they need",
    "commit": "a guest does not become a template: keep data in a folder (-v), write what is installed in a template",
    "compose": "`swiftlet run -f FILE` runs a workload file; there is one guest in each",
    "container": "say it without: `swiftlet ps`, `swiftlet inspect GUEST`, `swiftlet rm GUEST`",
    "cp": "share a folder with the guest: `swiftlet run -v SOURCE:TARGET`",
    "create": "`swiftlet run -d` makes a guest and starts it",
    "history": "`swiftlet template show TEMPLATE`, and `swiftlet template explain` for each file",
    "images": "there are none to run: `swiftlet template ls` lists what can be run",
    "info": "`swiftlet doctor` says what this host can do, `swiftlet store stat` what is stored",
    "load": "`swiftlet template resolve --lock FILE TEMPLATE` fetches exactly what a lock file names",
    "login": "there is no registry: files come from Debian's packages, from PyPI and from this host",
    "logout": "there is no registry: files come from Debian's packages, from PyPI and from this host",
    "network": "networks are not made by hand: `swiftlet run --network bridge, none or host`, -p publishes a port",
    "port": "`swiftlet ps` lists published ports",
    "pull": "`run` fetches what is missing; `swiftlet template resolve TEMPLATE` does so ahead",
    "push": "nothing is pushed: `swiftlet template resolve -o FILE TEMPLATE` writes a lock, good for any host",
    "restart": "`swiftlet stop GUEST`, then `swiftlet start GUEST`",
    "rmi": "there are no images: `swiftlet store gc` removes files that nothing needs",
    "save": "`swiftlet template resolve -o FILE TEMPLATE` writes a lock, from which any host fetches the same files",
    "search": "`swiftlet template ls` lists templates; any Debian package is one, as deb:NAME",
    "system": "`swiftlet store stat` is its df, `swiftlet store gc` its prune, `swiftlet doctor` its info",
    "tag": "a template has a name and a version in its file; `swiftlet run --name` names a guest",
    "top": "`swiftlet stats GUEST` shows CPU, memory and how many processes; `exec GUEST -- ps` needs ps in the guest",
    "volume": "a volume is a folder of this host: `swiftlet run -v ./data:/data`",
}
"""Docker's word -> what to use here. Where it is not a command of ours."""

TERMINAL = "-t names a template here, a terminal is -it or --tty"


def with_terminal(error: SwiftletError, templates: list[str], *, interactive: bool) -> SwiftletError:
    """The error of `run`, with a word on -t where it says that there is no such template and docker's may be meant.

    interactive: -i was typed apart from -t, which is how docker's users ask for a terminal.
    """
    missing = next((name for name in templates if _is_about(str(error), name)), None)
    if missing is None or not (interactive or "/" in missing or ":" in missing):
        return error
    return type(error)(str(error), f"{error.hint}; {TERMINAL}" if error.hint else TERMINAL)


def _is_about(message: str, template: str) -> bool:
    return message in (f"no template {template.partition('@')[0]}", f"not a template: {template[:100]!r}")
