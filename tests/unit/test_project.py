"""The project as a whole: its linters, its layers, its locks, its entry points and what its pages say."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from tests import conftest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("runtime", "dev", "bench")
PAGES = sorted(ROOT.glob("docs/*.md"))

PIN = re.compile(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.+!]+ --hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, str]:
    """Normalised project name -> version."""
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            project, version = line.split(" ")[0].split("==")
            found[normal(project)] = version
    return found


def normal(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def tool(name: str) -> str:
    """A linter's path. On a stray machine it may be missing; in CI that is a failure."""
    found = shutil.which(name, path=f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed; ./dev test installs it")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "format", "--check", "--quiet", "."], ["ruff", "check", "--quiet", "."], ["mypy"], ["lint-imports"]],
)
def test_the_linters_find_nothing(command: list[str]) -> None:
    done = subprocess.run([tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_names_versions_and_hashes_and_no_address(name: str) -> None:
    for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines():
        assert line.startswith("# ") or PIN.fullmatch(line), line
        assert "://" not in line


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"runtime": project["dependencies"], **project["optional-dependencies"]}
    for name, requirements in wanted.items():
        locked = pins(name).keys() | pins("runtime").keys()
        missing = {normal(re.split(r"[<>=!~\[;]", each)[0]) for each in requirements} - locked
        assert not missing, f"requirements/{name}.txt lacks {missing}: run ./dev lock"


def test_no_two_locks_disagree_on_a_version() -> None:
    seen: dict[str, str] = {}
    for name in LOCKS:
        for project, version in pins(name).items():
            assert seen.setdefault(project, version) == version, project


def test_what_sets_things_up_names_no_address() -> None:
    for name in ("dev", ".ci/run", "pyproject.toml", "tests/bare/run.sh"):
        assert not re.search(r"https?://", (ROOT / name).read_text()), name


@pytest.mark.parametrize("script", ["dev", "tests/bare/run.sh", "examples/toolchain/fetch.sh"])
def test_the_shell_scripts_are_posix(script: str) -> None:
    assert (ROOT / script).read_text().startswith("#!/bin/sh\n")
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["/bin/sh", "-n", str(ROOT / script)], check=True)


def test_dev_says_what_it_can_do_and_refuses_what_it_cannot() -> None:
    shown = subprocess.run([ROOT / "dev"], capture_output=True, text=True)
    assert shown.returncode == 0
    for command in ("run", "test", "check", "bench", "lock"):
        assert f"./dev {command}" in shown.stdout
    assert subprocess.run([ROOT / "dev", "nonsense"], capture_output=True).returncode == 2


def test_only_the_tests_install_what_machines_need() -> None:
    commands = re.findall(r"^(\w+)\)\n(.*?)^    ;;", (ROOT / "dev").read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, body in commands if "set_up_machines" in body] == ["test"]


def test_every_module_says_what_it_is_for() -> None:
    for folder in ("swiftlet", "bench", "examples", "requirements"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text()
            if path.name == "__init__.py" and not source:
                continue
            assert ast.get_docstring(ast.parse(source)), f"{path} has no docstring"


def test_the_folders_of_the_package_are_the_layers() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = {name for line in contract["layers"] for name in re.findall(r"swiftlet\.(\w+)", line)}
    folders = {path.parent.name for path in (ROOT / "swiftlet").glob("*/__init__.py")}
    assert folders == layers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_starts_with_a_command_or_a_drawing(page: Path) -> None:
    lines = [line for line in page.read_text().splitlines() if line]
    assert lines[0].startswith("# ")
    assert lines[1].startswith("```"), f"{page.name} opens with {lines[1]!r}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_shows_commands_that_exist() -> None:
    from swiftlet.cli.main import MODULES

    text = (ROOT / "README.md").read_text() + "".join(page.read_text() for page in PAGES)
    for word in re.findall(r"^ *(?:\$ )?swiftlet (?!-)([a-z]+)", text, re.MULTILINE):
        assert word in MODULES, f"swiftlet {word}"


def test_in_ci_only_what_the_kernel_lacks_is_an_honest_skip() -> None:
    assert conftest.is_honest_skip("Skipped: host lacks: cgroup v1")
    assert conftest.is_honest_skip("host lacks: KVM that works")
    assert not conftest.is_honest_skip("host lacks: strace")
    assert not conftest.is_honest_skip("needs root")
    assert not conftest.is_honest_skip("Skipped: unconditional skip")


@pytest.mark.parametrize(("reason", "code"), [("host lacks: KVM", 0), ("ruff is not installed", 1)])
def test_a_skip_in_ci_fails_unless_it_is_honest(tmp_path: Path, reason: str, code: int) -> None:
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(f"import pytest\n\n\ndef test_it() -> None:\n    pytest.skip({reason!r})\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env={**environment, "CI": "true"}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    done = subprocess.run(command, env={**environment, "CI": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_page_on_templates_has_every_field_and_pack_and_its_examples_can_be_read() -> None:
    from swiftlet.model.template import Template
    from swiftlet.resolve.template import PACKS, parse_template

    text = (ROOT / "docs/templates.md").read_text()
    for name in (*Template.__struct_fields__, *PACKS):
        assert f"\n| `{name}` |" in text, name
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert [parse_template(example.encode(), "page").name for example in examples] == ["webshop", "python", "machine"]


def test_the_page_on_benchmarks_names_the_metrics() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    for name in ("start_p50_ms", "start_p99_ms", "cli_p50_ms", "storm_first_ms", "storm_last_ms"):
        assert f"`{name}`" in text, name


def test_the_example_workload_can_be_read() -> None:
    from swiftlet.resolve.workload import load_workload

    workload = load_workload(str(ROOT / "examples/hello-web/workload.yaml"))
    assert workload.volumes[0].source == str(ROOT / "examples/hello-web")


def test_the_example_application_answers_with_a_handshake_a_counted_visit_and_its_greeting(tmp_path: Path) -> None:
    """Outside a container: what the application says must be the application's doing."""
    command = [sys.executable, str(ROOT / "examples/hello-web/app.py")]
    environment = {**os.environ, "PORT": "0", "DATA": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(b"port ")[1].split(b",")[0])
        for visit in (1, 2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/facts.json", timeout=10) as answer:
                facts = json.load(answer)
            assert facts["visits"] == visit
        process.terminate()
        assert process.wait(10) == 0
    assert facts["tls"].startswith("TLSv1.3")
    assert facts["greeting"] == "Grüß Gott, привет, 你好, 👋"
