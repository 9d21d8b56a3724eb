#!/bin/sh
# limits.sh -- fail if docs/ARCHITECTURE.md's table of limits is not common/limits.def's, row by row,
# or if a bound that it lists from another file has another value there. `limits.sh update` puts the
# first table in anew.
set -u
bad=0
doc=docs/ARCHITECTURE.md
def=common/limits.def

fault() {
    printf '%s\n' "$*" >&2
    bad=1
}

# LIMIT(NAME, value, "reason")  ->  | `NAME` | value | reason |
rows() {
    sed -n 's/^LIMIT(\([A-Z0-9_]*\), \([0-9]*\), "\(.*\)")$/| `\1` | \2 | \3 |/p' $def
}

# The lines of the doc's table between two marks.
table() {
    sed -n "/^<!-- $1 -->\$/,/^<!-- end -->\$/p" $doc | grep '^| `'
}

tmp=$(mktemp) || exit 1
trap 'rm -f "$tmp" "$tmp.doc"' EXIT

rows >"$tmp"
if [ "${1:-}" = update ]; then
    sed -e "/^<!-- limits -->\$/r $tmp" -e '/^<!-- limits -->$/,/^<!-- end -->$/{/^| `/d;}' $doc >"$tmp.doc" &&
        cat "$tmp.doc" >$doc
    exit
fi
[ "$(grep -c '^LIMIT(' $def)" -eq "$(wc -l <"$tmp")" ] || fault "limits.sh does not understand a row of $def"
while read -r row; do
    table limits | grep -qxF -- "$row" || fault "$doc: the table of limits lacks (limits.sh update): $row"
done <"$tmp"
table limits >"$tmp.doc"
while read -r row; do
    grep -qxF -- "$row" "$tmp" || fault "$doc: no row of $def: $row"
done <"$tmp.doc"

# | `NAME` | value | what it is | file |: "NAME = value" or "#define NAME value" in the file.
table "other limits" >"$tmp.doc"
[ -s "$tmp.doc" ] || fault "$doc: no table of other limits"
while IFS='|' read -r _ name value _ file _; do
    name=$(printf '%s' "$name" | tr -d ' `')
    file=$(printf '%s' "$file" | tr -d ' `')
    value=$(printf '%s' "$value" | sed 's/^ *//; s/ *$//')
    tr -s ' \\\n' ' ' <"$file" 2>/dev/null | grep -qE "(#define $name|[^A-Z_]$name =) $value([^0-9]|$)" ||
        fault "$doc: $name is not $value in $file"
done <"$tmp.doc"
exit $bad
