// A disk image: nobody tells it what to do, so its orders lie in a file, and there is a console instead of ports.
#include "init.h"

// The partition behind the one that the root is on, under a name that does not depend on the kind of disk.
static void find_data(void)
{
	char path[64], text[512] = "", name[64] = "/dev/";
	struct stat root;

	stat("/", &root);
	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/uevent", major(root.st_dev), minor(root.st_dev));
	int file = open(path, O_RDONLY | O_CLOEXEC);
	read(file, text, sizeof text - 1);
	close(file);
	char *found = strstr(text, "DEVNAME=");
	if (found && sscanf(found, "DEVNAME=%48s", name + 5) == 1)
		name[strlen(name) - 1]++, symlink(name, "/dev/data");
}

// Take its orders and open its console. False when this is no such image.
bool read_image(struct orders *orders, int *console)
{
	char bytes[CHUNK];
	int file = open("/orders", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return false;
	*console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (write(*console, "", 0) < 0) // the kernel believes in a serial port that is not there
		*console = open("/dev/tty0", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	find_data();
	for (ssize_t count; (count = read(file, bytes, sizeof bytes)) > 0;)
		add(orders, bytes, count);
	close(file);
	return true;
}
