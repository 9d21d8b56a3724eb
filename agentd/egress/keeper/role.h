/* SPDX-License-Identifier: MIT */
/**
 * role -- giving up what a process does not need, in named stages, for good.
 *
 *   keeper   CAP_NET_ADMIN, CAP_SYS_ADMIN (setns), CAP_SYS_PTRACE (other users' /proc/PID/ns and fd),
 *            CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE (the guard
 *            answers DNS from port 53), CAP_NET_BROADCAST (news of the sandboxes' nftables);
 *            reads no hostile bytes
 *   guard    nothing; own user where root started it; no_new_privs; seccomp: sockets AF_INET, AF_INET6
 *            only, no open, no exec, no netlink, no ptrace, no setns
 *   sandbox  see sandbox_role()
 *
 * Lists are libseccomp's, kept in role.c. A call that is not in the guard's list
 * ends it (SIGSYS), and the keeper says so. Sanitizer builds leave the guard's list
 * out, and say so.
 */
#ifndef AGENTD_EGRESS_KEEPER_ROLE_H
#define AGENTD_EGRESS_KEEPER_ROLE_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

/** Those of the list that it has; the rest leaves the bounding set too (what is run
 *  as root by the keeper and makes no user namespace of its own has no more than
 *  these either). */
int role_keeper(struct err *e);
/**
 * In the child, before exec: user and groups (when root), a user namespace of its own
 * (when not), capabilities, no_new_privs, dumpable off, RLIMIT_CORE 0, parent-death
 * signal. Single-threaded (a forked child is). The group becomes the number of the user.
 * @uid  0: keep ours, in a user namespace of its own
 */
int role_guard_before_exec(uid_t uid, struct err *e);
/** In guard_main(), when all that needs opening is open. */
int role_guard_seal(struct err *e);
/**
 * For the sandbox's first process, as the last thing before exec: bounding set (as root:
 * only CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID of its own user namespace
 * stay), no_new_privs, seccomp: socket() and socketpair() only AF_UNIX, AF_INET, AF_INET6
 * and AF_NETLINK with NETLINK_ROUTE (EAFNOSUPPORT else); EPERM: io_uring, new user
 * namespaces, setns, mount, ptrace of nothing but its own, bpf, perf, keyrings, kexec,
 * modules, TIOCSTI; no foreign architectures.
 */
int sandbox_role(bool is_root, struct err *e);

#endif
