/* SPDX-License-Identifier: MIT */
/**
 * hello -- the small app of `make demo`: a page that shows what reached it, and a clock
 * that it sends as server-sent events. One process, poll(2), nothing but libc.
 *
 *   hello [PORT]     listens on 127.0.0.1, port 3000 unless told; 0 is the kernel's
 * choice
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CLIENTS = 64,
    HEAD = 8192
};

struct client {
    int fd;
    int is_stream;
    size_t len;
    char head[HEAD + 1];
};

static struct client clients[CLIENTS];
static unsigned visits;

static const char page[] =
    "<!doctype html><html lang=en><meta charset=utf-8>"
    "<meta name=viewport content='width=device-width'><title>It works</title><style>"
    "body{font:17px/1.6 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;"
    "place-items:center;background:#0f172a;color:#e2e8f0}"
    "main{max-width:42rem;padding:2rem}h1{font-size:2.6rem;margin:0 0 .4rem}"
    "b{color:#38bdf8}code{background:#1e293b;padding:.1rem .4rem;border-radius:.3rem}"
    "dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1rem;margin:1.6rem 0}"
    "dt{color:#94a3b8}dd{margin:0}</style><main><h1>It works.</h1>"
    "<p>This page is served by a small program on <b>127.0.0.1:%u</b>. It has no public "
    "address: it came through one connection that its agent dialled out.</p>"
    "<dl><dt>You asked for<dd><code id=u></code><dt>The app saw<dd><code>Host: %s</code>"
    "<dt>Visits<dd>%u<dt>The app's clock<dd><code id=t>waiting for the first event</code>"
    "</dl><p>The clock is a stream of server-sent events: each one arrives when it is "
    "sent."
    "</main><script>u.textContent=location.origin;"
    "new EventSource('/clock').onmessage=e=>t.textContent=e.data</script>";

static void drop(struct client *c)
{
    close(c->fd);
    c->fd = -1;
}

static void say(struct client *c, const char *text, size_t n)
{
    if (send(c->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
        drop(c);
}

static void answer(struct client *c, unsigned port)
{
    static char body[sizeof(page) + 512], out[sizeof(body) + 256];
    char host[128] = "-";
    const char *h = strstr(c->head, "\nHost: ");
    int n;

    if (strncmp(c->head, "GET /clock", 10) == 0) {
        static const char head[] =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            "Cache-Control: no-store\r\n\r\n";
        c->is_stream = 1;
        say(c, head, sizeof(head) - 1);
        return;
    }
    if (h != NULL)
        (void)sscanf(h + 7, "%127[-a-zA-Z0-9.:[]]", host);
    n = snprintf(body, sizeof(body), page, port, host, ++visits);
    n = snprintf(out, sizeof(out),
                 "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
                 "Cache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s",
                 n, body);
    say(c, out, (size_t)n);
}

static void hear(struct client *c, unsigned port)
{
    ssize_t n = recv(c->fd, c->head + c->len, HEAD - c->len, 0);
    const char *end;

    if (n <= 0) {
        drop(c);
        return;
    }
    c->len += (size_t)n;
    c->head[c->len] = '\0';
    while (c->fd >= 0 && !c->is_stream && (end = strstr(c->head, "\r\n\r\n")) != NULL) {
        answer(c, port);
        c->len -= (size_t)(end + 4 - c->head);
        memmove(c->head, end + 4, c->len + 1);
    }
}

static void welcome(int listener)
{
    int fd = accept(listener, NULL, NULL);

    for (size_t i = 0; fd >= 0 && i < CLIENTS; i++)
        if (clients[i].fd < 0) {
            clients[i] = (struct client){.fd = fd};
            return;
        }
    if (fd >= 0)
        close(fd);
}

static void tick(void)
{
    char text[64];
    time_t now = time(NULL);
    size_t n = strftime(text, sizeof(text), "data: %H:%M:%S UTC\n\n", gmtime(&now));

    for (size_t i = 0; i < CLIENTS; i++)
        if (clients[i].fd >= 0 && clients[i].is_stream)
            say(&clients[i], text, n);
}

static void serve(int listener, unsigned port)
{
    time_t last = 0;

    for (;;) {
        struct pollfd p[CLIENTS + 1] = {{.fd = listener, .events = POLLIN}};

        for (size_t i = 0; i < CLIENTS; i++)
            p[i + 1] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        if (poll(p, CLIENTS + 1, 250) < 0 && errno != EINTR)
            return;
        if (time(NULL) != last) {
            last = time(NULL);
            tick();
        }
        for (size_t i = 0; i < CLIENTS; i++)
            if (p[i + 1].revents != 0 && clients[i].fd == p[i + 1].fd)
                hear(&clients[i], port);
        if (p[0].revents != 0)
            welcome(listener);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port =
                                htons((uint16_t)atoi(argc > 1 ? argv[1] : "3000")),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        perror("hello");
        return 1;
    }
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    (void)printf("listening %u\n", ntohs(a.sin_port));
    (void)fflush(stdout);
    serve(fd, ntohs(a.sin_port));
    return 1;
}
