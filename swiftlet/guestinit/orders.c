// Orders: a letter, the number of fields as a digit, and so many texts, each ended by a zero byte.
#include "init.h"
#include <arpa/inet.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/sysinfo.h>

extern char **environ;

void add(struct orders *orders, const char *bytes, size_t length)
{
	if (orders->length + length > orders->room)
		orders->text = realloc(orders->text, orders->room = 2 * (orders->length + length));
	memcpy(orders->text + orders->length, bytes, length);
	orders->length += length;
}

// The order at a place, which is moved behind it; false when it has not come as a whole yet.
bool next(struct orders *orders, size_t *at, char *key, char **field)
{
	char *end = orders->text + orders->length, *text = orders->text + *at + 2;

	if (orders->length - *at < 2)
		return false;
	for (int each = 0; each < FIELDS; each++)
		field[each] = "";
	for (int each = 0; each < orders->text[*at + 1] - '0' && each < FIELDS; each++) {
		char *last = memchr(text, 0, end - text);
		if (!last)
			return false;
		field[each] = text, text = last + 1;
	}
	*key = orders->text[*at], *at = text - orders->text;
	return true;
}

static int make_folders(char *path, mode_t mode, bool last)
{
	for (char *at = path + 1; *path && (at = strchr(at, '/')); *at++ = '/')
		*at = 0, mkdir(path, 0755);
	return !last || mkdir(path, mode) == 0 ? 0 : errno == EEXIST ? 0 : -1;
}

// Files that each clone is told anew, open since just before the machine was saved: no clone has to find them.
static struct kept { char path[64]; int file; } kept[FIELDS];

static int keep_open(char **field)
{
	for (int each = 0; each < FIELDS; each++) {
		if (*kept[each].path)
			close(kept[each].file);
		*kept[each].path = 0;
		if (*field[each] && strlen(field[each]) < sizeof kept->path)
			if ((kept[each].file = open(field[each], O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0)
				strcpy(kept[each].path, field[each]);
	}
	return 0;
}

static int open_file(char *path, mode_t mode)
{
	int flags = O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC; // where a workload has put a pipe, nobody waits for it
	int file = open(path, flags, mode);

	if (file < 0 && errno == ENOENT)
		file = make_folders(path, 0, false) ?: open(path, flags, mode);
	return file;
}

static int write_file(char *path, mode_t mode, const char *text)
{
	int length = strlen(text), at = 0;
	struct stat before;

	while (at < FIELDS && strcmp(kept[at].path, path))
		at++;
	if (at < FIELDS && (fstat(kept[at].file, &before) < 0 || !before.st_nlink)) // another one has its name by now
		at = FIELDS;
	int file = at < FIELDS ? kept[at].file : open_file(path, mode);
	int written = at < FIELDS ? pwrite(file, text, length, 0) : write(file, text, length); // some files have no place
	int bad = file < 0 || written < 0 || (at == FIELDS && fstat(file, &before) < 0) ? -1 : 0;
	if (!bad && S_ISREG(before.st_mode) && before.st_size > length)
		bad = ftruncate(file, length);
	if (at == FIELDS)
		close(file);
	return bad;
}

// Whether a path has no place here.
static bool missing(const char *path)
{
	int kept = errno, found = access(path, F_OK);
	errno = kept;
	return found < 0;
}

static int enter_root(char *root)
{
	for (char **each = (char *[]){"/dev", "/proc", "/sys", 0}; *each; each++) {
		char to[64];
		snprintf(to, sizeof to, "%s%s", root, *each);
		if (mount(*each, to, 0, MS_MOVE, 0) < 0)
			return -1;
	}
	return chdir(root) || mount(".", "/", 0, MS_MOVE, 0) || chroot(".") || chdir("/") ? -1 : 0;
}

static struct sockaddr address_of(const char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct sockaddr plain;
	inet_pton(AF_INET, text, &address.sin_addr);
	memcpy(&plain, &address, sizeof plain);
	return plain;
}

// Name, hardware address, address, mask, gateway; all but the name may be empty. What is kept open here and below, and
// not done twice, a clone need not do: emulated, each path of the kernel that it takes for the first time costs a clone.
static int set_interface(char **field)
{
	static int sock = -1;
	struct ifreq asked = {.ifr_hwaddr.sa_family = 1}; // ARPHRD_ETHER
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
	int bad = 0;
	char *text = field[1];

	sock = sock < 0 ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : sock;
	strncpy(asked.ifr_name, field[0], IFNAMSIZ - 1);
	for (int byte = 0; byte < 6; byte++, text += *text == ':')
		asked.ifr_hwaddr.sa_data[byte] = strtoul(text, &text, 16);
	if (*field[1])
		bad |= ioctl(sock, SIOCSIFHWADDR, &asked);
	if (*field[2]) {
		asked.ifr_addr = address_of(field[2]), bad |= ioctl(sock, SIOCSIFADDR, &asked);
		asked.ifr_netmask = address_of(field[3]), bad |= ioctl(sock, SIOCSIFNETMASK, &asked);
	}
	bad |= ioctl(sock, SIOCGIFFLAGS, &asked);
	if (!(asked.ifr_flags & IFF_UP))
		asked.ifr_flags |= IFF_UP, bad |= ioctl(sock, SIOCSIFFLAGS, &asked);
	if (*field[4]) {
		route.rt_dst = route.rt_genmask = address_of("0.0.0.0"), route.rt_gateway = address_of(field[4]);
		bad |= ioctl(sock, SIOCADDRT, &route) < 0 && errno != EEXIST ? -1 : 0;
	}
	return bad;
}

// Digits that only the host and this guest know, so that the kernels of two clones never draw the same.
static int add_entropy(const char *digits)
{
	static int file = -1;
	struct { int bits, size; char bytes[256]; } given = {4 * strlen(digits), strlen(digits), {0}};
	file = file < 0 ? open("/dev/urandom", O_WRONLY | O_CLOEXEC) : file;
	memcpy(given.bytes, digits, given.size = given.size < 256 ? given.size : 256);
	return ioctl(file, RNDADDENTROPY, &given) | ioctl(file, RNDRESEEDCRNG);
}

// So many processes and threads may come to those that there are: a kernel has dozens of its own, and counts them too.
static int limit_processes(const char *more)
{
	struct sysinfo now;
	char text[16];

	sysinfo(&now);
	snprintf(text, sizeof text, "%lu", now.procs + strtoul(more, 0, 10));
	return write_file("/proc/sys/kernel/threads-max", 0644, text);
}

// Seconds and nanoseconds; and, of a machine that boots, that they are of its start: it has been on its way since.
static int set_clock(char **field)
{
	struct timespec now = {atoll(field[0]), atoll(field[1])}, since = {0, 0};

	if (*field[2])
		clock_gettime(CLOCK_MONOTONIC, &since);
	now.tv_sec += since.tv_sec, now.tv_nsec += since.tv_nsec;
	if (now.tv_nsec >= 1000000000)
		now.tv_sec++, now.tv_nsec -= 1000000000;
	return clock_settime(CLOCK_REALTIME, &now);
}

// Do what an order asks of the machine. -1 and errno when that fails, 1 when the order is about something else.
int obey(char key, char **field)
{
	mode_t mode = strtoul(field[1], 0, 8);
	struct stat found;

	switch (key) {
	case 'm': // source, target, type, flags, options
		if (stat(field[1], &found) < 0)
			make_folders(field[1], 0755, true);
		return mount(field[0], field[1], field[2], strtoul(field[3], 0, 0), field[4]);
	case 'b': // one file of a folder that is attached elsewhere
		return write_file(field[1], 0644, "") ?: mount(field[0], field[1], 0, MS_BIND, 0);
	case 'd': return make_folders(field[0], mode, true) ?: chmod(field[0], mode);
	case 'f': // path, mode, text, whether it may have no place here (optional), or may fail (whatever)
		return write_file(field[0], mode, field[2]) && *field[3] != 'w' && !(*field[3] && missing(field[0])) ? -1 : 0;
	case 'l': return unlink(field[1]) < 0 && errno != ENOENT ? -1 : symlink(field[0], field[1]);
	case 'p': return enter_root(field[0]);
	case 'h': return sethostname(field[0], strlen(field[0]));
	case 'n': return set_interface(field);
	case 't': return set_clock(field);
	case 'e': return add_entropy(field[0]);
	case 'j': return limit_processes(field[0]);
	case 'i': return keep_open(field);
	}
	return 1;
}

static void refuse(int code, const char *what, const char *which, const char *why)
{
	dprintf(2, "swiftlet: %s%s%s\n", what, which, why);
	_exit(code);
}

// In a new process: be the command that the orders describe. Does not return.
void become(struct orders *orders)
{
	static char *argv[WORDS + 1], *env[WORDS + 1];
	char key, *field[FIELDS], *folder = "/";
	int words = 0, variables = 0, count = 0, which;
	unsigned long long capabilities = 0;
	gid_t groups[64], group = 0;
	uid_t user = 0;
	long long soft, hard;

	for (size_t at = 0; at < orders->seen && next(orders, &at, &key, field);)
		if (key == 'a' && words < WORDS)
			argv[words++] = field[0];
		else if (key == 'v' && variables < WORDS)
			env[variables++] = field[0];
		else if (key == 'c' && *field[0])
			folder = field[0];
		else if (key == 'r' && sscanf(field[0], "%d %lld %lld", &which, &soft, &hard) == 3)
			setrlimit(which, &(struct rlimit){soft, hard}); // -1 is RLIM_INFINITY
		else if (key == 'q')
			capabilities = strtoull(field[0], 0, 16);
		else if (key == 'u')
			user = strtoul(field[0], 0, 10), group = strtoul(field[1], 0, 10);
		else if (key == 'g')
			for (char *text = field[0]; *text && count < 64; text += strspn(text, " "))
				groups[count++] = strtoul(text, &text, 10);
	for (int each = 0; each < 3; each++)
		fchown(each, user, -1); // or its user could not open /dev/stdout
	for (int each = 1; each < 65; each++)
		signal(each, SIG_DFL);
	if (make_folders(folder, 0755, true) < 0 || chdir(folder) < 0)
		refuse(126, folder, " cannot be its working folder: ", strerror(errno));
	for (int each = 0; each < 64; each++)
		if (!(capabilities >> each & 1))
			prctl(PR_CAPBSET_DROP, each);
	if (setgroups(count, groups) < 0 || setgid(group) < 0 || setuid(user) < 0)
		refuse(126, "its user cannot be had: ", strerror(errno), "");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	environ = env;
	execvp(argv[0], argv);
	if (errno != ENOENT && errno != ENOTDIR)
		refuse(126, argv[0], " cannot be executed: ", strerror(errno));
	if (strchr(argv[0], '/') && access(argv[0], F_OK) == 0)
		refuse(127, argv[0], " needs a loader or an interpreter that is not in the guest", "");
	refuse(127, "command '", argv[0], "' is not in the guest");
}
