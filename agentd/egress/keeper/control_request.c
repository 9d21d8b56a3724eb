/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/control_request.h"

#include <limits.h>
#include <net/if.h>
#include <string.h>

#include "common/json.h"

enum key {
    KEY_OP = 1,
    KEY_NAME = 2,
    KEY_POLICY = 4,
    KEY_TIER = 8,
    KEY_PID = 16,
    KEY_NETNS = 32,
    KEY_IFACE = 64,
};
static const struct {
    const char *name;
    enum key key;
    enum json_type type;
} keys[] = {
    {"op", KEY_OP, JSON_STRING},         {"name", KEY_NAME, JSON_STRING},
    {"policy", KEY_POLICY, JSON_OBJECT}, {"tier", KEY_TIER, JSON_STRING},
    {"pid", KEY_PID, JSON_INT},          {"netns", KEY_NETNS, JSON_STRING},
    {"iface", KEY_IFACE, JSON_STRING},
};
static const struct {
    const char *name;
    unsigned must, may;
} ops[CONTROL_OP_COUNT] = {
    [CONTROL_ATTACH] = {"attach", KEY_NAME | KEY_POLICY | KEY_TIER,
                        KEY_PID | KEY_NETNS | KEY_IFACE},
    [CONTROL_RELOAD] = {"reload", KEY_NAME | KEY_POLICY, 0},
    [CONTROL_DETACH] = {"detach", KEY_NAME, 0},
    [CONTROL_STATUS] = {"status", 0, KEY_NAME},
};

static int read_keys(const struct json *o, unsigned *ret_seen, struct err *e)
{
    const struct json *v;
    const char *name;
    size_t pos = 0;

    while (json_next(o, &pos, &name, &v)) {
        size_t i = 0;

        while (i < COUNT_OF(keys) && strcmp(keys[i].name, name) != 0)
            i++;
        if (i == COUNT_OF(keys))
            return err_set(e, ERR_CONFIG, "a request has no \"%.32s\"", name);
        if (json_type(v) != keys[i].type)
            return err_set(e, ERR_CONFIG, "\"%s\" is a %s, not a %s", name,
                           json_type_name(keys[i].type), json_type_name(json_type(v)));
        *ret_seen |= keys[i].key;
    }
    return 0;
}

static int read_op(const struct json *o, unsigned seen, enum control_op *ret,
                   struct err *e)
{
    const char *op;

    if (!(seen & KEY_OP))
        return err_set(e, ERR_CONFIG, "a request needs \"op\"");
    op = json_str(json_get(o, "op"));
    for (size_t i = 0; i < CONTROL_OP_COUNT; i++) {
        unsigned allowed = KEY_OP | ops[i].must | ops[i].may;

        if (strcmp(ops[i].name, op) != 0)
            continue;
        for (size_t j = 0; j < COUNT_OF(keys); j++) {
            if (seen & ~allowed & keys[j].key)
                return err_set(e, ERR_CONFIG, "%s takes no \"%s\"", op, keys[j].name);
            if (ops[i].must & ~seen & keys[j].key)
                return err_set(e, ERR_CONFIG, "%s needs \"%s\"", op, keys[j].name);
        }
        *ret = (enum control_op)i;
        return 0;
    }
    return err_set(e, ERR_CONFIG, "no operation \"%.32s\"", op);
}

static int read_name(const struct json *o, char ret[EGRESS_NAME_MAX + 1], struct err *e)
{
    const char *name = json_str(json_get(o, "name"));

    if (sandbox_name_check(name, e) < 0)
        return -1;
    memcpy(ret, name, strlen(name) + 1);
    return 0;
}

static int read_place(const struct json *o, unsigned seen, struct control_request *r,
                      struct err *e)
{
    const char *tier = json_str(json_get(o, "tier"));

    if (strcmp(tier, "sealed") != 0 && strcmp(tier, "veth") != 0)
        return err_set(e, ERR_CONFIG, "tier \"%.16s\" is neither sealed nor veth", tier);
    r->tier = strcmp(tier, "veth") == 0 ? EGRESS_VETH : EGRESS_SEALED;
    if (!(seen & (KEY_PID | KEY_NETNS)))
        return err_set(e, ERR_CONFIG, "attach needs \"pid\" or \"netns\"");
    if (seen & KEY_PID) {
        int64_t pid = json_int(json_get(o, "pid"));

        if (pid < 1 || pid > INT_MAX)
            return err_set(e, ERR_CONFIG, "%lld is no process", (long long)pid);
        r->pid = (pid_t)pid;
    }
    if (seen & KEY_NETNS) {
        r->netns = json_str(json_get(o, "netns"));
        if (r->netns[0] != '/' || strlen(r->netns) > CONTROL_NETNS_MAX)
            return err_set(e, ERR_CONFIG, "\"netns\" is no absolute path");
    }
    if (seen & KEY_IFACE) {
        r->iface = json_str(json_get(o, "iface"));
        if (r->iface[0] == '\0' || strlen(r->iface) >= IF_NAMESIZE)
            return err_set(e, ERR_CONFIG, "\"iface\" is no name of an interface");
        if (r->tier == EGRESS_SEALED)
            return err_set(e, ERR_CONFIG, "a sealed sandbox has no interface");
    }
    return 0;
}

static int read_all(struct span line, struct control_request *r, struct err *e)
{
    unsigned seen = 0;

    if (json_type(r->root) != JSON_OBJECT)
        return err_set(e, ERR_CONFIG, "a request is an object");
    if (read_keys(r->root, &seen, e) < 0 || read_op(r->root, seen, &r->op, e) < 0)
        return -1;
    if ((seen & KEY_NAME) && read_name(r->root, r->name, e) < 0)
        return -1;
    if ((seen & KEY_POLICY) && json_find(line, "policy", &r->policy) < 0)
        return err_set(e, ERR_CONFIG, "\"policy\" is written in a way that is not read");
    return r->op == CONTROL_ATTACH ? read_place(r->root, seen, r, e) : 0;
}

int control_request_parse(struct span line, struct control_request *ret, struct err *e)
{
    struct control_request r = {.op = CONTROL_STATUS};

    if (line.len > CONTROL_LINE_MAX)
        return err_set(e, ERR_CONFIG, "a request of more than %d bytes",
                       CONTROL_LINE_MAX);
    r.root = json_parse(line, CONTROL_LINE_MAX, e);
    if (!r.root)
        return -1;
    if (read_all(line, &r, e) < 0) {
        control_request_done(&r);
        return -1;
    }
    *ret = r;
    return 0;
}

void control_request_done(struct control_request *r)
{
    json_free(r->root);
    r->root = NULL;
}
