// What the parts of swiftlet-init share. See init.c for what it does and docs/vms.md for its ports and orders.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <grp.h>

#define CHUNK 4096    // bytes moved at a time: a page is what the port's driver takes at once
#define FIELDS 6      // of an order, at most
#define ITEMS 8192    // arguments of a command, or its variables, at most
#define SESSIONS 7    // the workload and six more commands at a time

// Orders that have come in part or whole; what a command is to be like, as the orders of its session say.
struct command {
	char *text, *argv[ITEMS], *env[ITEMS], *cwd, *groups, *limits[16];
	size_t length, room;
	int arguments, variables, limited, rows, columns;
	unsigned uid, gid;
	unsigned long long capabilities;
	bool tty, ready;
};

int take_orders(struct command *command, const char *bytes, size_t length, void (*control)(char key, char **field));
void clear_command(struct command *command);
pid_t start_command(struct command *command, int master, int fds[6]);
void resize(int terminal, int rows, int columns);
void report(const char *format, ...);
