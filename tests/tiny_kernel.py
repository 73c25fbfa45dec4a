"""A kernel tree of a few lines that real tools configure and compile in a second: for what a build does around them.

It has the targets, the files and the Kconfig language that `image.kernel` uses of a real tree, and one C file. What it
cannot show is that real trees are like that; tests/vm/test_kernel_profiles.py does, with Debian's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 7
EXTRAVERSION = -tiny

tinyconfig:
	@echo 'CONFIG_TINY=y' > $(O)/.config
olddefconfig:
	@sh scripts/settle.sh $(O)/.config
vmlinux:
	@echo '  CC      init/main.o'
	@echo "$$CCACHE_DIR $$CCACHE_DEPEND" >> '{log}'
	@test ! -e slow || sleep `cat slow`
	@test ! -e broken || {{ echo "init/main.c:1:1: error: no such thing"; exit 1; }}
	@test ! -e large || head -c 64M /dev/zero > $(O)/large
	@mkdir -p $(O)/init $(O)/net
	@$(CC) -ffreestanding -include $(O)/.config.h -c init/main.c -o $(O)/init/main.o
	@cd $(O) && if grep -q NET=y .config; then cp init/main.o net/net.o; ar rcT vmlinux.a init/main.o net/net.o; \\
		else ar rcT vmlinux.a init/main.o; fi
	@echo '  LD      vmlinux'
	@ld -e start -o $(O)/vmlinux $(O)/init/main.o
	@nm $(O)/vmlinux > $(O)/System.map
bzImage: vmlinux
	@mkdir -p $(O)/arch/x86/boot
	@gzip -nc $(O)/vmlinux > $(O)/arch/x86/boot/bzImage
"""

KCONFIG = """\
config TINY
	bool

config NET
	bool "Networking"

config INET
	bool "Internet"
	depends on NET
	select CRC

config CRC
	bool
"""

SETTLE = """\
grep -q '^CONFIG_NET=y' "$1" || sed -i '/^CONFIG_INET=y/d' "$1"
if grep -q '^CONFIG_INET=y' "$1"; then echo CONFIG_CRC=y >> "$1"; fi
sed -i '/^CONFIG_UNKNOWN/d' "$1"
sed -n 's/^\\(CONFIG_[A-Z]*\\)=y$/#define \\1 1/p' "$1" > "$1.h"
"""

MAIN = """\
#ifdef CONFIG_NET
int net = 1;
#endif
const char place[] = __FILE__;
void start(void) {}
"""


def make_tree(folder: Path, log: Path) -> Path:
    """Write the tree; each of its builds adds a line to `log`: where ccache keeps things, and whether it only depends.

    A file `slow` in it says how many seconds a build takes, `broken` makes it fail, `large` makes it write 64 MiB.
    """
    files = {
        "Makefile": MAKEFILE.format(log=log),
        "Kconfig": KCONFIG,
        "Kbuild": "obj-y += init/\nobj-$(CONFIG_NET) += net/\n",
        "init/Makefile": "obj-y := main.o\n",
        "net/Makefile": "obj-y := net.o\n",
        "init/main.c": MAIN,
        "scripts/settle.sh": SETTLE,
        "scripts/kconfig/merge_config.sh": '#!/bin/sh\ncat "$4" "$5" > "$3/merged" && mv "$3/merged" "$3/.config"\n',
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "scripts/kconfig/merge_config.sh").chmod(0o755)
    return folder


def packed(tree: Path) -> Path:
    """An archive of a tree, beside it."""
    archive = tree.parent / f"{tree.name}.tar.xz"
    subprocess.run(["tar", "-C", str(tree.parent), "-cJf", str(archive), tree.name], check=True)
    return archive
