/* SPDX-License-Identifier: MIT */
/*
 * Theory. header.payload.signature, each base64url (RFC 7515 7.1). The header is hostile:
 * all that is taken from it is the key's name, and that the algorithm it claims is the
 * one which that key has. Whatever else it says about keys (jwk, jku, x5c ...) is not
 * looked at. The payload is read after the signature was found good. Errors are fixed
 * sentences: they go to logs and to whoever sent the token, and no byte of it may come
 * along.
 */
#include "common/token.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"

static const char *const AUD_NAME[] = {
    [TOKEN_LINK] = "tunnel:link",
    [TOKEN_ACCESS] = "tunnel:access",
};
static const char *const ALG_NAME[] = {
    [TOKEN_EDDSA] = "EdDSA",
    [TOKEN_HS256] = "HS256",
};

static int deny(struct err *e, const char *rule)
{
    err_set(e, ERR_DENIED, "token: %s", rule);
    return -1;
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory for a token");
}

/* -- form ------------------------------------------------------------------------------
 */

struct parts {
    struct span head, claims, sig;
    struct span signed_; /* head and claims with the dot between them */
};

static int split(struct span text, struct parts *ret, struct err *e)
{
    const uint8_t *dot1, *dot2;

    if (text.len == 0)
        return deny(e, "empty");
    if (text.len > TOKEN_TEXT_MAX)
        return deny(e, "longer than 8192 bytes");
    dot1 = memchr(text.p, '.', text.len);
    dot2 = dot1 == NULL ? NULL
                        : memchr(dot1 + 1, '.', text.len - (size_t)(dot1 + 1 - text.p));
    if (dot2 == NULL)
        return deny(e, "not three parts with dots between them");
    ret->head = span_of(text.p, (size_t)(dot1 - text.p));
    ret->claims = span_of(dot1 + 1, (size_t)(dot2 - dot1 - 1));
    ret->sig = span_skip(text, (size_t)(dot2 + 1 - text.p));
    ret->signed_ = span_of(text.p, (size_t)(dot2 - text.p));
    return 0;
}

/* A part as a JSON object; NULL with *e. */
static struct json *parse_part(struct span part, const char *rule, struct err *e)
{
    AUTO(buf_done)
    struct buf bytes = BUF_INIT;
    struct err why = {0};
    struct json *obj;

    if (buf_reserve(&bytes, part.len + 1, SIZE_MAX) < 0) {
        no_memory(e);
        return NULL;
    }
    if (b64url_decode(&bytes, part) < 0) {
        deny(e, rule);
        return NULL;
    }
    obj = json_parse(buf_span(&bytes), TOKEN_TEXT_MAX, &why);
    if (obj == NULL) {
        if (why.code == ERR_NOMEM)
            no_memory(e);
        else
            deny(e, rule);
        return NULL;
    }
    if (json_type(obj) != JSON_OBJECT) {
        json_free(obj);
        deny(e, rule);
        return NULL;
    }
    return obj;
}

/* -- header and signature --------------------------------------------------------------
 */

static int choose_key(const struct token_keys *keys, const struct json *head,
                      const struct token_key **ret, struct err *e)
{
    const char *alg = json_get_str(head, "alg", NULL);
    const char *kid = json_get_str(head, "kid", NULL);
    const struct token_key *key;

    if (json_get(head, "crit") != NULL)
        return deny(e, "\"crit\" is not supported");
    if (json_get(head, "typ") != NULL && json_get_str(head, "typ", NULL) == NULL)
        return deny(e, "\"typ\" must be a string");
    if (alg == NULL)
        return deny(e, "no \"alg\"");
    if (kid == NULL)
        return deny(e, "no \"kid\"");
    key = token_keys_find(keys, kid);
    if (key == NULL)
        return deny(e, "no key of that \"kid\" is known");
    if (strcmp(alg, ALG_NAME[key->alg]) != 0)
        return deny(e, "\"alg\" is not that of the key");
    *ret = key;
    return 0;
}

static int check_signature(const struct token_key *key, const struct parts *p,
                           struct err *e)
{
    AUTO(buf_done)
    struct buf sig = BUF_INIT;
    uint8_t mac[32];
    bool is_good;

    if (buf_reserve(&sig, p->sig.len + 1, SIZE_MAX) < 0)
        return no_memory(e);
    if (b64url_decode(&sig, p->sig) < 0)
        return deny(e, "signature is not base64url");
    if (key->alg == TOKEN_HS256) {
        crypto_hmac_sha256(secret_span(&key->hmac), p->signed_, mac);
        is_good = crypto_equal(buf_span(&sig), span_of(mac, sizeof(mac)));
    } else {
        is_good = ed25519_verify(key->ed, p->signed_, buf_span(&sig));
    }
    return is_good ? 0 : deny(e, "wrong signature");
}

/* -- claims ----------------------------------------------------------------------------
 */

static int get_aud(const struct json *obj, struct token *t, struct err *e)
{
    const char *aud = json_get_str(obj, "aud", NULL);
    unsigned i;

    for (i = 0; aud != NULL && i < COUNT_OF(AUD_NAME); i++) {
        if (strcmp(aud, AUD_NAME[i]) == 0) {
            t->aud = (enum token_aud)i;
            return 0;
        }
    }
    return deny(e, "\"aud\" is neither \"tunnel:link\" nor \"tunnel:access\"");
}

static int get_times(const struct json *obj, struct token *t, struct err *e)
{
    const struct json *exp = json_get(obj, "exp");
    const struct json *nbf = json_get(obj, "nbf");

    if (exp == NULL)
        return deny(e, "no \"exp\"");
    if (json_type(exp) != JSON_INT || json_int(exp) <= 0)
        return deny(e, "\"exp\" must be a whole number of seconds since 1970");
    if (nbf != NULL && (json_type(nbf) != JSON_INT || json_int(nbf) < 0))
        return deny(e, "\"nbf\" must be a whole number of seconds since 1970");
    t->exp = json_int(exp);
    t->nbf = nbf != NULL ? json_int(nbf) : 0;
    return 0;
}

/* An optional text. */
static int get_text(const struct json *obj, const char *name, char *ret, size_t cap,
                    struct err *e)
{
    const struct json *v = json_get(obj, name);
    size_t n;

    if (v == NULL)
        return 0;
    if (json_type(v) != JSON_STRING || (n = strlen(json_str(v))) >= cap)
        return err_set(e, ERR_DENIED,
                       "token: \"%s\" must be a string of at most %zu bytes", name,
                       cap - 1);
    memcpy(ret, json_str(v), n + 1);
    return 0;
}

/* One item of the array form into the list's text form; -1: no port or range. */
static int print_port_item(const struct json *v, char *out, size_t cap)
{
    int n;

    if (json_type(v) == JSON_STRING && strchr(json_str(v), ',') == NULL)
        n = snprintf(out, cap, "%s", json_str(v));
    else if (json_type(v) == JSON_INT)
        n = snprintf(out, cap, "%" PRId64, json_int(v));
    else
        return -1;
    return n > 0 && (size_t)n < cap ? n : -1;
}

static int parse_port_array(const struct json *arr, struct port_list *ret)
{
    char text[PORT_LIST_MAX * sizeof("65535-65535")];
    size_t len = 0;
    size_t i;

    if (json_len(arr) > PORT_LIST_MAX)
        return -1;
    if (json_len(arr) == 0)
        return 0; /* an empty list allows no port */
    for (i = 0; i < json_len(arr); i++) {
        int n;

        if (i > 0)
            text[len++] = ',';
        n = print_port_item(json_at(arr, i), text + len, sizeof("65535-65535"));
        if (n < 0)
            return -1;
        len += (size_t)n;
    }
    return port_list_parse(span_of(text, len), ret);
}

static int get_ports(const struct json *obj, struct token *t, struct err *e)
{
    const struct json *v = json_get(obj, "ports");
    int rc = -1;

    if (v == NULL)
        return 0;
    if (json_type(v) == JSON_STRING)
        rc = port_list_parse(span_str(json_str(v)), &t->ports);
    else if (json_type(v) == JSON_ARRAY)
        rc = parse_port_array(v, &t->ports);
    if (rc < 0)
        return deny(e, "\"ports\" must be a list like \"3000,8000-8999\" or an array");
    t->has_ports = true;
    return 0;
}

static int get_names(const struct json *obj, struct token *t, struct err *e)
{
    const struct json *v = json_get(obj, "names");
    size_t i;

    if (v == NULL)
        return 0;
    if (json_type(v) != JSON_ARRAY || json_len(v) > TOKEN_NAMES_MAX)
        return deny(e, "\"names\" must be an array of at most 16 names");
    for (i = 0; i < json_len(v); i++) {
        const struct json *name = json_at(v, i);

        if (json_type(name) != JSON_STRING ||
            !host_name_is_claimable(span_str(json_str(name))))
            return deny(e, "\"names\" holds what can be no name");
        (void)snprintf(t->names[i], sizeof(t->names[i]), "%s", json_str(name));
    }
    t->n_names = (unsigned)json_len(v);
    return 0;
}

static int get_claims(const struct json *obj, struct token *t, struct err *e)
{
    const struct json *may_public = json_get(obj, "public");
    const char *sub = json_get_str(obj, "sub", NULL);

    if (get_aud(obj, t, e) < 0 || get_times(obj, t, e) < 0)
        return -1;
    if (sub == NULL || host_id_parse(span_str(sub), t->sub) < 0)
        return deny(e, "\"sub\" is no sandbox id");
    if (may_public != NULL && json_type(may_public) != JSON_BOOL)
        return deny(e, "\"public\" must be true or false");
    t->may_public = may_public != NULL && json_bool(may_public);
    if (get_text(obj, "jti", t->jti, sizeof(t->jti), e) < 0 ||
        get_text(obj, "tenant", t->tenant, sizeof(t->tenant), e) < 0 ||
        get_ports(obj, t, e) < 0 || get_names(obj, t, e) < 0)
        return -1;
    if (json_get(obj, "tenant") != NULL && t->tenant[0] == '\0')
        return deny(e, "\"tenant\" must not be empty");
    return 0;
}

static int read_claims(struct span part, struct token *t, struct err *e)
{
    struct json *obj = parse_part(part, "claims are not a JSON object in base64url", e);
    int rc;

    if (obj == NULL)
        return -1;
    rc = get_claims(obj, t, e);
    json_free(obj);
    return rc;
}

/* -- checking --------------------------------------------------------------------------
 */

static int check_times(const struct token *t, int64_t now_s, int64_t max_ttl_s,
                       struct err *e)
{
    if (t->exp <= now_s)
        return deny(e, "ended");
    if (t->nbf > now_s)
        return deny(e, "not valid yet");
    if (t->exp - now_s > max_ttl_s)
        return err_set(e, ERR_DENIED,
                       "token: lives longer than the %" PRId64 " s that are allowed",
                       max_ttl_s);
    return 0;
}

/* The token's tenant is its key's; a claim may say so, and nothing else. */
static int settle_tenant(const struct token_key *key, struct token *t, struct err *e)
{
    if (t->tenant[0] != '\0' && strcmp(t->tenant, key->tenant) != 0)
        return deny(e, "\"tenant\" is not that of the key");
    memcpy(t->tenant, key->tenant, sizeof(t->tenant));
    return 0;
}

/* NOLINTNEXTLINE(readability-function-size): a seventh parameter, to keep time outside */
int token_verify(const struct token_keys *keys, struct span text, enum token_aud want,
                 int64_t now_s, int64_t max_ttl_s, struct token *ret, struct err *e)
{
    const struct token_key *key = NULL;
    struct token t = {.aud = want};
    struct json *head;
    struct parts p;
    int rc;

    if (split(text, &p, e) < 0)
        return -1;
    head = parse_part(p.head, "header is not a JSON object in base64url", e);
    if (head == NULL)
        return -1;
    rc = choose_key(keys, head, &key, e);
    json_free(head);
    if (rc < 0 || check_signature(key, &p, e) < 0 || read_claims(p.claims, &t, e) < 0)
        return -1;
    if (t.aud != want)
        return deny(e, want == TOKEN_LINK ? "\"aud\" must be \"tunnel:link\" here"
                                          : "\"aud\" must be \"tunnel:access\" here");
    if (check_times(&t, now_s, max_ttl_s, e) < 0 || settle_tenant(key, &t, e) < 0)
        return -1;
    memcpy(t.kid, key->kid, sizeof(t.kid));
    *ret = t;
    return 0;
}

int token_peek(struct span text, struct token *ret, struct err *e)
{
    struct token t = {.aud = TOKEN_LINK};
    struct parts p;

    if (split(text, &p, e) < 0 || read_claims(p.claims, &t, e) < 0)
        return -1;
    *ret = t;
    return 0;
}

bool token_allows_port(const struct token *t, uint16_t port)
{
    return !t->has_ports || port_list_has(&t->ports, port);
}

/* -- signing ---------------------------------------------------------------------------
 */

static int put_ports(const struct token *t, struct buf *b)
{
    unsigned i;

    if (!t->has_ports)
        return 0;
    if (buf_adds(b, ",\"ports\":[") < 0)
        return -1;
    for (i = 0; i < t->ports.n; i++) {
        const struct port_range *r = &t->ports.range[i];
        int rc = r->first == r->last
                     ? buf_addf(b, "%s%u", i > 0 ? "," : "", r->first)
                     : buf_addf(b, "%s\"%u-%u\"", i > 0 ? "," : "", r->first, r->last);

        if (rc < 0)
            return -1;
    }
    return buf_adds(b, "]");
}

static int put_names(const struct token *t, struct buf *b)
{
    unsigned i;

    if (t->n_names == 0)
        return 0;
    if (buf_adds(b, ",\"names\":") < 0)
        return -1;
    for (i = 0; i < t->n_names; i++)
        if (buf_adds(b, i > 0 ? "," : "[") < 0 ||
            json_put_str(b, span_str(t->names[i])) < 0)
            return -1;
    return buf_adds(b, "]");
}

static int put_text(struct buf *b, const char *name, const char *text)
{
    if (text[0] == '\0')
        return 0;
    return buf_addf(b, ",\"%s\":", name) < 0 || json_put_str(b, span_str(text)) < 0 ? -1
                                                                                    : 0;
}

static int print_claims(const struct token *t, struct buf *b)
{
    if (buf_addf(b, "{\"aud\":\"%s\",\"sub\":\"%s\",\"exp\":%" PRId64, AUD_NAME[t->aud],
                 t->sub, t->exp) < 0)
        return -1;
    if (t->nbf > 0 && buf_addf(b, ",\"nbf\":%" PRId64, t->nbf) < 0)
        return -1;
    if (put_text(b, "jti", t->jti) < 0 || put_text(b, "tenant", t->tenant) < 0 ||
        put_ports(t, b) < 0 || put_names(t, b) < 0)
        return -1;
    if (t->may_public && buf_adds(b, ",\"public\":true") < 0)
        return -1;
    return buf_adds(b, "}");
}

static int print_head(const struct token_key *key, struct buf *b)
{
    if (buf_addf(b, "{\"alg\":\"%s\",\"typ\":\"JWT\",\"kid\":", ALG_NAME[key->alg]) < 0 ||
        json_put_str(b, span_str(key->kid)) < 0)
        return -1;
    return buf_adds(b, "}");
}

/* header.claims, without a signature yet. */
static int print_unsigned(const struct token_key *key, const struct token *t,
                          struct buf *out)
{
    AUTO(buf_done)
    struct buf head = BUF_INIT;
    AUTO(buf_done)
    struct buf claims = BUF_INIT;

    if (print_head(key, &head) < 0 || print_claims(t, &claims) < 0 ||
        b64url_encode(out, buf_span(&head)) < 0 || buf_adds(out, ".") < 0)
        return -1;
    return b64url_encode(out, buf_span(&claims));
}

static int make_signature(const struct token_key *key, struct span in, uint8_t sig[64],
                          size_t *ret_len)
{
    *ret_len = key->alg == TOKEN_HS256 ? 32 : 64;
    if (key->alg == TOKEN_EDDSA)
        return ed25519_sign(key->ed, in, sig);
    crypto_hmac_sha256(secret_span(&key->hmac), in, sig);
    return 0;
}

int token_sign(const struct token_key *key, const struct token *t, struct buf *out,
               struct err *e)
{
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    uint8_t sig[64];
    size_t n;

    if (key->alg == TOKEN_EDDSA && !ed25519_can_sign(key->ed))
        return err_set(e, ERR_CONFIG, "key %s is a public key, it cannot sign", key->kid);
    if (t->tenant[0] != '\0' && strcmp(t->tenant, key->tenant) != 0)
        return err_set(e, ERR_CONFIG, "key %s is not of tenant %s", key->kid, t->tenant);
    if (print_unsigned(key, t, &text) < 0 ||
        make_signature(key, buf_span(&text), sig, &n) < 0 || buf_adds(&text, ".") < 0 ||
        b64url_encode(&text, span_of(sig, n)) < 0 || buf_add(out, text.p, text.len) < 0)
        return no_memory(e);
    if (text.len > TOKEN_TEXT_MAX) {
        out->len -= text.len;
        return err_set(e, ERR_LIMIT, "the token would be longer than %d bytes",
                       TOKEN_TEXT_MAX);
    }
    return 0;
}
