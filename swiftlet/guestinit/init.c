// swiftlet-init: process 1 of a Linux microVM. Takes orders from the host over virtio-serial, starts the workload,
// moves what commands read and write, and tells how each ended. docs/vms.md describes the ports and the orders.
//
// Port 1 carries orders in and reports out, as text. Ports 2, 3 and 4 are the workload's output, errors and input.
// Each port from 5 on is for one further command at a time, in frames: type, length (2 bytes, little-endian), content.
#include "init.h"

// One direction: what has been taken from one descriptor and not yet been given to the other.
struct stream {
	int from, to, start, left;
	bool ended;
	char bytes[CHUNK + 3];
};

struct session {
	int port, master, got, code;
	pid_t pid;
	bool framed, tty, ended, away;
	struct stream in, out[2];
	struct command command;
	char frame[CHUNK + 4];
};

static struct session sessions[SESSIONS];
static int orders_port = -1, wake[2], ending = -1;

void report(const char *format, ...)
{
	char line[512];
	va_list list;

	va_start(list, format);
	int length = vsnprintf(line, sizeof line, format, list);
	va_end(list);
	length = length < (int)sizeof line ? length : (int)sizeof line - 1;
	if (write(orders_port, line, length) < 0)
		dprintf(2, "swiftlet-init: %s", line); // to the console
}

// Ports appear one after another while the driver hears of them: the first one has to be waited for.
static int open_port(int number, int milliseconds)
{
	static char prefix[32];
	char path[48];

	for (int left = milliseconds; left >= 0; left--) {
		DIR *folder = *prefix ? 0 : opendir("/dev");
		for (struct dirent *entry; folder && (entry = readdir(folder));)
			if (sscanf(entry->d_name, "%15[a-z]%15[0-9]p", path, path + 16) == 2 && !strcmp(path, "vport"))
				snprintf(prefix, sizeof prefix, "/dev/vport%.15s", path + 16);
		if (folder)
			closedir(folder);
		snprintf(path, sizeof path, "%sp%d", prefix, number);
		int port = *prefix ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
		if (port >= 0)
			return port;
		if (left)
			nanosleep(&(struct timespec){0, 1000000}, 0);
	}
	return -1;
}

static void on_signal(int number)
{
	int kept = errno;
	if (write(wake[1], "", 1) < 0) // full: then there is a byte in it already
		errno = kept;
	errno = kept;
}

// Take what a command has written, as far as the port takes it. False when nothing could be moved.
static bool drain(struct session *session, int which)
{
	struct stream *out = &session->out[which];
	int header = session->framed ? 3 : 0;

	if (!out->left) {
		if (out->from < 0)
			return false;
		ssize_t count = read(out->from, out->bytes + 3, CHUNK);
		if (count < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (count <= 0) { // its end; of a terminal: nobody has it open
			if (!session->tty)
				close(out->from);
			out->from = -1;
			return false;
		}
		out->bytes[0] = which ? 'R' : 'O', out->bytes[1] = count & 255, out->bytes[2] = count >> 8;
		out->start = 3 - header, out->left = count + header;
	}
	ssize_t sent = write(out->to, out->bytes + out->start, out->left);
	if (sent < 0 && errno != EAGAIN)
		sent = out->left; // nobody takes it
	if (sent > 0)
		out->start += sent, out->left -= sent;
	return sent > 0;
}

// Give a command what has come for its input.
static void feed(struct session *session)
{
	struct stream *in = &session->in;
	ssize_t sent = in->to < 0 ? in->left : in->left ? write(in->to, in->bytes + in->start, in->left) : 0;

	if (sent < 0 && errno != EAGAIN)
		sent = in->left; // the command has closed its input
	if (sent > 0)
		in->start += sent, in->left -= sent;
	if (!in->left && in->ended && in->to >= 0) {
		if (session->tty)
			(void)!write(in->to, "\4", 1);
		else
			close(in->to);
		in->to = -1;
	}
}

static void send_end(struct session *session)
{
	char frame[19];
	int length = snprintf(frame + 3, sizeof frame - 3, "%d", session->code);

	frame[0] = 'X', frame[1] = length, frame[2] = 0;
	for (int tries = 0; write(session->port, frame, length + 3) < 0 && errno == EAGAIN && tries < 5000; tries++)
		poll(&(struct pollfd){session->port, POLLOUT, 0}, 1, 1);
}

static void forget(struct session *session)
{
	for (int which = 0; which < 2; which++)
		if (session->out[which].from >= 0 && !session->tty)
			close(session->out[which].from);
	if (session->in.to >= 0 && !session->tty)
		close(session->in.to);
	if (session->master >= 0)
		close(session->master);
	session->master = session->in.to = session->out[0].from = session->out[1].from = -1;
	session->pid = session->got = session->in.left = session->out[0].left = session->out[1].left = 0;
	session->in.ended = session->tty = session->ended = false;
	clear_command(&session->command);
}

static void begin(struct session *session)
{
	int fds[6] = {-1, -1, -1, -1, -1, -1}; // pairs, ours first: input, output, errors

	session->tty = session->command.tty;
	if (session->tty) {
		session->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
		ioctl(session->master, TIOCSPTLCK, &(int){0});
	}
	for (int which = 0; which < 3 && !session->tty; which++) {
		int ends[2] = {-1, -1};
		pipe2(ends, O_CLOEXEC);
		fds[2 * which] = ends[!which], fds[2 * which + 1] = ends[!!which];
		fcntl(fds[2 * which], F_SETFL, O_NONBLOCK);
	}
	session->pid = start_command(&session->command, session->master, fds);
	for (int which = 0; which < 3; which++)
		close(fds[2 * which + 1]);
	session->in.to = session->tty ? session->master : fds[0];
	session->out[0].from = session->tty ? session->master : fds[2];
	session->out[1].from = session->tty ? -1 : fds[4];
	if (!session->framed && session->in.from < 0 && !session->tty)
		session->in.ended = true, feed(session); // nobody will write
	if (!session->framed)
		report("started\n");
}

// What a command has written is with the host before its end is.
static void end(struct session *session)
{
	for (int which = 0; which < 2; which++)
		for (int idle = 0; idle < 10000 && (drain(session, which) || session->out[which].left); idle++)
			if (session->out[which].left)
				poll(&(struct pollfd){session->out[which].to, POLLOUT, 0}, 1, 1);
	if (!session->framed) {
		ending = session->code;
		return;
	}
	send_end(session);
	forget(session);
}

static void reap(void)
{
	int status;
	char bytes[64];

	while (read(wake[0], bytes, sizeof bytes) > 0)
		for (int each = 0; each < SESSIONS; each++)
			sessions[each].away = false; // a port's other end may have come or gone as well
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (int each = 0; each < SESSIONS; each++)
			if (sessions[each].pid == pid) {
				sessions[each].code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
				sessions[each].ended = true;
			}
	for (int each = 0; each < SESSIONS; each++)
		if (sessions[each].ended)
			end(&sessions[each]);
}

static void obey_frame(struct session *session, char type, char *content, int length)
{
	int rows, columns;

	if (type == 'S' && !session->pid && take_orders(&session->command, content, length, 0))
		begin(session);
	else if (type == 'K' && session->pid)
		kill(session->pid, atoi(content));
	else if (type == 'W' && session->master >= 0 && sscanf(content, "%d %d", &rows, &columns) == 2)
		resize(session->master, rows, columns);
	else if (type == 'E')
		session->in.ended = true, feed(session);
	else if (type == 'I') {
		memcpy(session->in.bytes, content, length);
		session->in.start = 0, session->in.left = length;
		feed(session);
	}
}

static void take_frames(struct session *session)
{
	ssize_t count = read(session->port, session->frame + session->got, CHUNK + 3 - session->got);
	if (count == 0) { // nobody is at the other end, or no more
		session->away = true;
		if (session->pid)
			kill(-session->pid, SIGKILL);
		session->got = 0;
	}
	session->got += count > 0 ? count : 0;
	while (session->got >= 3 && !session->in.left) {
		int length = (unsigned char)session->frame[1] | (unsigned char)session->frame[2] << 8;
		char content[CHUNK + 1];
		if (length > CHUNK)
			session->got = 0; // no frame of ours
		if (session->got < length + 3)
			return;
		char type = session->frame[0];
		memcpy(content, session->frame + 3, length);
		content[length] = 0;
		session->got -= length + 3;
		memmove(session->frame, session->frame + length + 3, session->got);
		obey_frame(session, type, content, length);
	}
}

static void take_input(struct session *session)
{
	ssize_t count = read(session->in.from, session->in.bytes, CHUNK);
	if (count > 0)
		session->in.start = 0, session->in.left = count;
	else if (count == 0 || errno != EAGAIN)
		session->in.ended = true;
	feed(session);
}

// Orders about the workload while it runs.
static void control(char key, char **field)
{
	if (key == 'k' && sessions->pid)
		kill(sessions->pid, atoi(field[0]));
	else if (key == 'z' && sessions->master >= 0)
		resize(sessions->master, atoi(field[0]), atoi(field[1]));
	else if (key == 's')
		report("said %.80s\n", field[0]);
}

static void take_from_host(void)
{
	char bytes[CHUNK];
	ssize_t count = read(orders_port, bytes, sizeof bytes);

	for (bool more = count > 0; more; count = 0) {
		more = take_orders(&sessions->command, bytes, count > 0 ? count : 0, control);
		if (more && !sessions->pid)
			begin(sessions);
	}
}

static void open_ports(void)
{
	for (int each = 0; each < SESSIONS; each++) {
		struct session *session = &sessions[each];
		session->port = session->master = session->in.from = session->in.to = -1;
		session->out[0].from = session->out[1].from = -1;
		if ((session->framed = each > 0)) {
			session->port = session->out[0].to = session->out[1].to = open_port(4 + each, 0);
			fcntl(session->port, F_SETOWN, getpid()); // SIGIO tells when somebody comes to the other end
			fcntl(session->port, F_SETFL, O_NONBLOCK | O_ASYNC);
		} else {
			session->out[0].to = open_port(2, 1000);
			session->out[1].to = open_port(3, 0);
			session->in.from = open_port(4, 0);
		}
	}
}

static int watch(struct pollfd *polled)
{
	int count = 2;

	polled[0] = (struct pollfd){wake[0], POLLIN, 0}, polled[1] = (struct pollfd){orders_port, POLLIN, 0};
	for (int each = 0; each < SESSIONS; each++) {
		struct session *session = &sessions[each];
		struct stream *in = &session->in;
		for (int which = 0; which < 2; which++)
			if (session->out[which].left)
				polled[count++] = (struct pollfd){session->out[which].to, POLLOUT, 0};
			else if (session->out[which].from >= 0)
				polled[count++] = (struct pollfd){session->out[which].from, POLLIN, 0};
		if (in->left)
			polled[count++] = (struct pollfd){in->to, POLLOUT, 0};
		else if (session->framed ? session->port >= 0 && !session->away : in->from >= 0 && !in->ended && session->pid)
			polled[count++] = (struct pollfd){session->framed ? session->port : in->from, POLLIN, 0};
	}
	return count;
}

int main(void)
{
	struct pollfd polled[2 + 3 * SESSIONS];

	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755"); // busy where the kernel has done so
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	pipe2(wake, O_CLOEXEC | O_NONBLOCK);
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_NOCLDSTOP}, 0);
	sigaction(SIGIO, &(struct sigaction){.sa_handler = on_signal}, 0);
	signal(SIGPIPE, SIG_IGN);
	orders_port = open_port(1, 10000);
	open_ports();
	report("ready\n");
	while (ending < 0) {
		poll(polled, watch(polled), -1);
		take_from_host();
		for (int each = 0; each < SESSIONS; each++) {
			struct session *session = &sessions[each];
			while (drain(session, 0) || drain(session, 1))
				;
			if (session->in.left)
				feed(session);
			else if (session->framed && session->port >= 0 && !session->away)
				take_frames(session);
			else if (!session->framed && session->in.from >= 0 && !session->in.ended && session->pid)
				take_input(session);
		}
		reap();
	}
	sync();
	report("exited %d\n", ending);
	reboot(RB_AUTOBOOT); // QEMU is told to end instead
	return 0;
}
