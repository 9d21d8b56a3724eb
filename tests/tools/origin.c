/* SPDX-License-Identifier: MIT */
/**
 * origin -- the app behind a tunnel in benchmarks and big transfers: a thread a
 * connection, as fast as the sockets go.
 *
 *   origin [ADDRESS:]PORT      port 0: the kernel's choice; prints "listening PORT"
 *   GET  /bytes/N              N bytes, content-length, a repeating pattern
 *   GET  /sha/N                the SHA-256 that /bytes/N would have, in hex
 *   POST anything              reads the body, answers "LENGTH SHA256\n"
 *   POST /sink                 reads the body without hashing it, answers "LENGTH\n"
 *   GET  anything else         1024 bytes
 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/sock.h"

enum {
    HEAD_MAX = 65536,
    BLOCK = 262144
};

static uint8_t pattern[BLOCK];

struct reader {
    int fd;
    size_t len, pos;
    char p[HEAD_MAX + 1];
};

static EVP_MD_CTX *sha_new(void)
{
    EVP_MD_CTX *h = EVP_MD_CTX_new();

    (void)EVP_DigestInit_ex(h, EVP_sha256(), NULL);
    return h;
}

static void sha_hex(EVP_MD_CTX *h, char out[65])
{
    uint8_t md[32];

    (void)EVP_DigestFinal_ex(h, md, NULL);
    EVP_MD_CTX_free(h);
    for (int i = 0; i < 32; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", md[i]);
}

static int send_all(int fd, const void *p, size_t n, int flags)
{
    const char *at = p;

    while (n > 0) {
        ssize_t w = send(fd, at, n, MSG_NOSIGNAL | flags);

        if (w <= 0)
            return -1;
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

static int answer_text(int fd, const char *text)
{
    char out[512];
    int n = snprintf(out, sizeof(out),
                     "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     strlen(text), text);

    return send_all(fd, out, (size_t)n, 0);
}

static int answer_bytes(int fd, unsigned long long total)
{
    char head[160];
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                     "Content-Length: %llu\r\n\r\n",
                     total);
    unsigned long long at = 0;

    if (send_all(fd, head, (size_t)n, total > 0 ? MSG_MORE : 0) < 0)
        return -1;
    while (at < total) {
        size_t from = (size_t)(at % BLOCK);
        size_t k = BLOCK - from;

        if (k > total - at)
            k = (size_t)(total - at);
        if (send_all(fd, pattern + from, k, 0) < 0)
            return -1;
        at += k;
    }
    return 0;
}

static int answer_sha(int fd, unsigned long long total)
{
    EVP_MD_CTX *h = sha_new();
    char hex[65];

    for (unsigned long long at = 0; at < total;) {
        size_t k = BLOCK;

        if (k > total - at)
            k = (size_t)(total - at);
        (void)EVP_DigestUpdate(h, pattern, k);
        at += k;
    }
    sha_hex(h, hex);
    return answer_text(fd, hex);
}

/* Read more; 0 at the end. */
static size_t fill(struct reader *r)
{
    ssize_t n;

    if (r->pos > 0) {
        memmove(r->p, r->p + r->pos, r->len - r->pos);
        r->len -= r->pos;
        r->pos = 0;
    }
    n = r->len < HEAD_MAX ? recv(r->fd, r->p + r->len, HEAD_MAX - r->len, 0) : 0;
    if (n <= 0)
        return 0;
    r->len += (size_t)n;
    return (size_t)n;
}

/* Take `want` bytes of body into the hash (or nowhere); how many came. */
static unsigned long long take(struct reader *r, unsigned long long want, EVP_MD_CTX *h)
{
    unsigned long long got = 0;

    while (got < want) {
        size_t k = r->len - r->pos;

        if (k == 0) {
            if (fill(r) == 0)
                break;
            continue;
        }
        if (k > want - got)
            k = (size_t)(want - got);
        if (h != NULL)
            (void)EVP_DigestUpdate(h, r->p + r->pos, k);
        r->pos += k;
        got += k;
    }
    return got;
}

static int take_line(struct reader *r, char line[64])
{
    size_t n = 0;
    char c = 0;

    while (c != '\n') {
        if (r->pos == r->len && fill(r) == 0)
            return -1;
        c = r->p[r->pos++];
        if (n < 63)
            line[n++] = c;
    }
    line[n] = '\0';
    return 0;
}

static unsigned long long take_chunked(struct reader *r, EVP_MD_CTX *h)
{
    unsigned long long total = 0, size;
    char line[64];

    while (take_line(r, line) == 0 && (size = strtoull(line, NULL, 16)) > 0) {
        total += take(r, size, h);
        if (take_line(r, line) < 0)
            break;
    }
    while (take_line(r, line) == 0 && line[0] != '\r')
        continue;
    return total;
}

static int answer_post(struct reader *r, const char *head, bool wants_hash)
{
    const char *len = strcasestr(head, "\r\ncontent-length:");
    const char *te = strcasestr(head, "\r\ntransfer-encoding: chunked");
    EVP_MD_CTX *h = wants_hash ? sha_new() : NULL;
    unsigned long long n = 0;
    char hex[65] = "", text[128];

    if (strcasestr(head, "\r\nexpect: 100-continue") != NULL &&
        send_all(r->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, 0) < 0)
        return -1;
    if (te != NULL)
        n = take_chunked(r, h);
    else if (len != NULL)
        n = take(r, strtoull(len + 17, NULL, 10), h);
    if (h != NULL)
        sha_hex(h, hex);
    (void)snprintf(text, sizeof(text), "%llu %s\n", n, hex);
    return answer_text(r->fd, text);
}

static int answer(struct reader *r, const char *head)
{
    if (strncmp(head, "POST ", 5) == 0 || strncmp(head, "PUT ", 4) == 0)
        return answer_post(r, head, strncmp(head, "POST /sink", 10) != 0);
    if (strncmp(head, "GET /bytes/", 11) == 0)
        return answer_bytes(r->fd, strtoull(head + 11, NULL, 10));
    if (strncmp(head, "GET /sha/", 9) == 0)
        return answer_sha(r->fd, strtoull(head + 9, NULL, 10));
    return answer_bytes(r->fd, 1024);
}

static void *serve(void *arg)
{
    struct reader *r = calloc(1, sizeof(*r));
    char *head = malloc(HEAD_MAX + 1);
    const char *end;

    r->fd = (int)(intptr_t)arg;
    for (;;) {
        r->p[r->len] = '\0';
        end = strstr(r->p + r->pos, "\r\n\r\n");
        if (end == NULL) {
            if (fill(r) == 0)
                break;
            continue;
        }
        size_t n = (size_t)(end + 4 - (r->p + r->pos));
        memcpy(head, r->p + r->pos, n);
        head[n] = '\0';
        r->pos += n;
        if (answer(r, head) < 0)
            break;
    }
    close(r->fd);
    free(head);
    free(r);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sock_addr a;
    struct err e;
    char text[SOCK_TEXT_MAX];
    int fd;

    if (argc != 2)
        return 2;
    (void)snprintf(text, sizeof(text), strchr(argv[1], ':') ? "%s" : "127.0.0.1:%s",
                   argv[1]);
    for (size_t i = 0; i < BLOCK; i++)
        pattern[i] = (uint8_t)(i * 131 + (i >> 8) * 17);
    if (sock_parse(text, &a, &e) < 0 || (fd = sock_listen(&a, &e)) < 0) {
        (void)fprintf(stderr, "origin: %s\n", e.msg);
        return 1;
    }
    (void)sock_local(fd, &a);
    (void)fcntl(fd, F_SETFL, 0);
    (void)printf("listening %u\n", sock_port(&a));
    (void)fflush(stdout);
    for (;;) {
        int on = 1, c = accept(fd, NULL, NULL);
        pthread_t t;

        if (c < 0)
            continue;
        (void)setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (pthread_create(&t, NULL, serve, (void *)(intptr_t)c) == 0)
            (void)pthread_detach(t);
        else
            close(c);
    }
}
