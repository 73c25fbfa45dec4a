// Emulated, each path of a kernel costs when it is taken for the first time. A machine that waits to be a clone takes
// those of a service that answers before it is asked: a connection over its loopback, a datagram to its gateway.
#include "init.h"
#include <arpa/inet.h>
#include <netinet/in.h>

enum { WAIT_MS = 50, DISCARD = 9 }; // a port where nobody listens; the gateway says so, or keeps its peace

static int open_socket(int type)
{
	int sock = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	struct timeval most = {.tv_usec = WAIT_MS * 1000}; // of accept and connect too: a guest may filter its packets

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
	return sock;
}

static void answer_once(void)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr *place = (struct sockaddr *)&here;
	socklen_t size = sizeof here;
	int listener = open_socket(SOCK_STREAM), caller = open_socket(SOCK_STREAM), called = -1;
	char byte = 0;

	if (bind(listener, place, size) == 0 && listen(listener, 1) == 0 && getsockname(listener, place, &size) == 0)
		if (connect(caller, place, size) == 0 && (called = accept4(listener, 0, 0, SOCK_CLOEXEC)) >= 0)
			if (write(caller, &byte, 1) == 1 && read(called, &byte, 1) == 1 && write(called, &byte, 1) == 1)
				read(caller, &byte, 1);
	close(called);
	close(caller);
	close(listener);
}

void rehearse(const char *gateway)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(DISCARD)};
	int sock = open_socket(SOCK_DGRAM);

	inet_pton(AF_INET, gateway, &there.sin_addr);
	if (connect(sock, (struct sockaddr *)&there, sizeof there) == 0 && write(sock, "", 1) == 1)
		poll(&(struct pollfd){sock, POLLIN, 0}, 1, WAIT_MS);
	close(sock);
	answer_once();
}
