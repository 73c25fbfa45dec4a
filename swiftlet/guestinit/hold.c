// The workload is held still while its machine is saved and told who it is: by a control group, frozen.
#include "init.h"
#include <sys/syscall.h>

enum { CLOEXEC = 1, CREATE = 6, PASSES = 16 }; // FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC; FSCONFIG_CMD_CREATE
enum { HELD_MS = 10000 }; // after so long they are let go: the host that wanted it is not there any more

static bool held;
static long begun;

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Milliseconds until whoever is held is let go, whatever comes meanwhile; -1 where nobody is.
int held_for(void)
{
	long left = held ? begun + HELD_MS - now_ms() : -1;
	return held && left < 0 ? 0 : left;
}

// The kernel's control groups, mounted nowhere: the workload sees no mount that it has not made.
static int open_groups(void)
{
	int context = syscall(SYS_fsopen, "cgroup2", CLOEXEC), tree = -1;

	if (context >= 0 && syscall(SYS_fsconfig, context, CREATE, 0, 0, 0) == 0)
		tree = syscall(SYS_fsmount, context, CLOEXEC, 0);
	close(context);
	return tree;
}

static bool read_text(int folder, const char *name, char *text, size_t room)
{
	int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
	ssize_t count, length = 0;

	while (file >= 0 && (count = read(file, text + length, room - 1 - length)) > 0)
		length += count;
	text[length] = 0;
	close(file);
	return length > 0;
}

// Move whoever is in no group into ours; false when nobody was. Sessions tell processes from the kernel's own threads.
static bool gather(int tree, int group)
{
	static char text[1 << 16];
	bool moved = false;
	int to = openat(group, "cgroup.procs", O_WRONLY | O_CLOEXEC);

	read_text(tree, "cgroup.procs", text, sizeof text);
	for (char *at = text; *at; at += strspn(at, "\n")) {
		pid_t pid = strtoul(at, &at, 10);
		if (pid > 1 && getsid(pid) > 0 && dprintf(to, "%d", pid) > 0)
			moved = true;
	}
	close(to);
	return moved;
}

// Whether nobody has made groups but us.
static bool is_ours(int tree)
{
	char text[256];
	return read_text(tree, "cgroup.stat", text, sizeof text) && strncmp(text, "nr_descendants 1\n", 17) == 0;
}

// Hold all processes but this one, or let them go on. Whether they are held: not by a kernel without control groups,
// nor where somebody has made groups of his own, which we do not put our hands on.
bool hold(bool still)
{
	static int tree = -1, group = -1, frozen = -1;
	int passes = 0;

	if (still && frozen < 0) {
		tree = tree < 0 ? open_groups() : tree;
		mkdirat(tree, "swiftlet", 0755);
		group = group < 0 ? openat(tree, "swiftlet", O_PATH | O_DIRECTORY | O_CLOEXEC) : group;
		frozen = openat(group, "cgroup.freeze", O_WRONLY | O_CLOEXEC);
	}
	held = frozen >= 0 && pwrite(frozen, still ? "1" : "0", 1, 0) == 1 && still;
	if (!held)
		return false;
	begun = now_ms();
	while (is_ours(tree) && gather(tree, group) && passes < PASSES)
		passes++;
	return (passes < PASSES && is_ours(tree)) || hold(false);
}
