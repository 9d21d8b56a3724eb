/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/veth_record.h"

#include <string.h>

#include "common/json.h"

#define MAC_TEXT 17 /* "02:00:00:00:00:01" */

static int put_mac(struct buf *out, const char *key, const uint8_t mac[6])
{
    return buf_addf(out, ",\"%s\":\"%02x:%02x:%02x:%02x:%02x:%02x\"", key, mac[0], mac[1],
                    mac[2], mac[3], mac[4], mac[5]);
}

static int put_name(struct buf *out, const char *key, const char *name)
{
    return buf_addf(out, "\"%s\":", key) < 0 || json_put_str(out, span_str(name)) < 0 ||
                   buf_adds(out, ",") < 0
               ? -1
               : 0;
}

int veth_record_print(const struct veth *v, struct buf *out)
{
    char text[IP_TEXT_MAX];

    if (buf_adds(out, "{") < 0 || put_name(out, "inside", v->inside) < 0 ||
        put_name(out, "port", v->port) < 0 || put_name(out, "way", v->way) < 0)
        return -1;
    if (buf_addf(out,
                 "\"inside_index\":%d,\"port_index\":%d,\"way_index\":%d,\"bridged\":%s",
                 v->inside_index, v->port_index, v->way_index,
                 v->is_bridged ? "true" : "false") < 0)
        return -1;
    if (put_mac(out, "mac", v->mac) < 0 ||
        put_mac(out, "gateway_mac", v->gateway_mac) < 0 ||
        buf_adds(out, ",\"addr\":[") < 0)
        return -1;
    for (unsigned i = 0; i < v->n_addr; i++)
        if (buf_addf(out, "%s\"%s\"", i ? "," : "", ip_print(&v->addr[i], text)) < 0)
            return -1;
    if (buf_adds(out, "]") < 0)
        return -1;
    if (v->gateway4.family != 0 &&
        buf_addf(out, ",\"gateway4\":\"%s\"", ip_print(&v->gateway4, text)) < 0)
        return -1;
    return buf_adds(out, "}");
}

static const char *text_of(const struct json *v)
{
    return v && json_type(v) == JSON_STRING ? json_str(v) : "";
}

static bool read_index(const struct json *o, const char *key, int *ret)
{
    const struct json *v = json_get(o, key);

    if (!v || json_type(v) != JSON_INT || json_int(v) <= 0 || json_int(v) > INT32_MAX)
        return false;
    *ret = (int)json_int(v);
    return true;
}

static bool read_name(const struct json *o, const char *key, char ret[IF_NAMESIZE])
{
    const char *text = text_of(json_get(o, key));
    size_t n = strlen(text);

    if (n == 0 || n >= IF_NAMESIZE || strchr(text, '/'))
        return false;
    memcpy(ret, text, n + 1);
    return true;
}

static bool read_mac(const struct json *o, const char *key, uint8_t ret[6])
{
    static const char digits[] = "0123456789abcdef";
    const char *text = text_of(json_get(o, key));

    if (strlen(text) != MAC_TEXT)
        return false;
    for (size_t i = 0; i < MAC_TEXT; i++) {
        const char *digit = strchr(digits, text[i]);

        if (i % 3 == 2 ? text[i] != ':' : digit == NULL)
            return false;
        if (i % 3 == 0)
            ret[i / 3] = (uint8_t)((digit - digits) << 4);
        else if (i % 3 == 1)
            ret[i / 3] = (uint8_t)(ret[i / 3] | (digit - digits));
    }
    return true;
}

static bool read_addrs(const struct json *o, struct veth *v)
{
    const struct json *list = json_get(o, "addr");
    const struct json *gateway = json_get(o, "gateway4");

    if (!list || json_type(list) != JSON_ARRAY || json_len(list) > VETH_ADDRS_MAX)
        return false;
    for (size_t i = 0; i < json_len(list); i++)
        if (ip_parse(span_str(text_of(json_at(list, i))), &v->addr[v->n_addr++]) < 0)
            return false;
    return !gateway || ip_parse(span_str(text_of(gateway)), &v->gateway4) == 0;
}

int veth_record_read(const struct json *o, struct veth *ret, struct err *e)
{
    struct veth v = {.n_addr = 0};
    const struct json *is_bridged;

    if (!o || json_type(o) != JSON_OBJECT)
        return err_set(e, ERR_CONFIG, "nothing of its interface was written down");
    is_bridged = json_get(o, "bridged");
    if (!is_bridged || json_type(is_bridged) != JSON_BOOL ||
        !read_index(o, "inside_index", &v.inside_index) ||
        !read_index(o, "port_index", &v.port_index) ||
        !read_index(o, "way_index", &v.way_index) || !read_name(o, "inside", v.inside) ||
        !read_name(o, "port", v.port) || !read_name(o, "way", v.way) ||
        !read_mac(o, "mac", v.mac) || !read_mac(o, "gateway_mac", v.gateway_mac) ||
        !read_addrs(o, &v))
        return err_set(e, ERR_CONFIG, "its interface is not what was written there");
    v.is_bridged = json_bool(is_bridged);
    *ret = v;
    return 0;
}
