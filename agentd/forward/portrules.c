/* SPDX-License-Identifier: MIT */
#include "agentd/forward/portrules.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cdefs.h"

static const char *const verdict_text[PORTRULES_VERDICT_COUNT] = {
    [PORTRULES_PUBLISH] = "published",
    [PORTRULES_EXCLUDED] = "excluded",
    [PORTRULES_NOT_LISTED] = "not in the list of ports",
    [PORTRULES_OWN] = "the agent's own",
    [PORTRULES_SSH] = "ssh's",
    [PORTRULES_DEBUGGER] = "a debugger's",
    [PORTRULES_EPHEMERAL] = "in the range for outgoing connections",
};

/* Whoever reaches one of these runs code in the program behind it. */
static const struct port_range debugger_ports[] = {
    {2345, 2345}, /* Delve */
    {5005, 5005}, /* Java, JDWP as every manual shows it */
    {5678, 5678}, /* debugpy */
    {9229, 9230}, /* Node.js --inspect, and its second process */
};
static const char *const debugger_names[] = {"dlv", "gdbserver", "lldb-server"};
/* OpenSSH 9.8 and later hand each connection to sshd-session, never the listener. */
static const char *const ssh_names[] = {"sshd", "dropbear"};

/* The kernel's own default, for a root without /proc. */
#define EPHEMERAL_FIRST 32768
#define EPHEMERAL_LAST  60999

const char *portrules_why(enum portrules_verdict v)
{
    return (unsigned)v < PORTRULES_VERDICT_COUNT ? verdict_text[v] : "?";
}

static bool is_named(const struct process *p, const char *const *name, size_t n)
{
    size_t i;

    for (i = 0; p && i < n; i++) {
        if (strcmp(p->name, name[i]) == 0)
            return true;
    }
    return false;
}

static bool is_debugger_port(uint16_t port)
{
    size_t i;

    for (i = 0; i < COUNT_OF(debugger_ports); i++) {
        if (port >= debugger_ports[i].first && port <= debugger_ports[i].last)
            return true;
    }
    return false;
}

enum portrules_verdict portrules_judge(const struct portrules *r, uint16_t port,
                                       const struct process *holder)
{
    if (port_list_has(&r->exclude, port))
        return PORTRULES_EXCLUDED;
    if (r->has_only)
        return port_list_has(&r->only, port) ? PORTRULES_PUBLISH : PORTRULES_NOT_LISTED;
    if (holder && holder->pid != 0 && holder->pid == r->own_pid)
        return PORTRULES_OWN;
    if (port == 22 || is_named(holder, ssh_names, COUNT_OF(ssh_names)))
        return PORTRULES_SSH;
    if (is_debugger_port(port) ||
        is_named(holder, debugger_names, COUNT_OF(debugger_names)))
        return PORTRULES_DEBUGGER;
    if (port >= r->ephemeral_first && port <= r->ephemeral_last)
        return PORTRULES_EPHEMERAL;
    return PORTRULES_PUBLISH;
}

bool portrules_may_name(const struct portrules *r, uint16_t port)
{
    return port != 0 && !port_list_has(&r->exclude, port);
}

void portrules_never(const struct portrules *r, struct port_list *ret)
{
    uint32_t port, first = 0;
    bool is_never;

    memset(ret, 0, sizeof *ret);
    for (port = 1; port <= 65536 && ret->n < PORT_LIST_MAX; port++) {
        is_never = port <= 65535 &&
                   portrules_judge(r, (uint16_t)port, NULL) != PORTRULES_PUBLISH;
        if (is_never && first == 0) {
            first = port;
        } else if (!is_never && first != 0) {
            ret->range[ret->n].first = (uint16_t)first;
            ret->range[ret->n++].last = (uint16_t)(port - 1);
            first = 0;
        }
    }
}

void portrules_ephemeral(struct portrules *r, int fd)
{
    char text[64], *end;
    unsigned long first, last;
    ssize_t n;

    r->ephemeral_first = EPHEMERAL_FIRST;
    r->ephemeral_last = EPHEMERAL_LAST;
    if (fd < 0)
        return;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* opened for reading: nothing can be lost */
    if (n <= 0)
        return;
    text[n] = '\0';
    first = strtoul(text, &end, 10);
    last = strtoul(end, NULL, 10);
    if (first >= 1 && first <= last && last <= 65535) {
        r->ephemeral_first = (uint16_t)first;
        r->ephemeral_last = (uint16_t)last;
    }
}
