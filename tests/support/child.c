/* SPDX-License-Identifier: MIT */
#include "tests/support/child.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    abort();
}

static void nap(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&t, NULL);
}

static int bind_any(int type, uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("bind");
    *ret_port = ntohs(a.sin_port);
    return fd;
}

uint16_t child_free_port(void)
{
    uint16_t port;

    close(bind_any(SOCK_STREAM, &port));
    return port;
}

static pid_t fork_child(void)
{
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (pid == 0)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing behind */
    return pid;
}

void child_tcp(struct child *c, child_conn_fn *fn, const void *arg)
{
    int one = 1, listener = bind_any(SOCK_STREAM, &c->port);

    if (listen(listener, 64) < 0)
        die("listen");
    c->pid = fork_child();
    if (c->pid == 0) {
        for (;;) {
            int fd = accept(listener, NULL, NULL);

            if (fd < 0)
                _exit(1);
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            fn(fd, arg);
            close(fd);
        }
    }
    close(listener);
}

void child_udp(struct child *c, child_conn_fn *fn, const void *arg)
{
    int fd = bind_any(SOCK_DGRAM, &c->port);

    c->pid = fork_child();
    if (c->pid == 0) {
        fn(fd, arg);
        _exit(0);
    }
    close(fd);
}

bool child_wait_port(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int i;

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (i = 0; i < 500; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int rc = connect(fd, (struct sockaddr *)&a, sizeof(a));

        close(fd);
        if (rc == 0)
            return true;
        nap(20);
    }
    return false;
}

bool child_program(struct child *c, const char *const argv[])
{
    int null;

    if (access(argv[0], X_OK) < 0)
        return false;
    c->pid = fork_child();
    if (c->pid == 0) {
        (void)setpgid(0, 0); /* some fork servers of their own */
        null = open("/dev/null", O_RDWR);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (!child_wait_port(c->port)) {
        (void)fprintf(stderr, "%s does not listen on port %u\n", argv[0], c->port);
        abort();
    }
    return true;
}

void child_stop(struct child *c)
{
    if (c->pid > 0) {
        (void)kill(-c->pid, SIGKILL); /* the group, where it has one */
        (void)kill(c->pid, SIGKILL);
        (void)waitpid(c->pid, NULL, 0);
    }
    c->pid = 0;
}

void child_end(struct child *c)
{
    int i;

    if (c->pid > 0)
        (void)kill(c->pid, SIGTERM);
    for (i = 0; i < 150 && c->pid > 0; i++) {
        if (waitpid(c->pid, NULL, WNOHANG) != 0)
            c->pid = 0;
        else
            nap(20);
    }
    child_stop(c);
}

int child_read_head(int fd, char *buf, int cap)
{
    int n = 0;

    while (n < cap - 1 && read(fd, buf + n, 1) == 1) {
        buf[++n] = '\0';
        if (n >= 4 && strcmp(buf + n - 4, "\r\n\r\n") == 0)
            return n;
    }
    return -1;
}

bool child_read(int fd, void *buf, int n)
{
    return recv(fd, buf, (size_t)n, MSG_WAITALL) == n;
}

void child_write(int fd, const void *p, int n)
{
    (void)send(fd, p, (size_t)n, MSG_NOSIGNAL);
}

void child_write_slowly(int fd, const void *p, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        child_write(fd, (const char *)p + i, 1);
        nap(1);
    }
}

static void run_shell(const char *dir, const char *script)
{
    pid_t pid = fork_child();
    int status = -1;

    if (pid == 0) {
        if (chdir(dir) < 0)
            _exit(126);
        (void)execl("/bin/sh", "sh", "-ec", script, (char *)NULL);
        _exit(127);
    }
    if (waitpid(pid, &status, 0) < 0 || status != 0)
        die("making certificates");
}

void child_certs_make(struct child_certs *c)
{
    const char *tmp = getenv("TMPDIR");

    (void)snprintf(c->dir, sizeof(c->dir), "%.40s/agentd-test-XXXXXX",
                   tmp ? tmp : "/tmp");
    if (!mkdtemp(c->dir))
        die("mkdtemp");
    (void)snprintf(c->ca, sizeof(c->ca), "%s/ca.pem", c->dir);
    (void)snprintf(c->cert, sizeof(c->cert), "%s/cert.pem", c->dir);
    (void)snprintf(c->key, sizeof(c->key), "%s/key.pem", c->dir);
    run_shell(
        c->dir,
        "exec 2>/dev/null\n"
        "ec='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'\n"
        "openssl req -x509 $ec -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test CA' "
        "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign\n"
        "openssl req -new $ec -keyout key.pem -out req.pem -subj /CN=preview.localhost\n"
        "echo 'subjectAltName=DNS:*.preview.localhost,DNS:preview.localhost,"
        "DNS:localhost' >ext\n"
        "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial "
        "-days 2 -extfile ext -out cert.pem\n");
}

void child_remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
    (void)rmdir(dir);
}
