#!/bin/sh
# docs.sh -- fail if the manual page or the full example lacks a key of the configuration, or
# tells another default or range than the table; or if mandoc finds fault with a page.
set -u
bad=0
man=docs/man/tunneld.conf.5
full=examples/tunneld.full.json

fault() {
    printf '%s\n' "$*" >&2
    bad=1
}

# Top-level keys: the rows of the last table of config_read.c, '{"domain", read_domain, true}'.
keys=$(sed -n '/^void config_read(/,$s/.*{"\([a-z_]*\)", read_.*/\1/p' tunneld/config_read.c)
[ "$(printf '%s\n' "$keys" | wc -l)" -ge 10 ] || fault "docs.sh finds no keys in config_read.c"
for k in $keys; do
    grep -qx "\.It Cm $k" $man || fault "$man: no \"$k\""
    grep -q "^  \"$k\":" $full || fault "$full: no \"$k\""
done

# Limits: name, default, least, most.
sed -n 's/^CONF_LIMIT(\([a-z_]*\), \([0-9]*\), \([0-9]*\), \([0-9]*\), "\([^"]*\)".*/\1 \2 \3 \4 \5/p' \
    tunneld/config.def >"${TMPDIR:-/tmp}/docs.$$"
trap 'rm -f "${TMPDIR:-/tmp}/docs.$$"' EXIT
[ "$(grep -c '^CONF_LIMIT(' tunneld/config.def)" -eq "$(wc -l <"${TMPDIR:-/tmp}/docs.$$")" ] ||
    fault "docs.sh does not understand a row of config.def"
while read -r name value least most unit; do
    sed -n "/^\.It Cm $name\$/,/^\.It/p" $man |
        grep -qx "Unit: $unit; default $value, $least to $most\." ||
        fault "$man: \"$name\" is missing, or its unit, default or range is not the table's"
    grep -q "^    \"$name\": $value,*\$" $full || fault "$full: no \"$name\" with its default"
done <"${TMPDIR:-/tmp}/docs.$$"

if command -v mandoc >/dev/null; then
    for m in docs/man/*.[1-9]; do
        mandoc -Tlint -W warning "$m" >&2 || fault "$m: mandoc finds fault"
    done
else
    echo "docs.sh: no mandoc, the form of the manual pages is not checked" >&2
fi

# Both examples are good but for the files that they name, which are not here.
check=${1:-}
if [ -n "$check" ]; then
    for f in examples/tunneld.*.json; do
        left=$("$check" check -c "$f" 2>&1 | grep -v ': open /etc/tunneld/.*\(No such file\|$\)' |
            grep -v "^$f: tls: .*/etc/tunneld/" | grep -v '^certificate: ')
        [ -z "$left" ] || fault "$left"
    done
fi
exit $bad
