// What the parts of swiftlet-init share. init.c says what it does, docs/vms.md what host and guest tell one another.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
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
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 4096, FIELDS = 6, WORDS = 8192 };

// Orders as they come, kept until a command has been started by them: its words are used where they lie.
struct orders {
	char *text;
	size_t length, room, seen;
};

void add(struct orders *orders, const char *bytes, size_t length);
bool next(struct orders *orders, size_t *at, char *key, char **field);
int obey(char key, char **field);
void become(struct orders *orders);

bool read_image(struct orders *orders, int *console);

int held_for(void);
bool hold(bool still);
void rehearse(const char *gateway);
