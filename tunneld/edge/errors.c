/* SPDX-License-Identifier: MIT */
#include "tunneld/edge/errors.h"

#include <stdio.h>
#include <string.h>

#include "tunneld/edge/access.h"

struct error_row {
    unsigned status;
    const char *code;
    unsigned retry_s;
    bool is_waiting;
    const char *title, *advice;
};

#define ERROR_ROW(id, status, code, retry_s, is_waiting, title, advice)                  \
    [ERROR_##id] = {status, code, retry_s, is_waiting, title, advice},
static const struct error_row rows[ERROR_COUNT] = {ERROR_MAP(ERROR_ROW)};

const char *errors_name(enum error_code c)
{
    return rows[c].code;
}

unsigned errors_status(enum error_code c)
{
    return rows[c].status;
}

/* -- which form ------------------------------------------------------------------------ */

static bool accepts(const struct http1_head *h, const char *type)
{
    size_t n = strlen(type);

    for (unsigned i = 0; i < h->n_fields; i++) {
        struct span v = h->field[i].value;

        if (h->field[i].id != HTTP1_ACCEPT)
            continue;
        for (; v.len >= n; v = span_skip(v, 1))
            if (strncasecmp((const char *)v.p, type, n) == 0)
                return true;
    }
    return false;
}

enum error_form errors_form(const struct http1_head *h)
{
    if (h->wants_upgrade)
        return ERROR_BARE;
    if (access_is_navigation(h))
        return ERROR_PAGE;
    if (http1_find(h, HTTP1_SEC_FETCH_MODE))
        return ERROR_JSON;
    if (accepts(h, "text/html"))
        return ERROR_PAGE;
    if (accepts(h, "application/json") || http1_find(h, HTTP1_ORIGIN))
        return ERROR_JSON;
    return ERROR_TEXT;
}

/* -- bodies ---------------------------------------------------------------------------- */

static const char page_style[] =
    "<style>:root{color-scheme:light dark;--b:#f6f7f9;--c:#fff;--t:#16191d;--m:#5b6470;"
    "--l:#e2e5ea;--a:#2f6fed}@media(prefers-color-scheme:dark){:root{--b:#111418;"
    "--c:#191d23;--t:#e9ecf0;--m:#98a2b0;--l:#2a3038;--a:#7aa5ff}}*{box-sizing:border-"
    "box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:24px;"
    "background:var(--b);color:var(--t);font:16px/1.55 system-ui,-apple-system,'Segoe "
    "UI',"
    "Roboto,sans-serif}main{width:100%;max-width:520px;padding:32px;background:var(--c);"
    "border:1px solid var(--l);border-radius:14px}h1{margin:0 0 8px;font-size:22px;"
    "line-height:1.25}p{margin:0;color:var(--m)}.s{display:inline-block;margin-bottom:"
    "16px;"
    "padding:2px 10px;border:1px solid var(--l);border-radius:99px;color:var(--m);"
    "font:13px ui-monospace,Menlo,Consolas,monospace}.w{display:flex;gap:10px;"
    "align-items:center;margin-top:20px;font-size:14px}.w i{width:9px;height:9px;"
    "border-radius:50%;background:var(--a);animation:p 1.4s ease-in-out infinite}"
    "@keyframes p{50%{opacity:.2}}@media(prefers-reduced-motion:reduce){.w i{"
    "animation:none}}</style>";

/* Asks again, quietly: the server itself holds such a request until the port is there, so
 * the page is back in the moment it is. It reloads when the answer is not ours any more. */
static const char page_wait[] =
    "<div class=w role=status><i></i><span>Waiting for it. This page reloads by "
    "itself.</span></div>"
    "<script>(function ask(){fetch(location.href,{method:'HEAD',cache:'no-store',"
    "redirect:'manual',credentials:'same-origin'}).then(function(r){var e="
    "r.headers.get('Tunnel-Error');if(e==='port-closed'||e==='agent-offline'||e==='limit'"
    ")"
    "setTimeout(ask,1500);else location.reload()},function(){setTimeout(ask,3000)})})()"
    "</script>";

static int put_page(struct buf *out, const char *tag, const char *title,
                    const char *advice, const char *extra, unsigned refresh_s)
{
    if (buf_adds(out,
                 "<!doctype html><html lang=en><meta charset=utf-8>"
                 "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
                 "<meta name=robots content=noindex>") < 0)
        return -1;
    if (refresh_s > 0 &&
        buf_addf(out, "<noscript><meta http-equiv=refresh content=%u></noscript>",
                 refresh_s) < 0)
        return -1;
    return buf_addf(out,
                    "<title>%s</title>%s<main><span class=s>%s</span><h1>%s</h1>"
                    "<p>%s</p>%s</main></html>\n",
                    title, page_style, tag, title, advice, extra);
}

static int put_body(const struct error_row *r, const struct error_args *a,
                    struct buf *out)
{
    bool reloads = r->is_waiting && a->can_reload;
    char tag[48];

    switch (a->form) {
    case ERROR_BARE:
        return 0;
    case ERROR_TEXT:
        return buf_addf(out, "%s: %s. %s\n", r->code, r->title, r->advice);
    case ERROR_JSON:
        return buf_addf(out, "{\"error\":\"%s\",\"status\":%u,\"message\":\"%s. %s\"}\n",
                        r->code, r->status, r->title, r->advice);
    case ERROR_PAGE:
        break;
    }
    (void)snprintf(tag, sizeof(tag), "%u %s", r->status, r->code);
    return put_page(out, tag, r->title, r->advice, reloads ? page_wait : "",
                    reloads ? r->retry_s : 0);
}

/* -- heads ----------------------------------------------------------------------------- */

static const char *type_of(enum error_form f)
{
    static const char *const types[] = {
        [ERROR_BARE] = "text/plain; charset=utf-8",
        [ERROR_TEXT] = "text/plain; charset=utf-8",
        [ERROR_JSON] = "application/json",
        [ERROR_PAGE] = "text/html; charset=utf-8",
    };

    return types[f];
}

static int put_cors(const struct error_args *a, struct buf *out)
{
    if (a->origin.len == 0)
        return 0;
    return buf_addf(out,
                    "Access-Control-Allow-Origin: %.*s\r\n"
                    "Access-Control-Allow-Credentials: true\r\n"
                    "Access-Control-Expose-Headers: Tunnel-Error, Retry-After\r\n"
                    "Vary: Origin\r\n",
                    SPAN_FMT(a->origin));
}

/* What every answer of ours has, and the end of the head. */
static int put_common(const struct error_args *a, size_t body_len, struct buf *out)
{
    static const char policy[] =
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'\r\n";
    const char *connection = !a->keep_alive         ? "Connection: close\r\n"
                             : a->client_minor == 0 ? "Connection: keep-alive\r\n"
                                                    : "";

    if (put_cors(a, out) < 0)
        return -1;
    return buf_addf(out,
                    "Content-Type: %s\r\nContent-Length: %zu\r\n"
                    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                    "X-Robots-Tag: noindex\r\nReferrer-Policy: no-referrer\r\n%s%s\r\n",
                    type_of(a->form), body_len, a->form == ERROR_PAGE ? policy : "",
                    connection);
}

static int put_both(const struct error_args *a, struct span body, struct buf *out)
{
    if (put_common(a, body.len, out) < 0)
        return -1;
    return a->is_head ? 0 : buf_add(out, body.p, body.len);
}

int errors_write(enum error_code c, const struct error_args *a, struct buf *out)
{
    const struct error_row *r = &rows[c];
    AUTO(buf_done)
    struct buf body = BUF_INIT;

    if (put_body(r, a, &body) < 0 ||
        buf_addf(out, "HTTP/1.1 %u %s\r\nTunnel-Error: %s\r\n", r->status,
                 http1_reason(r->status), r->code) < 0)
        return -1;
    if (r->retry_s > 0 && buf_addf(out, "Retry-After: %u\r\n", r->retry_s) < 0)
        return -1;
    if (r->status == 401 && buf_adds(out, "WWW-Authenticate: Tunnel\r\n") < 0)
        return -1;
    return put_both(a, buf_span(&body), out);
}

int errors_write_welcome(const struct error_args *a, struct buf *out)
{
    AUTO(buf_done)
    struct buf body = BUF_INIT;
    int r = a->form == ERROR_PAGE
                ? put_page(&body, "tunneld", "A preview tunnel",
                           "Programs in sandboxes are reached here, each port under its "
                           "own name.",
                           "", 0)
                : buf_adds(&body, "tunneld: programs in sandboxes are reached here, each "
                                  "port under its own name.\n");
    struct error_args args = *a;

    if (args.form != ERROR_PAGE)
        args.form = ERROR_TEXT;
    if (r < 0 || buf_adds(out, "HTTP/1.1 200 OK\r\n") < 0)
        return -1;
    return put_both(&args, buf_span(&body), out);
}
