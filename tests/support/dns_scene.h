/* SPDX-License-Identifier: MIT */
/**
 * dns_scene -- a guard's ward with an upstream name server of ours (UDP and TCP
 *              on loopback) and a keeper at the other end of a real channel,
 *              all on one loop.
 *
 * The upstream does what the first label says:
 *   one        203.0.113.7, 2001:db8::7          mixed    203.0.113.7, 10.0.0.1, 169.254.169.254
 *   short      the same for 1 s                  private  10.0.0.1, fd00::1
 *   long       the same for 10^6 s               rebind   203.0.113.9, then 127.0.0.1
 *   v4         203.0.113.7, no IPv6              slow6    203.0.113.7, silence for IPv6
 *   alias      CNAME real.other, 203.0.113.8     nx, none, servfail, refused
 *   silent     nothing                           cut      TC; 203.0.113.7 over TCP
 *   thousand   TC; 1000 addresses over TCP       cutoff   TC; TCP closes
 *   wrongid    another id, then nothing          other    an answer to another question
 *   loop       CNAMEs in a circle                pointer  a name that points at itself
 *   garbage    half of an answer                 formerr  FORMERR for EDNS, else 203.0.113.7
 *   any other  203.0.113.1
 */
#ifndef TESTS_SUPPORT_DNS_SCENE_H
#define TESTS_SUPPORT_DNS_SCENE_H

#include "agentd/egress/guard/ward.h"
#include "tests/support/pin_sink.h"

struct dns_upstream {
    struct loop *loop;
    int udp, tcp, conn;
    struct loop_io *udp_io, *tcp_io, *conn_io;
    uint16_t port;
    char servers[32];
    unsigned asked, asked_tcp, rebinds;
    char last[256]; /* the name that was asked last, lower case */
};
void dns_upstream_open(struct dns_upstream *u, struct loop *l);
void dns_upstream_close(struct dns_upstream *u);

struct dns_scene {
    struct guard guard;
    struct ward ward;
    struct dns_upstream up;
    struct loop_timer limit; /* a test that takes 30 s has failed */
    /* the keeper and its kernel */
    int keeper;
    struct loop_io *keeper_io;
    bool is_silent; /* answers nothing */
    unsigned n_wants;
    int reply_fd; /* borrowed; copies are given for WANT_REPLY; -1: refused */
    struct pin_sink pins;
    int audit; /* memory file of the records */
};
/** @policy  JSON; names, pins and dns are the test's to make */
void dns_scene_open(struct dns_scene *s, const char *policy);
void dns_scene_close(struct dns_scene *s);
/** Replace the policy. The ward's parts are not told. */
void dns_scene_policy(struct dns_scene *s, const char *policy);
/** Run the loop until *flag. */
void dns_scene_until(struct dns_scene *s, const bool *flag);
/** Run it for so long. */
void dns_scene_for(struct dns_scene *s, unsigned ms);
/** All records so far. */
const char *dns_scene_records(struct dns_scene *s, char out[65536]);
/** A policy that allows these names: "a.example", "*.b.example:80". NULL ends. */
const char *dns_scene_allow(char out[4096], const char *const names[]);

#endif
