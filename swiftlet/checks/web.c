/* A small server of one page over HTTP/1.1, until somebody asks for /quit: the host fetches it through a port. */
#include "check.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE_BYTES 262144
#define IDLE_SECONDS 120.0 /* nobody came: the host has given up */

int web_port;

/* A page that no cache or copy could have by chance. */
static const char *page(size_t *size)
{
    static char text[PAGE_BYTES];
    struct random random = {4};
    size_t at = (size_t) snprintf(text, sizeof text, "<!doctype html>\n<title>guest-check</title>\n<pre>\n");
    for (int column = 0; at < sizeof text - 8; column++)
        text[at++] = column % 100 == 99 ? '\n' : (char) ('a' + random_below(&random, 26));
    memcpy(text + at, "\n</pre>\n", 8);
    *size = at + 8;
    return text;
}

void print_page(void)
{
    size_t size;
    const char *text = page(&size);
    fwrite(text, 1, size, stdout);
}

static void send_all(int peer, const char *text, size_t size)
{
    while (size) {
        ssize_t sent = send(peer, text, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* whoever asked has left */
        text += sent;
        size -= (size_t) sent;
    }
}

/* Answer one request; returns whether it was to be the last. */
static int serve(int peer)
{
    char request[4096] = "", head[200];
    size_t done = 0, size;
    while (done < sizeof request - 1 && !strstr(request, "\r\n\r\n")) {
        struct pollfd waiting = {peer, POLLIN, 0};
        ssize_t count = poll(&waiting, 1, 5000) == 1 ? recv(peer, request + done, sizeof request - 1 - done, 0) : 0;
        if (count <= 0)
            return 0;
        done += (size_t) count;
    }
    int last = !strncmp(request, "GET /quit ", 10);
    const char *text = page(&size);
    if (last)
        size = 0;
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=us-ascii\r\nContent-Length: %zu\r\n"
                          "Connection: close\r\n\r\n",
                          size);
    send_all(peer, head, (size_t) length);
    send_all(peer, text, size);
    shutdown(peer, SHUT_WR);
    return last;
}

static void serve_page(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t) web_port)};
    int one = 1, requests = 0, last = 0;
    int listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    HOLDS(bind(listener, (struct sockaddr *) &address, sizeof address) == 0, "bind to port %d: %s", web_port,
          strerror(errno));
    MUST(listen(listener, 16));
    printf("{\"ready\": \"web.page\", \"port\": %d}\n", web_port);
    fflush(stdout);
    for (double end = seconds_now() + IDLE_SECONDS; !last; requests++) {
        struct pollfd waiting = {listener, POLLIN, 0};
        HOLDS(poll(&waiting, 1, (int) ((end - seconds_now()) * 1e3)) == 1, "nobody came for the page");
        int peer = MUST(accept(listener, NULL, NULL));
        last = serve(peer);
        close(peer);
    }
    value("requests", requests);
}

const struct check WEB[] = {
    {"web.page", serve_page},
    {NULL, NULL},
};
