/* SPDX-License-Identifier: MIT */
#include "agentd/forward/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pid_t pid_parse(const char *text)
{
    char *end;
    long v;

    if (text[0] < '1' || text[0] > '9')
        return 0;
    v = strtol(text, &end, 10);
    return *end == '\0' && v > 0 && v <= INT_MAX ? (pid_t)v : 0;
}

/* "socket:[1234]" -> 1234, anything else -> 0. */
static uint64_t inode_parse(const char *text)
{
    static const char head[] = "socket:[";
    char *end;
    unsigned long long v;

    if (strncmp(text, head, sizeof head - 1) != 0)
        return 0;
    v = strtoull(text + sizeof head - 1, &end, 10);
    return end[0] == ']' && end[1] == '\0' ? v : 0;
}

/* What a process calls itself ends up in logs, on terminals and in the server's hands. */
static void name_clean(char *name)
{
    for (; *name; name++) {
        if (*name < 0x20 || *name > 0x7e)
            *name = '?';
    }
}

void process_name(pid_t pid, char ret[PROCESS_NAME_MAX + 1])
{
    char path[64], link[PATH_MAX];
    const char *base;
    ssize_t n;
    int fd;

    ret[0] = '\0';
    (void)snprintf(path, sizeof path, "/proc/%ld/comm", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    n = read(fd, ret, PROCESS_NAME_MAX);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (n <= 0)
        n = 0;
    else if (ret[n - 1] == '\n')
        n--;
    ret[n] = '\0';
    /* Newer Node.js gives its main thread this name, and comm is the main thread's. */
    if (strcmp(ret, "MainThread") == 0 || strcmp(ret, "node-MainThread") == 0) {
        (void)snprintf(path, sizeof path, "/proc/%ld/exe", (long)pid);
        n = readlink(path, link, sizeof link - 1);
        if (n > 0) {
            link[n] = '\0';
            base = strrchr(link, '/');
            base = base ? base + 1 : link;
            n = (ssize_t)strnlen(base, PROCESS_NAME_MAX);
            memcpy(ret, base, (size_t)n);
            ret[n] = '\0';
        }
    }
    name_clean(ret);
}

/* Look through one process' descriptors; how many sockets were found there. */
static size_t scan_process(pid_t pid, const uint64_t *inode, size_t n,
                           struct process *ret)
{
    char path[64], link[64], name[PROCESS_NAME_MAX + 1];
    const struct dirent *de;
    size_t i, found = 0;
    ssize_t len;
    uint64_t ino;
    DIR *d;

    (void)snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    d = opendir(path);
    if (!d)
        return 0; /* gone, or another user's */
    while ((de = readdir(d)) != NULL) {
        if (de->d_name[0] == '.')
            continue;
        len = readlinkat(dirfd(d), de->d_name, link, sizeof link - 1);
        if (len <= 0)
            continue;
        link[len] = '\0';
        ino = inode_parse(link);
        for (i = 0; ino != 0 && i < n; i++) {
            if (inode[i] != ino || (ret[i].pid != 0 && ret[i].pid <= pid))
                continue;
            if (found == 0)
                process_name(pid, name);
            if (ret[i].pid == 0)
                found++;
            ret[i].pid = pid;
            memcpy(ret[i].name, name, sizeof name);
        }
    }
    (void)closedir(d);
    return found;
}

void process_lookup(const uint64_t *inode, size_t n, struct process *ret)
{
    const struct dirent *de;
    size_t found = 0;
    pid_t pid;
    DIR *d;

    memset(ret, 0, n * sizeof *ret);
    if (n == 0 || n > PROCESS_LOOKUP_MAX)
        return;
    d = opendir("/proc");
    if (!d)
        return;
    /* /proc lists processes by rising pid, so the first that has it is the parent. */
    while (found < n && (de = readdir(d)) != NULL) {
        pid = pid_parse(de->d_name);
        if (pid != 0)
            found += scan_process(pid, inode, n, ret);
    }
    (void)closedir(d);
}
