/* SPDX-License-Identifier: MIT */
/**
 * dnsmsg -- DNS messages: questions as a sandbox sends them and answers as a name server
 *           does, read strictly; questions and replies written. Pure.
 *
 *   +--------+-------+----+----+----+----+----------+---------+-----------+------------+
 *   | id  16 | flags | QD | AN | NS | AR | question | answers | authority | additional |
 *   +--------+-------+----+----+----+----+----------+---------+-----------+------------+
 *
 * A question: exactly one, class IN, no record but one OPT, no compression, no byte
 * behind it. An answer: to the question that was asked, whole, with compression pointers
 * that only go backwards, a chain of CNAMEs that begins at the question's name, has no
 * fork and is no longer than DNSMSG_CHAIN_MAX. What is read of it is addresses and the
 * least lifetime. A reply gives the addresses to the name that was asked for, without the
 * CNAMEs between: the client needs no other name, the names between are not for it to
 * ask, and the reply stays within one datagram. The question is sent back byte for byte,
 * so its letters keep their case.
 *
 * Source   RFC 1035, 2181 (lifetimes), 2308, 6891 (EDNS), 8914 (extended errors), 9267
 *          (what others did wrong in names).
 */
#ifndef AGENTD_EGRESS_GUARD_DNSMSG_H
#define AGENTD_EGRESS_GUARD_DNSMSG_H

#include <stdbool.h>
#include <stdint.h>

#include "agentd/egress/guard/dnsname.h"
#include "agentd/egress/policy/ip.h"
#include "common/cdefs.h"
#include "common/span.h"

#define DNSMSG_WIRE_MAX     DNSNAME_WIRE_MAX
#define DNSMSG_TEXT_MAX     DNSNAME_TEXT_MAX
#define DNSMSG_QUESTION_MAX 1232 /* bytes of a question; cookies and padding included */
#define DNSMSG_UDP_MIN      512  /* what a client without EDNS takes */
#define DNSMSG_UDP_MAX      1232 /* what no path cuts into fragments (DNS flag day 2020) */
#define DNSMSG_ADDRS_MAX    32   /* addresses kept of an answer, however many there are */
#define DNSMSG_CHAIN_MAX    8    /* CNAMEs */
#define DNSMSG_REPLY_MAX    2048 /* any reply that dnsmsg_reply() writes */

enum dns_type {
    DNS_A = 1,
    DNS_CNAME = 5,
    DNS_AAAA = 28,
    DNS_OPT = 41,
};

enum dns_rcode {
    DNS_NOERROR,
    DNS_FORMERR,
    DNS_SERVFAIL,
    DNS_NXDOMAIN,
    DNS_NOTIMP,
    DNS_REFUSED,
    DNS_BADVERS = 16,
};

/** Extended errors (RFC 8914 section 4). */
enum dns_ede {
    DNS_EDE_NONE = -1,
    DNS_EDE_OTHER = 0,
    DNS_EDE_BLOCKED = 15,    /* a rule says no */
    DNS_EDE_FILTERED = 17,   /* the answer was refused, not the name */
    DNS_EDE_PROHIBITED = 18, /* no rule says yes */
    DNS_EDE_UNREACHABLE = 22,
};

enum dnsmsg_result {
    DNSMSG_OK,
    DNSMSG_SILENT, /* no header, or an answer: replying could make a loop */
    DNSMSG_FORMERR, /* the rest is answered with this; without question unless has_question */
    DNSMSG_NOTIMP,  /* an opcode other than QUERY */
    DNSMSG_REFUSED, /* a class other than IN */
    DNSMSG_BADVERS, /* an EDNS version other than 0 */
    DNSMSG_RESULT_COUNT
};
const char *dnsmsg_result_name(enum dnsmsg_result r);

struct dns_question {
    uint16_t id;
    uint8_t opcode;
    bool has_question;
    bool wants_recursion, no_checking, wants_dnssec; /* RD, CD, DO: sent back */
    bool has_edns;
    uint16_t udp_size; /* at most what a reply over UDP may have: 512..DNSMSG_UDP_MAX */
    uint16_t type, class;
    bool is_host;      /* `text` is a canonical host name, such as policies speak of */
    uint16_t wire_len; /* with the root's 0 */
    uint8_t wire[DNSMSG_WIRE_MAX]; /* as it came */
    char text[DNSMSG_TEXT_MAX];    /* lower case; other bytes as \DDD; "." for the root */
};
/** @ret  filled as far as it was understood, whatever is returned */
enum dnsmsg_result dnsmsg_parse_question(struct span msg, struct dns_question *ret);

struct dns_reply {
    enum dns_rcode rcode;
    const struct ip_addr *addr; /* those of the question's type are used */
    size_t n;
    uint32_t ttl_s;
    enum dns_ede extended;
    const char *text; /* of the extended error; NULL: none */
};
/** The reply's length. Over `max` (at least DNSMSG_UDP_MIN, at most DNSMSG_REPLY_MAX) the
 *  text is cut first, then addresses are left out and TC is set. */
size_t dnsmsg_reply(const struct dns_question *q, const struct dns_reply *r, size_t max,
                    uint8_t out[DNSMSG_REPLY_MAX]);

/** A question to a name server: recursion desired, EDNS with DNSMSG_UDP_MAX. Its OPT
 *  record is the last DNSMSG_OPT_SIZE bytes. The length; 0: this is no name. */
#define DNSMSG_OPT_SIZE 11
size_t dnsmsg_ask(const char *name, uint16_t type, uint16_t id,
                  uint8_t out[DNSMSG_UDP_MIN]);

struct dns_answer {
    enum dns_rcode rcode; /* but NOERROR and NXDOMAIN the asker takes it as failure */
    struct ip_addr addr[DNSMSG_ADDRS_MAX];
    size_t n;       /* kept */
    size_t n_seen;  /* in the answer */
    uint32_t ttl_s; /* the least of what was used */
};
/** 0; -1: not an answer to this question, or broken in any way. @id -1: any. */
int dnsmsg_parse_answer(struct span msg, int id, const char *name, uint16_t type,
                        struct dns_answer *ret);

#endif
