// swiftlet-init: process 1 of a Linux microVM. Takes orders from the host over virtio-serial, starts the workload,
// moves what commands read and write, and tells how each ended.
//
// Port 1 carries orders in and reports out. Ports 2, 3 and 4 are the workload's output, errors and input. A further
// command comes with a port of its own and speaks in frames: type, length (2 bytes, little-endian), content.
#include "init.h"

enum { SESSIONS = 7 }; // the workload and six more commands at a time

// One direction: what has been taken from one descriptor and not yet been given to the other.
struct stream {
	int from, to, start, left;
	bool ended;
	char bytes[CHUNK + 3];
};

struct session {
	int port, master, got, code;
	pid_t pid;
	bool framed, tty;
	struct stream in, out[2];
	struct orders orders;
	char frame[CHUNK + 4];
};

static struct session sessions[SESSIONS];
static int orders_port = -1, wake[2], ending = -1;
static int devices; // where the kernel has them, whatever the workload mounts over /dev
static bool rooted;
static int button = -1, at_button, at_end = RB_AUTOBOOT; // a host of ours is told to end instead

static void report(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vdprintf(orders_port < 0 ? 2 : orders_port, format, list);
	va_end(list);
}

// What the host wants to hear. Not by printf: a clone would take its way for the first time.
static void say(const char *word)
{
	char text[88] = "said ";
	write(orders_port, text, stpcpy(stpncpy(text + 5, word, 80), "\n") - text);
}

// Ports appear one after another while the driver hears of them: the first ones have to be waited for.
static int open_port(int number, int milliseconds)
{
	static int device = -1;
	char name[48];

	for (int port; milliseconds >= 0; milliseconds--, usleep(1000)) {
		DIR *folder = device < 0 ? fdopendir(openat(devices, ".", O_RDONLY | O_CLOEXEC)) : 0;
		for (struct dirent *entry; folder && (entry = readdir(folder));)
			sscanf(entry->d_name, "vport%dp", &device);
		if (folder)
			closedir(folder);
		snprintf(name, sizeof name, "vport%dp%d", device, number);
		if ((port = openat(devices, name, O_RDWR | O_NONBLOCK | O_CLOEXEC)) >= 0)
			return port;
		if (!milliseconds)
			break;
	}
	return -1;
}

static void on_signal(int number)
{
	int kept = errno;
	write(wake[1], "", 1); // when it is full, there is a byte in it already
	errno = kept;
}

// What could be moved on of what a stream holds; where nobody takes it any more, it is dropped.
static int give(struct stream *stream)
{
	ssize_t sent = stream->to < 0 ? stream->left : write(stream->to, stream->bytes + stream->start, stream->left);
	sent = sent < 0 && errno != EAGAIN ? stream->left : sent < 0 ? 0 : sent;
	stream->start += sent, stream->left -= sent;
	return sent;
}

// Take what a command has written, as far as the port takes it. False when nothing could be moved.
static bool drain(struct session *session, int which)
{
	struct stream *out = &session->out[which];
	int header = session->framed ? 3 : 0;

	if (!out->left && out->from >= 0) {
		ssize_t count = read(out->from, out->bytes + 3, CHUNK);
		if (count <= 0) {
			if (count < 0 && (errno == EAGAIN || errno == EINTR))
				return false;
			if (!session->tty) // of a terminal nobody has the other end open at the moment
				close(out->from);
			out->from = -1;
			return false;
		}
		memcpy(out->bytes, (char[]){which ? 'R' : 'O', count & 255, count >> 8}, 3);
		out->start = 3 - header, out->left = count + header;
	}
	return out->left && give(out) > 0;
}

// Give a command what has come for its input, or its end.
static void feed(struct session *session)
{
	struct stream *in = &session->in;

	if (in->left)
		give(in);
	if (in->left || !in->ended || in->to < 0)
		return;
	if (session->tty)
		write(in->to, "\4", 1);
	else
		close(in->to);
	in->to = -1;
}

static void take(struct stream *in, const char *bytes, int count)
{
	memcpy(in->bytes, bytes, count);
	in->start = 0, in->left = count;
}

static void forget(struct session *session)
{
	int fds[] = {session->in.to, session->out[0].from, session->out[1].from};

	for (int each = 0; each < 3 && !session->tty; each++)
		close(fds[each]);
	close(session->master);
	session->master = session->in.to = session->out[0].from = session->out[1].from = -1;
	session->pid = session->got = session->in.left = session->out[0].left = session->out[1].left = 0;
	session->in.ended = session->tty = false;
	close(session->port);
	session->port = -1;
	session->orders.length = session->orders.seen = 0;
}

// What a command has written is with the host before its end is.
static void end(struct session *session)
{
	struct stream *last = &session->out[0];

	for (int which = 0; which < 2; which++)
		for (int idle = 0; idle < 10000 && (drain(session, which) || session->out[which].left); idle++)
			if (session->out[which].left)
				poll(&(struct pollfd){session->out[which].to, POLLOUT, 0}, 1, 1);
	if (!session->framed) {
		ending = session->code;
		return;
	}
	last->left = sprintf(last->bytes + 3, "%d", session->code) + 3, last->start = 0;
	memcpy(last->bytes, (char[]){'X', last->left - 3, 0}, 3);
	for (int idle = 0; idle < 5000 && last->left && !give(last); idle++)
		poll(&(struct pollfd){last->to, POLLOUT, 0}, 1, 1);
	forget(session);
}

static void start(struct session *session)
{
	int fds[6]; // pairs, ours first: of input, output, errors

	if (session->tty) {
		session->master = openat(devices, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
		ioctl(session->master, TIOCSPTLCK, &(int){0});
		int other = ioctl(session->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		memcpy(fds, (int[]){session->master, other, session->master, dup(other), -1, dup(other)}, sizeof fds);
	} else
		for (int which = 0; which < 3; which++) {
			int ends[2] = {-1, -1};
			pipe2(ends, O_CLOEXEC);
			fds[2 * which] = ends[!which], fds[2 * which + 1] = ends[!!which];
			fcntl(fds[2 * which], F_SETFL, O_NONBLOCK);
		}
	if (!(session->pid = fork())) {
		setsid();
		for (int which = 0; which < 3; which++)
			dup2(fds[2 * which + 1], which);
		if (session->tty)
			ioctl(0, TIOCSCTTY, 0);
		become(&session->orders);
	}
	bool none = session->pid < 0;
	if (none)
		dprintf(fds[5], "swiftlet: no process can be made: %s\n", strerror(errno));
	for (int which = 0; which < 3; which++)
		close(fds[2 * which + 1]);
	session->in.to = fds[0], session->out[0].from = fds[2], session->out[1].from = fds[4];
	if (!session->framed && session->in.from < 0 && !session->tty)
		session->in.ended = true, feed(session); // nobody will write
	if (!session->framed)
		report("started\n");
	if (none)
		session->pid = 0, session->code = 126, end(session);
}

static void resize(int terminal, char **field)
{
	struct winsize size = {.ws_row = atoi(field[0]), .ws_col = atoi(field[1])};
	if (size.ws_row && size.ws_col)
		ioctl(terminal, TIOCSWINSZ, &size);
}

// A further command is about to come by a port of this number.
static void expect(int number)
{
	for (struct session *session = sessions + 1; session < sessions + SESSIONS; session++)
		if (session->port < 0 && !session->pid) {
			struct pollfd port = {open_port(number, 2000), 0, POLLHUP};
			session->port = session->out[0].to = session->out[1].to = port.fd;
			for (int left = 1000; left && port.revents; left--) // until the driver has heard that somebody is there
				usleep(1000), poll(&port, 1, 0);
			return;
		}
}

// Do what is whole of the orders that have come for a session.
static void follow(struct session *session)
{
	char key, *field[FIELDS];

	while (ending < 0 && next(&session->orders, &session->orders.seen, &key, field))
		if (key == 'y')
			session->tty = true;
		else if (key == 'x' && !session->pid)
			start(session);
		else if (key == 'k' && session->pid)
			kill(session->pid, atoi(field[0]));
		else if (key == 'z' && session->master >= 0)
			resize(session->master, field);
		else if (key == 'o' && !session->framed)
			expect(atoi(field[0]));
		else if (key == 's')
			say(field[0]);
		else if (key == 'F' && !session->framed) {
			if (hold(*field[0] == '1'))
				say("held");
		} else if (key == 'R' && !session->framed)
			rehearse(field[0]);
		else if (key == 'w' && !session->framed)
			at_end = strtoul(field[0], 0, 0), at_button = atoi(field[1]);
		else if (!session->framed && obey(key, field) < 0) {
			report("failed %c %.80s %.80s: %s\n", key, field[0], field[1], strerror(errno));
			bool remount = key == 'm' && strtoul(field[3], 0, 0) & MS_REMOUNT;
			ending = rooted && !remount ? ending : 125; // the workload's root cannot be put together, or closed again
		} else
			rooted |= key == 'p';
	if (session->pid) { // its own orders have been used up
		session->orders.length -= session->orders.seen;
		memmove(session->orders.text, session->orders.text + session->orders.seen, session->orders.length);
		session->orders.seen = 0;
	}
}

static void reap(void)
{
	int status;
	char bytes[64];
	bool signalled = false;

	while (read(wake[0], bytes, sizeof bytes) > 0)
		signalled = true;
	for (pid_t pid; signalled && (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		for (int each = 0; each < SESSIONS; each++)
			if (sessions[each].pid == pid) {
				sessions[each].code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
				end(&sessions[each]);
			}
}

static void take_frames(struct session *session)
{
	ssize_t count = read(session->port, session->frame + session->got, CHUNK + 3 - session->got);
	if (count == 0 && session->pid) // nobody is at the other end any more
		kill(-session->pid, SIGKILL);
	if (count == 0)
		close(session->port), session->port = -1;
	session->got += count > 0 ? count : 0;
	while (session->got >= 3 && !session->in.left) {
		int length = (unsigned char)session->frame[1] | (unsigned char)session->frame[2] << 8;
		if (length > CHUNK)
			session->got = 0; // no frame of ours
		if (session->got < length + 3)
			return;
		if (session->frame[0] == 'S')
			add(&session->orders, session->frame + 3, length);
		else if (session->frame[0] == 'I')
			take(&session->in, session->frame + 3, length);
		session->in.ended |= session->frame[0] == 'E';
		session->got -= length + 3;
		memmove(session->frame, session->frame + length + 3, session->got);
		follow(session);
		feed(session);
	}
}

static void take_plain(struct session *session)
{
	char bytes[CHUNK];
	ssize_t count = read(session->in.from, bytes, CHUNK);
	if (count > 0)
		take(&session->in, bytes, count);
	session->in.ended = count == 0 || (count < 0 && errno != EAGAIN);
	feed(session);
}

static void open_ports(void)
{
	orders_port = open_port(1, 10000);
	sessions->out[0].to = open_port(2, 100), sessions->out[1].to = open_port(3, 0), sessions->in.from = open_port(4, 0);
}

// A disk image says what it has to say on the console. False in a machine of a host of ours.
static bool is_alone(void)
{
	int console;

	if (!read_image(&sessions->orders, &console))
		return false;
	sessions->out[0].to = sessions->out[1].to = dup2(console, 2);
	button = open("/dev/input/event0", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	follow(sessions);
	return true;
}

static bool listens(struct session *session)
{
	return session->framed ? session->port >= 0 : session->in.from >= 0 && !session->in.ended && session->pid;
}

static int watch(struct pollfd *polled)
{
	int count = 2;

	polled[0] = (struct pollfd){wake[0], POLLIN, 0}, polled[1] = (struct pollfd){orders_port < 0 ? button : orders_port, POLLIN, 0};
	for (struct session *session = sessions; session < sessions + SESSIONS; session++) {
		for (struct stream *out = session->out; out < session->out + 2; out++)
			if (out->left || out->from >= 0)
				polled[count++] = (struct pollfd){out->left ? out->to : out->from, out->left ? POLLOUT : POLLIN, 0};
		if (session->in.left)
			polled[count++] = (struct pollfd){session->in.to, POLLOUT, 0};
		else if (listens(session))
			polled[count++] = (struct pollfd){session->framed ? session->port : session->in.from, POLLIN, 0};
	}
	return count;
}

int main(void)
{
	struct pollfd polled[2 + 3 * SESSIONS];
	char bytes[CHUNK];

	mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755"); // busy where the kernel has done so
	devices = open("/dev", O_PATH | O_CLOEXEC);
	mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	pipe2(wake, O_CLOEXEC | O_NONBLOCK);
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_signal, .sa_flags = SA_NOCLDSTOP | SA_RESTART}, 0);
	signal(SIGPIPE, SIG_IGN);
	for (struct session *each = sessions; each < sessions + SESSIONS; each++) {
		each->port = each->master = each->in.from = each->in.to = each->out[0].from = each->out[1].from = -1;
		each->framed = each > sessions;
	}
	if (!is_alone())
		open_ports();
	while (ending < 0) {
		poll(polled, watch(polled), held_for());
		if (held_for() == 0)
			hold(false);
		ssize_t count = read(orders_port, bytes, sizeof bytes);
		if (count > 0)
			add(&sessions->orders, bytes, count), follow(sessions);
		if (button >= 0 && read(button, bytes, sizeof bytes) > 0 && sessions->pid)
			kill(sessions->pid, at_button);
		for (struct session *session = sessions; session < sessions + SESSIONS; session++) {
			while (drain(session, 0) || drain(session, 1))
				;
			if (session->in.left)
				feed(session);
			else if (listens(session))
				session->framed ? take_frames(session) : take_plain(session);
		}
		reap();
	}
	sync();
	report("exited %d\n", ending);
	reboot(at_end);
	return 0;
}
