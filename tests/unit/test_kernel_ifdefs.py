"""Which options a line of the source stands under, in text that is written as the kernel's is."""

from __future__ import annotations

import pytest

from swiftlet.image.kernel import ifdefs

# Lines 1 and on; each is named in the table below. After kernel/fork.c, mm/memory.c and include/linux/sched.h.
SOURCE = """\
// SPDX-License-Identifier: GPL-2.0-only
#ifndef CONFIG_ARCH_TASK_STRUCT_ALLOCATOR
static int own;
#ifdef CONFIG_VMAP_STACK /* not CONFIG_OTHER */
static int stack;
#else
static int page;
#endif
#endif
#if defined(CONFIG_NUMA) && \\
	!defined(CONFIG_SLOB)
int node;
#elif IS_ENABLED(CONFIG_SMP) || CONFIG_NR_CPUS > 1
int processors;
#else
int one;
#endif
int f(int x)
{
	if (IS_ENABLED(CONFIG_MEMCG) && x) {
		x = '}' + g("{");
		if (x)
			x++;
	}
	if (IS_ENABLED(CONFIG_LRU_GEN) && !lru_gen_enabled()) {
		/* as if it were not there */
		x--;
	}
	if (!IS_ENABLED(CONFIG_BUG))
		x = 0;
	if (IS_ENABLED(CONFIG_KASAN))
		x = h(x,
			x);
	return x;
}
#if THREAD_SIZE >= PAGE_SIZE || defined(CONFIG_VMAP_STACK)
int size;
#endif
#if IS_ENABLED(CONFIG_IPV6) && (defined(CONFIG_INET) || defined(CONFIG_NET))
int both;
#endif
"""

ON = dict.fromkeys(("VMAP_STACK", "SMP", "MEMCG", "LRU_GEN", "BUG", "KASAN", "IPV6", "NET"), "y")


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (1, []),
        (3, []),
        (5, ["VMAP_STACK"]),
        (7, []),
        (14, ["SMP"]),
        (16, []),
        (19, []),
        (20, []),
        (21, ["MEMCG"]),
        (23, ["MEMCG"]),
        (27, ["LRU_GEN"]),
        (30, []),
        (32, ["KASAN"]),
        (33, ["KASAN"]),
        (34, []),
        (37, ["VMAP_STACK"]),
        (40, ["IPV6", "NET"]),
    ],
)
def test_a_line_needs_what_stands_around_it(line: int, options: list[str]) -> None:
    values = {f"CONFIG_{name}": value for name, value in ON.items()}
    ranges = ifdefs.ranges_of(SOURCE)
    assert ifdefs.needs_of(line, ranges, values) == [f"CONFIG_{name}" for name in options]


def test_the_first_branch_needs_all_of_its_condition_that_is_on() -> None:
    assert ifdefs.needs_of(12, ifdefs.ranges_of(SOURCE), {"CONFIG_NUMA": "y"}) == ["CONFIG_NUMA"]


@pytest.mark.parametrize(
    "text", ["#endif\n#else\n", "#ifdef CONFIG_A\n", "#if (\nint a;\n#endif", "\\\n" * 5, "#if !\n#endif"]
)
def test_text_that_is_cut_short_is_read_as_far_as_it_goes(text: str) -> None:
    for line in range(8):
        assert ifdefs.needs_of(line, ifdefs.ranges_of(text), {}) == []
