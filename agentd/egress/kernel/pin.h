/* SPDX-License-Identifier: MIT */
/**
 * pin -- an address and port that a sandbox may reach for a time, put into the kernel's
 *        sets pin4 and pin6 by the guard, which has no netlink and no capability.
 *
 * Theory   A pin is a datagram. The keeper makes a socket in the table's namespace and
 *          marks it as the table wants it (nft_pin_mark()); the guard sends on it. In the
 *          output hook the chain `pin` writes the datagram's bytes into the set
 *          and then it is dropped: when send(2) returns, the pin is in force, and no other
 *          process was waited for. A full set refuses it, which send(2) says (EPERM).
 * Layout   0: 4 or 6   1: which life, 0 to take it out   2: zero   4: the element's key
 * Life     rules have their times fixed, so there are a few, each four times the one
 *          before, and a pin has the first that is not shorter than its own. What is over
 *          is taken out by who put it there; the kernel's time is for when nobody is left.
 *          A pin that is there gets the new life, longer or shorter.
 * Mark     on a host EGRESS_PIN_MARK: no sandbox's packet comes by the host's output. In a
 *          sealed namespace chance, as a program with CAP_NET_RAW there may mark its own
 *          sockets, too. Nobody but root sees a mark; the chain takes it off before the
 *          packet gets to where it could be caught.
 * Trust    the set is one of several conditions: floor and denied networks come before it
 *          in the rules, and what it lets through goes to the guard, which decides again.
 */
#ifndef AGENTD_EGRESS_KERNEL_PIN_H
#define AGENTD_EGRESS_KERNEL_PIN_H

#include "agentd/egress/policy/ip.h"
#include "common/err.h"

struct pin {
    struct ip_addr addr;
    uint16_t port;
    uint32_t life_s; /* 0: take it out; at most PIN_LIFE_MAX_S */
};

#define PIN_LIVES      7
#define PIN_LIFE_MAX_S 4096
#define PIN_KEY_AT     4  /* in the datagram */
#define PIN_KEY4_LEN   16 /* tag . address . protocol . port, each padded to 4 bytes */
#define PIN_KEY6_LEN   28
#define PIN_NOTE_MAX   (PIN_KEY_AT + PIN_KEY6_LEN)

/** The n-th, in seconds, from 0. */
uint32_t pin_life_s(unsigned n);
/** The datagram; its length. 0: no such pin (family, port, life).
 *  @tag  nft_tag() of the sandbox */
size_t pin_note(uint8_t out[PIN_NOTE_MAX], uint32_t tag, const struct pin *p);

/** Make `fd`, a UDP socket of AF_INET in the table's namespace, one for pins. 0; -1 with
 *  *e: without CAP_NET_ADMIN or CAP_NET_RAW there.
 *  @mark  nft_pin_mark() */
int pin_tie(int fd, uint32_t mark, struct err *e);
/** 0: it is in force, or gone; or errno: EPERM the set is full, EINVAL no such pin. */
int pin_put(int fd, uint32_t tag, const struct pin *p);

#endif
