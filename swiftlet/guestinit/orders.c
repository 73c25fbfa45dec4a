// Orders: one letter, the number of fields as a digit, and so many texts, each ended by a zero byte. What they ask for
// is done here, but for what concerns a session.
#include "init.h"
#include <arpa/inet.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/route.h>

static int make_folders(char *path, mode_t mode, bool last)
{
	for (char *at = path + 1; (at = strchr(at, '/')); *at++ = '/') {
		*at = 0;
		mkdir(path, 0755);
	}
	return last && mkdir(path, mode) < 0 && errno != EEXIST ? -1 : 0;
}

static int write_file(char *path, mode_t mode, const char *text)
{
	make_folders(path, 0755, false);
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	ssize_t written = file < 0 ? -1 : write(file, text, strlen(text));
	close(file);
	return written < 0 ? -1 : 0;
}

static int attach(char **field)
{
	struct stat found;
	if (stat(field[1], &found) < 0)
		make_folders(field[1], 0755, true);
	return mount(field[0], field[1], field[2], strtoul(field[3], 0, 0), field[4]);
}

static int attach_file(char **field) // a file's place: one file of a folder that is attached elsewhere
{
	make_folders(field[1], 0755, false);
	close(open(field[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	return mount(field[0], field[1], 0, MS_BIND, 0);
}

static int enter_root(const char *root)
{
	static const char *kernel[] = {"dev", "proc", "sys"};
	if (chdir(root) < 0)
		return -1;
	for (int each = 0; each < 3; each++) {
		char from[8];
		snprintf(from, sizeof from, "/%s", kernel[each]);
		mkdir(kernel[each], 0755);
		if (mount(from, kernel[each], 0, MS_MOVE, 0) < 0)
			return -1;
	}
	return mount(".", "/", 0, MS_MOVE, 0) < 0 || chroot(".") < 0 || chdir("/") < 0 ? -1 : 0;
}

static void address_of(struct sockaddr *into, const char *text)
{
	struct sockaddr_in *address = (struct sockaddr_in *)into;
	memset(into, 0, sizeof *into);
	address->sin_family = AF_INET;
	inet_pton(AF_INET, text, &address->sin_addr);
}

// name, hardware address, address, mask, gateway; all but the name may be empty
static int set_interface(char **field)
{
	struct ifreq asked = {0};
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), bad = 0;
	unsigned byte[6];

	strncpy(asked.ifr_name, field[0], IFNAMSIZ - 1);
	if (sscanf(field[1], "%x:%x:%x:%x:%x:%x", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) == 6) {
		asked.ifr_hwaddr.sa_family = 1; // ARPHRD_ETHER
		for (int each = 0; each < 6; each++)
			asked.ifr_hwaddr.sa_data[each] = byte[each];
		bad |= ioctl(sock, SIOCSIFHWADDR, &asked);
	}
	if (*field[2]) {
		address_of(&asked.ifr_addr, field[2]);
		bad |= ioctl(sock, SIOCSIFADDR, &asked);
		address_of(&asked.ifr_netmask, field[3]);
		bad |= ioctl(sock, SIOCSIFNETMASK, &asked);
	}
	asked.ifr_flags = IFF_UP | IFF_RUNNING;
	bad |= ioctl(sock, SIOCSIFFLAGS, &asked);
	if (*field[4]) {
		struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
		address_of(&route.rt_dst, "0.0.0.0");
		address_of(&route.rt_genmask, "0.0.0.0");
		address_of(&route.rt_gateway, field[4]);
		if (ioctl(sock, SIOCADDRT, &route) < 0 && errno != EEXIST)
			bad = -1;
	}
	close(sock);
	return bad;
}

static int set_clock(const char *seconds, const char *nanoseconds)
{
	struct timespec now = {strtoll(seconds, 0, 10), strtoll(nanoseconds, 0, 10)};
	return clock_settime(CLOCK_REALTIME, &now);
}

// Bytes that only the host and this guest know, so that two clones never draw the same.
static int add_entropy(const char *text)
{
	struct { int bits, size; char bytes[256]; } given = {0};
	int file = open("/dev/urandom", O_WRONLY | O_CLOEXEC);

	given.size = strlen(text) < sizeof given.bytes ? strlen(text) : sizeof given.bytes;
	given.bits = given.size * 4; // hexadecimal digits
	memcpy(given.bytes, text, given.size);
	int done = ioctl(file, RNDADDENTROPY, &given);
	ioctl(file, RNDRESEEDCRNG);
	close(file);
	return done;
}

static int obey(char key, char **field)
{
	switch (key) {
	case 'm': return attach(field);
	case 'b': return attach_file(field);
	case 'd': return make_folders(field[0], strtoul(field[1], 0, 8), true) < 0 || chmod(field[0], strtoul(field[1], 0, 8));
	case 'f': return write_file(field[0], strtoul(field[1], 0, 8), field[2]);
	case 'l': return unlink(field[1]) < 0 && errno != ENOENT ? -1 : symlink(field[0], field[1]);
	case 'p': return enter_root(field[0]);
	case 'h': return sethostname(field[0], strlen(field[0]));
	case 'n': return set_interface(field);
	case 't': return set_clock(field[0], field[1]);
	case 'e': return add_entropy(field[0]);
	}
	errno = ENOSYS;
	return -1;
}

static void describe(struct command *command, char key, char **field)
{
	if (key == 'a' && command->arguments < ITEMS - 1)
		command->argv[command->arguments++] = strdup(field[0]);
	else if (key == 'v' && command->variables < ITEMS - 1)
		command->env[command->variables++] = strdup(field[0]);
	else if (key == 'r' && command->limited < 16)
		command->limits[command->limited++] = strdup(field[0]);
	else if (key == 'c')
		command->cwd = strdup(field[0]);
	else if (key == 'g')
		command->groups = strdup(field[0]);
	else if (key == 'u')
		command->uid = strtoul(field[0], 0, 10), command->gid = strtoul(field[1], 0, 10);
	else if (key == 'q')
		command->capabilities = strtoull(field[0], 0, 16);
	else if (key == 'y')
		command->tty = true, command->rows = atoi(field[0]), command->columns = atoi(field[1]);
	else if (key == 'x')
		command->ready = true;
}

// Obey what is whole of the orders that have come, up to one that starts a command. Returns whether there was one:
// then it is to be called again, without bytes, for what follows.
int take_orders(struct command *command, const char *bytes, size_t length, void (*control)(char key, char **field))
{
	if (command->length + length > command->room)
		command->text = realloc(command->text, command->room = 2 * (command->length + length));
	memcpy(command->text + command->length, bytes, length);
	command->length += length;
	command->ready = false;
	size_t at = 0;
	while (!command->ready && command->length - at >= 2) {
		char key = command->text[at], *field[FIELDS] = {0}, *next = command->text + at + 2;
		int count = command->text[at + 1] - '0', found = 0;
		char *end = command->text + command->length;
		for (; found < count && found < FIELDS; found++) {
			field[found] = next;
			next = memchr(next, 0, end - next);
			if (!next++)
				break;
		}
		if (found < count)
			break; // the rest has not come yet
		at = next - command->text;
		if (strchr("avrcguqyx", key))
			describe(command, key, field);
		else if (control && strchr("ksz", key))
			control(key, field);
		else if (control && obey(key, field) < 0)
			report("failed %c %.80s %.80s: %s\n", key, count ? field[0] : "", count > 1 ? field[1] : "", strerror(errno));
	}
	memmove(command->text, command->text + at, command->length - at);
	command->length -= at;
	return command->ready;
}

void clear_command(struct command *command)
{
	for (int each = 0; each < command->arguments; each++)
		free(command->argv[each]);
	for (int each = 0; each < command->variables; each++)
		free(command->env[each]);
	for (int each = 0; each < command->limited; each++)
		free(command->limits[each]);
	free(command->cwd), free(command->groups), free(command->text);
	memset(command, 0, sizeof *command);
}
