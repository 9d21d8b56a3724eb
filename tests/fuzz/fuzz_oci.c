/* SPDX-License-Identifier: MIT */
/* Any bytes as a container's state and as a bundle's config.json: what is taken of a
 * state keeps its rules, and a changed config is the same when it is changed again. */
#include <stdlib.h>
#include <string.h>

#include "agentd/egress/keeper/oci.h"
#include "agentd/egress/keeper/oci_config.h"
#include "common/json.h"

#define MUST(x)                                                                          \
    do {                                                                                 \
        if (!(x))                                                                        \
            abort();                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void state(struct span text)
{
    AUTO(buf_done)
    struct buf b = BUF_INIT;
    char again[EGRESS_NAME_MAX + 1];
    struct oci_state s;
    struct json *j;
    struct err e;

    if (oci_state_read(text, &s, &e) < 0)
        return;
    MUST(s.pid > 0 && oci_policy_check(s.policy, NULL) == 0);
    MUST(host_id_parse(span_str(s.name), again) == 0 && !strcmp(again, s.name));
    MUST(oci_request(&s, span_str("{}"), &b, NULL) == 0);
    j = json_parse(buf_span(&b), SIZE_MAX, NULL);
    MUST(j && !strcmp(json_str(json_get(j, "name")), s.name));
    json_free(j);
}

static void config(struct span text, const char *policy)
{
    const struct oci_change c = {.program = "/sbin/agentd", .policy = policy};
    AUTO(buf_done)
    struct buf once = BUF_INIT;
    AUTO(buf_done)
    struct buf twice = BUF_INIT;
    struct err e;

    if (oci_config_change(text, &c, &once, &e) < 0) {
        MUST(once.len == 0);
        return;
    }
    MUST(oci_config_change(buf_span(&once), &c, &twice, NULL) == 0);
    MUST(span_eq(buf_span(&once), buf_span(&twice)));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    state(span_of(p, n));
    config(span_of(p, n), "/etc/agentd/p.json");
    config(span_of(p, n), NULL);
    return 0;
}
