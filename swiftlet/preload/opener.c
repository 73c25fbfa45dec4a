// Preloaded into the QEMU of a clone, and of nothing else. QEMU 7.2 opens the file of a guest's memory for writing even
// where it maps it privately (8.2 has `readonly=on,rom=off` for that), and nobody may be able to write to what all
// clones of a snapshot start from. So whoever opens the name of an inherited descriptor gets that descriptor, with the
// rights that it has: it was opened for reading. And of memory that the guest has freed QEMU would give up the file's
// part first, which it cannot and need not: the mapping's own pages, which it gives up next, are all that the clone has.
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char inherited[] = "/proc/self/fd/";
static int memory = -1;

int __open64_2(const char *path, int flags)
{
	if (!strncmp(path, inherited, sizeof inherited - 1))
		return memory = fcntl(atoi(path + sizeof inherited - 1), F_DUPFD_CLOEXEC, 0);
	return openat(AT_FDCWD, path, flags);
}

int fallocate64(int file, int mode, off64_t offset, off64_t length)
{
	return file >= 0 && file == memory ? 0 : syscall(SYS_fallocate, file, mode, offset, length);
}

int open64(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	return strncmp(path, inherited, sizeof inherited - 1) ? openat(AT_FDCWD, path, flags, mode) : __open64_2(path, flags);
}
