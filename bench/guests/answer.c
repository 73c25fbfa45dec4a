// answer PORT [ADDRESS PORT]: a service that says "ready" to whoever asks by HTTP, and is ready when it runs.
//
// With an address it tells so by a datagram there, again and again until somebody has come: the host need not ask a
// guest that is not there yet, which would give that one more to do the longer it takes.
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AGAIN_MILLISECONDS = 20, PATIENCE_MILLISECONDS = 1000 };

static void answer(int peer)
{
	static const char reply[] = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nready\n";
	char request[2048] = "";
	size_t got = 0;

	while (got < sizeof request - 1 && !strstr(request, "\r\n\r\n")) {
		ssize_t count = poll(&(struct pollfd){peer, POLLIN, 0}, 1, PATIENCE_MILLISECONDS) == 1
			? read(peer, request + got, sizeof request - 1 - got) : 0;
		if (count <= 0)
			break;
		got += count;
	}
	send(peer, reply, sizeof reply - 1, MSG_NOSIGNAL);
	shutdown(peer, SHUT_WR);
	close(peer);
}

int main(int count, char **words)
{
	struct sockaddr_in here = {.sin_family = AF_INET}, there = {.sin_family = AF_INET};
	int listener = socket(AF_INET, SOCK_STREAM, 0), teller = socket(AF_INET, SOCK_DGRAM, 0);
	int visited = count < 4;

	if (count < 2)
		return 2;
	here.sin_port = htons(atoi(words[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 64)) {
		perror("answer");
		return 1;
	}
	if (!visited) {
		there.sin_port = htons(atoi(words[3]));
		inet_pton(AF_INET, words[2], &there.sin_addr);
	}
	for (;;) {
		if (!visited)
			sendto(teller, "ready", 5, 0, (struct sockaddr *)&there, sizeof there);
		if (poll(&(struct pollfd){listener, POLLIN, 0}, 1, visited ? -1 : AGAIN_MILLISECONDS) == 1) {
			int peer = accept(listener, 0, 0);
			visited = 1;
			if (peer >= 0)
				answer(peer);
		}
	}
}
