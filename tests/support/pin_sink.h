/* SPDX-License-Identifier: MIT */
/**
 * pin_sink -- stands where the kernel's sets are, for tests of who tells it pins: a socket
 *             whose other end takes the notes of pin.h apart.
 */
#ifndef TESTS_SUPPORT_PIN_SINK_H
#define TESTS_SUPPORT_PIN_SINK_H

#include <stddef.h>

#include "agentd/egress/kernel/pin.h"

#define PIN_SINK_MAX 4096
#define PIN_SINK_TAG 0x46000007u

struct pin_sink {
    int fd; /* the guard's end, for struct ward */
    int other;
    struct pin pin[PIN_SINK_MAX]; /* all that were told; life 0: taken out since */
    size_t n;
    unsigned notes;
};
void pin_sink_open(struct pin_sink *s);
void pin_sink_close(struct pin_sink *s);
/** The life that the kernel was last told for it; 0: it has none. */
uint32_t pin_sink_life(struct pin_sink *s, const char *addr, uint16_t port);
/** How many notes came in all. */
unsigned pin_sink_notes(struct pin_sink *s);
/** How many it has now. */
size_t pin_sink_count(struct pin_sink *s);
/** The life that is told for a time. */
uint32_t pin_sink_as(uint32_t life_s);

#endif
