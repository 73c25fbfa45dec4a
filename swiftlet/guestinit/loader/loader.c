// The first process of a stock kernel that is given our image: a distribution's kernel has its drivers in modules, so it
// needs this much of an initramfs. Loads what /modules lists, in its order, and goes on as the image's own /init.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WAIT_MILLISECONDS = 10000 };

static int failed(const char *what, const char *which)
{
	printf("loader: %s %s: %s\n", what, which, strerror(errno));
	sleep(1); // until it is read: the kernel panics when this ends
	return 1;
}

static int load(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	int bad = file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST);
	close(file);
	return bad;
}

int main(void)
{
	char path[256];
	FILE *list = fopen("/modules", "r");

	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
	while (list && fgets(path, sizeof path, list)) {
		path[strcspn(path, "\n")] = 0;
		if (load(path))
			return failed("module", path);
	}
	for (int waited = 0; access("/dev/vda", F_OK) && waited < WAIT_MILLISECONDS; waited++)
		usleep(1000);
	if (mount("/dev/vda", "/root", "erofs", MS_RDONLY, 0) || chdir("/root"))
		return failed("root", "/dev/vda");
	if (mount(".", "/", 0, MS_MOVE, 0) || chroot("."))
		return failed("root", "/");
	execl("/init", "/init", (char *)0);
	return failed("program", "/init");
}
