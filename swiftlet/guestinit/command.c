// Starting a command: as the user, in the folder, with the limits and the capabilities that its orders named.
#include "init.h"

extern char **environ;

void resize(int terminal, int rows, int columns)
{
	struct winsize size = {.ws_row = rows, .ws_col = columns};
	if (rows > 0 && columns > 0)
		ioctl(terminal, TIOCSWINSZ, &size);
}

static void set_limits(struct command *command)
{
	for (int each = 0; each < command->limited; each++) {
		int which;
		long long soft, hard;
		if (sscanf(command->limits[each], "%d %lld %lld", &which, &soft, &hard) == 3)
			setrlimit(which, &(struct rlimit){soft, hard}); // -1 is RLIM_INFINITY
	}
}

static void become(struct command *command)
{
	gid_t groups[64];
	int count = 0;

	for (char *at = command->groups; at && *at && count < 64; at += strspn(at, " "))
		groups[count++] = strtoul(at, &at, 10);
	for (int each = 0; each < 64; each++)
		if (!(command->capabilities >> each & 1))
			prctl(PR_CAPBSET_DROP, each);
	if (setgroups(count, groups) < 0 || setgid(command->gid) < 0 || setuid(command->uid) < 0) {
		dprintf(2, "swiftlet: cannot become user %u: %s\n", command->uid, strerror(errno));
		_exit(126);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static void enter_folder(struct command *command)
{
	char path[4096];

	snprintf(path, sizeof path, "%s", command->cwd && *command->cwd ? command->cwd : "/");
	for (char *at = path + 1; *path && (at = strchr(at, '/')); *at++ = '/')
		*at = 0, mkdir(path, 0755);
	mkdir(path, 0755);
	if (chdir(path) < 0) {
		dprintf(2, "swiftlet: working folder %s cannot be entered: %s\n", path, strerror(errno));
		_exit(126);
	}
}

// fds: pairs, of which the command gets the second, of input, output and errors; master: of its terminal, or -1.
pid_t start_command(struct command *command, int master, int fds[6])
{
	pid_t pid = fork();
	if (pid)
		return pid;
	setsid();
	if (command->tty) {
		int terminal = ioctl(master, TIOCGPTPEER, O_RDWR);
		resize(terminal, command->rows, command->columns);
		fchown(terminal, command->uid, -1);
		for (int each = 0; each < 3; each++)
			dup2(terminal, each);
		ioctl(0, TIOCSCTTY, 0);
	} else {
		for (int each = 0; each < 3; each++) {
			fchown(fds[2 * each + 1], command->uid, -1); // or its user could not open /dev/stdout
			dup2(fds[2 * each + 1], each);
		}
	}
	for (int each = 1; each < 65; each++)
		signal(each, SIG_DFL);
	enter_folder(command);
	set_limits(command);
	become(command);
	environ = command->env;
	execvp(command->argv[0], command->argv);
	int missing = errno == ENOENT || errno == ENOTDIR;
	if (missing && strchr(command->argv[0], '/') && access(command->argv[0], F_OK) == 0)
		dprintf(2, "swiftlet: %s needs a loader or an interpreter that is not in the guest\n", command->argv[0]);
	else if (missing)
		dprintf(2, "swiftlet: command '%s' is not in the guest\n", command->argv[0]);
	else
		dprintf(2, "swiftlet: cannot execute '%s': %s\n", command->argv[0], strerror(errno));
	_exit(missing ? 127 : 126);
}
