"""What `io.swiftlet.Node` offers, in varlink's interface language; docs/wire.md says it for people.

The server answers `GetInterfaceDescription` with this text. Descriptors, which varlink's language cannot
express, are described in docs/wire.md.
"""

from __future__ import annotations

NAME = "io.swiftlet.Node"
"""The interface; a method is called as `io.swiftlet.Node.List`, an error is named in the same way."""

DESCRIPTION = """\
# Runs guests (containers) with exactly the files they need. Only root may call.
interface io.swiftlet.Node

# A step of a longer work. stage: fetch, unpack, resolve, generate or link; of a kernel's build unpack, wait,
# configure, compile or keep; of a boot profile watch and explain. done and total count bytes, files or steps; total
# is 0 when not known.
type Progress (stage: string, text: string, done: int, total: int)

# A guest (or a command in one) that runs. Descriptors come along: the pidfd, then, unless detached, the
# console (of a guest with the read end of its output) or the read ends of stdout and stderr.
type Started (id: string, name: string, pid: int)

# code is the shell's: 128 + n for signal n.
type Exit (
  code: int,
  signal: ?int,
  oom: bool,
  reason: ?string,
  started_ns: int,
  ended_ns: int,
  usage: ?object
)

type Guest (
  id: string,
  name: string,
  kind: string,
  state: string,
  templates: []string,
  command: []string,
  created_ns: int,
  started_ns: ?int,
  ended_ns: ?int,
  pid: ?int,
  exit: ?Exit,
  address: ?string,
  ports: []string
)

type GuestStat (
  id: string,
  name: string,
  cpu_ns: int,
  memory_bytes: int,
  memory_limit: int,
  private_bytes: int,
  shared_bytes: int,
  pids: int
)

type TemplateLine (
  reference: string,
  description: string,
  source: string,
  resolved: bool,
  files: int,
  bytes: int
)

type ClosureSummary (digest: string, files: int, bytes: int, requires: []string)

type Resolved (template: string, digest: string, files: int, bytes: int, reused_bytes: int, lock: object)

# A file of a closure and why it is there.
type Entry (
  path: string,
  kind: string,
  mode: ?int,
  digest: ?string,
  size: ?int,
  target: ?string,
  uid: ?int,
  gid: ?int,
  source: ?string,
  why: ?string
)

type Damage (path: string, digest: string, problem: string)

# What was taken out of use.
type Repaired (objects: int, trees: int, closures: int, locks: int)

# status: ok, limited, or missing (no guest can run without it).
type Finding (name: string, status: string, detail: string, consequence: string)

# The memory that it takes in the store is bytes; memory is the machine's. clones: guests that were made of it.
type Snapshot (name: string, created_ns: int, bytes: int, templates: []string, memory: int, clones: []string)

# Lines of a kernel's configuration; without a text, one of that name that swiftlet ships.
type Fragment (name: string, text: ?string)

# name: of the profile it was last built for; names: of all. bytes: of vmlinux.
type KernelLine (
  digest: string,
  name: string,
  names: []string,
  version: string,
  bytes: int,
  sizes: [string]int,
  options: int,
  built_ns: int,
  seconds: float,
  steps: int,
  compiler: string,
  source: [string]string,
  folder: string,
  vmlinux: ?string,
  bzimage: string
)

type KernelRequest (symbol: string, value: string, fragment: string, line: int)

# n is off.
type KernelChange (symbol: string, before: string, after: string)

# One option and why it has its value; the next step is the reason of that.
type KernelReason (symbol: string, value: string, why: string, source: string)

type KernelOption (
  title: string,
  file: string,
  line: int,
  conditions: []string,
  failing: []string,
  selects: []string,
  help: string
)

# One kernel of a derivation. off: how many options the full kernel had more. why: how it failed, "" if it passed.
type KernelRun (
  number: int,
  what: string,
  configuration: string,
  kernel: string,
  passed: bool,
  why: string,
  bytes: int,
  boot_ms: float,
  seconds: float,
  off: int
)

# boot_ms: until the first workload's process was there, emulated, of the derived kernel and of the profile's.
type KernelCompared (
  profile: string,
  kernel: KernelLine,
  boot_ms: float,
  profile_boot_ms: float,
  only_derived: []KernelPart
)

type KernelPart (symbol: string, bytes: ?int)

# complete: whether everything was tried within the budget. counts: of instructions, lines, files and options that ran.
type KernelDerived (
  kernel: KernelLine,
  full: KernelLine,
  complete: bool,
  kept: int,
  dropped: int,
  runs: []KernelRun,
  counts: [string]int,
  compared: KernelCompared
)

# Why an option of a derived kernel is there or gone: run passed without it, or failed without it and others.
type KernelEvidence (told: string, place: string, run: ?int, bytes: ?int, milliseconds: ?float)

# A disk image. bytes: its length, of which disk_bytes take room. digest: SHA-256.
type DiskImage (format: string, path: string, bytes: int, disk_bytes: int, digest: string)

# Called with `more`. With `interactive` and without `tty` the caller's standard input comes along.
method Run(workload: object, detach: ?bool, snapshot: ?string) -> (
  progress: ?Progress,
  started: ?Started,
  exited: ?Exit
)

method Start(guest: string, attach: ?bool) -> (progress: ?Progress, started: ?Started, exited: ?Exit)

method Exec(
  guest: string,
  command: []string,
  env: ?[string]string,
  workdir: ?string,
  user: ?string,
  tty: ?bool,
  interactive: ?bool,
  detach: ?bool
) -> (started: ?Started, exited: ?Exit)

method Attach(guest: string) -> (started: ?Started, exited: ?Exit)

method Wait(guest: string) -> (exited: Exit)

method Stop(guest: string, timeout: ?float) -> (exited: Exit)

method Kill(guest: string, signal: string) -> ()

method Remove(guest: string, force: ?bool) -> ()

method Insert(guest: string, template: string) -> (progress: ?Progress)

# Saves a virtual machine that runs; it stands still meanwhile. ports: of the guest, on which it has to listen before;
# those that it publishes when nothing is said.
method Snapshot(guest: string, name: string, ports: ?[]int) -> (snapshot: Snapshot)

method Snapshots() -> (snapshots: []Snapshot)

method RemoveSnapshot(snapshot: string) -> ()

method List(all: ?bool) -> (guests: []Guest)

method Inspect(guest: string) -> (guest: object)

# The log files come along, read-only: stdout, stderr, index.
method Logs(guest: string) -> (state: string)

method Stats(guests: []string) -> (stats: []GuestStat)

method Templates() -> (templates: []TemplateLine)

method Template(template: string) -> (template: object, closure: ?ClosureSummary, origin: string)

method Resolve(templates: []string, lock: ?object, upgrade: ?bool) -> (progress: ?Progress, closures: ?[]Resolved)

# path: in the guest, or a bare name. others: further paths of that name.
method Explain(template: string, path: string) -> (entry: Entry, chain: []Entry, others: []string)

# repair: take what is damaged, and all that was built on it, out of use.
method TemplateVerify(templates: []string, repair: ?bool) -> (
  progress: ?Progress,
  checked: ?int,
  damaged: ?[]Damage,
  repaired: ?Repaired
)

# A workload file's text as a workload; `base` is the folder that relative paths start from.
method ParseWorkload(text: string, base: string, path: string) -> (workload: object)

method StoreStat() -> (
  objects: int,
  object_bytes: int,
  trees: int,
  closures: int,
  guests: int,
  cache_bytes: int,
  shared_bytes: int
)

method StoreVerify(repair: ?bool) -> (
  progress: ?Progress,
  checked: ?int,
  damaged: ?[]Damage,
  repaired: ?Repaired
)

method StoreGc(cache: ?bool, dry_run: ?bool) -> (objects: int, trees: int, closures: int, bytes: int)

# A profile, with fragments over it. Two calls for the same kernel share one build.
method KernelBuild(profile: string, source: ?string, fragments: ?[]Fragment) -> (
  progress: ?Progress,
  kernel: ?KernelLine,
  reused: ?bool
)

# A distribution's kernel (a bzImage), with the folder of its modules.
method KernelImport(path: string, modules: ?string, name: ?string) -> (kernel: KernelLine, reused: bool)

# Kernels are built and tried until none of the checks' options can go, or budget kernels were built; the same call goes
# on where an earlier one was broken off. gate: what `guest check` checks is one of the checks. wished: a configuration
# (defconfig without a text: the source's) of which the start has, besides, what can be had. compare: a profile that is
# built and started beside the result.
method KernelTrim(
  workloads: ?[]object,
  gate: ?bool,
  profile: ?string,
  source: ?string,
  fragments: ?[]Fragment,
  wished: ?Fragment,
  name: ?string,
  budget: ?int,
  compare: ?string
) -> (progress: ?Progress, derived: ?KernelDerived)

method Kernels() -> (kernels: []KernelLine)

# By the name of a profile (the newest of it), or the beginning of a digest.
method Kernel(kernel: string) -> (kernel: KernelLine, requests: []KernelRequest)

method KernelDiff(before: string, after: string) -> (
  before: KernelLine,
  after: KernelLine,
  only_before: []KernelChange,
  only_after: []KernelChange,
  changed: []KernelChange
)

# objects and bytes are null where the option has no object files of its own, milliseconds where none were measured.
method KernelExplain(option: string, kernel: ?string) -> (
  kernel: KernelLine,
  option: string,
  value: string,
  chain: []KernelReason,
  definitions: []KernelOption,
  selected_by: []string,
  objects: ?int,
  bytes: ?int,
  milliseconds: ?float,
  evidence: ?KernelEvidence
)

type UnikernelTask (name: string, arguments: [][]string, result: string, line: int)

type Unikernel (digest: string, bytes: int, level: string, path: string, tasks: []UnikernelTask)

method KernelRemove(kernel: string) -> (kernel: KernelLine, bytes: int)

# Disk images that a host's firmware starts. output: absolute, each format adds its ending. at_end: what the machine
# does when the workload has ended: off, restart or stay. compress: the root, which is half as large then.
method ImageBuild(
  workload: object,
  output: string,
  formats: ?[]string,
  firmware: ?[]string,
  size: ?int,
  at_end: ?string,
  compress: ?bool
) -> (progress: ?Progress, images: ?[]DiskImage, kernel: ?string)

# A program of tasks as an image that a machine starts by itself, or (target: linux) as a static program of Linux with
# the same tasks. path: of the program, and of what is made of it, absolute. level: of x86-64, v2, v3 or v4.
method UnikernelBuild(
  path: string,
  target: ?string,
  level: ?string
) -> (progress: ?Progress, unikernel: ?Unikernel, reused: ?bool)

# Starts two throw-away copies of a virtual machine (or of a workload): one as it is, one that is looked into.
method BootProfile(guest: ?string, workload: ?object) -> (progress: ?Progress, profile: ?object)

method Doctor() -> (findings: []Finding)

# The program of checks that `guest check` runs, compiled if it has to be: its path on this host.
method CheckProgram() -> (progress: ?Progress, path: ?string)

"""

ERRORS = (
    "SwiftletError",
    "InputError",
    "CycleError",
    "NotFoundError",
    "ConflictError",
    "ResolveError",
    "MissingLibraryError",
    "BadElfError",
    "FetchError",
    "StoreError",
    "CorruptError",
    "FullError",
    "KernelError",
    "HostError",
    "LaunchError",
    "CommandNotFoundError",
    "WireError",
)
"""The classes of `model.error` by name; a test holds the two together."""

DESCRIPTION += "\n\n".join(f"error {name} (message: string, hint: string, exit_code: int)" for name in ERRORS) + "\n"
