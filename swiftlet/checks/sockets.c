/* Sockets: the internet protocols over loopback, Unix sockets, descriptors sent from one process to another. */
#include "check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BYTES (1 << 20)

static struct sockaddr_in loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* A socket bound to a free port of 127.0.0.1, and which. */
static int bound(int type, struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int one = socket(AF_INET, type, 0);
    HOLDS(one >= 0, "a socket of the internet protocols: %s", strerror(errno));
    *address = loopback();
    HOLDS(bind(one, (struct sockaddr *) address, size) == 0, "bind to 127.0.0.1: %s", strerror(errno));
    MUST(getsockname(one, (struct sockaddr *) address, &size));
    return one;
}

/* A child sends a mebibyte that no two positions of share a pattern; we compare and confirm. */
static void transfer(int listener, struct sockaddr *address, socklen_t size, int family)
{
    static unsigned char bytes[BYTES], found[BYTES];
    struct random random = {3};
    for (int index = 0; index < BYTES; index++)
        bytes[index] = (unsigned char) random_next(&random);
    MUST(listen(listener, 16));
    pid_t child = fork_or_break();
    if (child == 0) {
        int ours = MUST(socket(family, SOCK_STREAM, 0));
        HOLDS(connect(ours, address, size) == 0, "connect: %s", strerror(errno));
        for (ssize_t done = 0; done < BYTES;)
            done += MUST(send(ours, bytes + done, (size_t) (BYTES - done), 0));
        MUST(shutdown(ours, SHUT_WR));
        HOLDS(MUST(recv(ours, found, 2, MSG_WAITALL)) == 2 && !memcmp(found, "ok", 2), "no answer came back");
        _exit(0);
    }
    struct pollfd waiting = {listener, POLLIN, 0};
    HOLDS(MUST(poll(&waiting, 1, 10000)) == 1 || result_told(), "nobody connects");
    int theirs = MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    ssize_t done = 0, count;
    while ((count = MUST(recv(theirs, found + done, (size_t) (BYTES - done), 0))) > 0)
        done += count;
    HOLDS(done == BYTES && !memcmp(bytes, found, BYTES), "%zd of %d bytes came, or other ones", done, BYTES);
    MUST(send(theirs, "ok", 2, MSG_NOSIGNAL));
    end_well(child);
}

static void tcp(void)
{
    struct sockaddr_in address;
    int one = 1, found = 0;
    socklen_t size = sizeof found;
    int listener = bound(SOCK_STREAM, &address);
    MUST(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    MUST(getsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &found, &size));
    HOLDS(found, "TCP_NODELAY was set and is not");
    transfer(listener, (struct sockaddr *) &address, sizeof address, AF_INET);
    struct sockaddr_in nobody;
    close(bound(SOCK_STREAM, &nobody));
    REFUSED(connect(MUST(socket(AF_INET, SOCK_STREAM, 0)), (struct sockaddr *) &nobody, sizeof nobody), ECONNREFUSED);
}

static void udp(void)
{
    struct sockaddr_in server, client, from;
    socklen_t size = sizeof from;
    char text[64] = "";
    int one = bound(SOCK_DGRAM, &server), other = bound(SOCK_DGRAM, &client);
    MUST(sendto(other, "first", 5, 0, (struct sockaddr *) &server, sizeof server));
    MUST(sendto(other, "second", 6, 0, (struct sockaddr *) &server, sizeof server));
    struct pollfd waiting = {one, POLLIN, 0};
    HOLDS(MUST(poll(&waiting, 1, 5000)) == 1, "no datagram comes");
    ssize_t count = MUST(recvfrom(one, text, sizeof text, 0, (struct sockaddr *) &from, &size));
    HOLDS(count == 5, "a datagram of 5 bytes came with %zd", count);
    HOLDS(from.sin_port == client.sin_port && !memcmp(text, "first", 5), "a datagram is from another, or another");
    HOLDS(MUST(recv(one, text, sizeof text, 0)) == 6, "the second datagram is not as it was sent");
    REFUSED(recv(one, text, sizeof text, MSG_DONTWAIT), EAGAIN);
}

static struct sockaddr_un place(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    return address;
}

static void unix_stream(void)
{
    struct sockaddr_un address = place("socket");
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int pair[2];
    scratch();
    int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    HOLDS(bind(listener, (struct sockaddr *) &address, sizeof address) == 0, "bind to a path: %s", strerror(errno));
    transfer(listener, (struct sockaddr *) &address, sizeof address, AF_UNIX);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size));
    HOLDS(peer.pid == getpid() && peer.uid == geteuid(), "a socket says its peer is process %d", (int) peer.pid);
}

static void unix_datagram(void)
{
    struct sockaddr_un address = place("socket");
    char text[16] = "";
    scratch();
    int one = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), other = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(one, (struct sockaddr *) &address, sizeof address));
    MUST(sendto(other, "first", 5, 0, (struct sockaddr *) &address, sizeof address));
    MUST(sendto(other, "second", 6, 0, (struct sockaddr *) &address, sizeof address));
    HOLDS(MUST(recv(one, text, sizeof text, 0)) == 5 && !memcmp(text, "first", 5), "a datagram came as %s", text);
    HOLDS(MUST(recv(one, text, sizeof text, 0)) == 6, "the second datagram is not as it was sent");
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    MUST(send(pair[0], "ab", 2, 0));
    MUST(send(pair[0], "cd", 2, 0));
    HOLDS(MUST(recv(pair[1], text, sizeof text, 0)) == 2, "packets ran together");
}

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
};

static void send_descriptor(int socket, int file)
{
    union control control = {0};
    struct iovec data = {.iov_base = (char[]) {"d"}, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr) {.cmsg_len = CMSG_LEN(sizeof file), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &file, sizeof file);
    MUST(sendmsg(socket, &message, 0));
}

static int receive_descriptor(int socket)
{
    union control control = {0};
    char byte;
    int file;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    HOLDS(MUST(recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) == 1 || result_told(), "no message came");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    HOLDS(header && header->cmsg_type == SCM_RIGHTS, "a message came without its descriptor");
    memcpy(&file, CMSG_DATA(header), sizeof file);
    return file;
}

static void descriptors(void)
{
    int pair[2], ends[2];
    char text[8] = "";
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid_t child = fork_or_break();
    if (child == 0) {
        MUST(pipe(ends));
        send_descriptor(pair[1], ends[0]);
        MUST(write(ends[1], "inside", 6));
        _exit(0);
    }
    close(pair[1]);
    int file = receive_descriptor(pair[0]);
    end_well(child);
    HOLDS(MUST(read(file, text, sizeof text)) == 6 && !memcmp(text, "inside", 6), "a sent descriptor is another one");
}

const struct check SOCKETS[] = {
    {"sockets.tcp", tcp},
    {"sockets.udp", udp},
    {"sockets.unix_stream", unix_stream},
    {"sockets.unix_datagram", unix_datagram},
    {"sockets.descriptors", descriptors},
    {NULL, NULL},
};
