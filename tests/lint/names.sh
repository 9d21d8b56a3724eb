#!/bin/sh
# names.sh -- fail if a document names a function, as file.c:function(), that the file does not
# define, a test that is not there, or a path of the tree that is not there.
set -u
bad=0
tmp=$(mktemp) || exit 1
trap 'rm -f "$tmp"' EXIT

for doc in docs/ARCHITECTURE.md docs/THREAT-MODEL.md docs/EGRESS.md; do
    grep -oE '[a-z0-9_]+\.c:[a-z0-9_]+\(\)' $doc | sort -u >"$tmp"
    [ -s "$tmp" ] || { echo "$doc names no function"; bad=1; }
    while IFS=: read -r file fn; do
        fn=${fn%??}
        path=$(find common tunneld agentd -name "$file")
        if [ -z "$path" ]; then
            echo "$doc: no file $file"
            bad=1
        elif ! grep -qE "^[a-z].*[ *]$fn\\(|^$fn\\(" "$path"; then
            echo "$doc: $path has no $fn()"
            bad=1
        fi
    done <"$tmp"
done

# Tests, by their names in the tables of EGRESS.md: three words or more with _ between them.
grep '^|' docs/EGRESS.md | grep -oE '`[a-z0-9]+(_[a-z0-9]+){2,}`' | tr -d '`' | sort -u >"$tmp"
[ -s "$tmp" ] || { echo "docs/EGRESS.md names no test"; bad=1; }
while read -r name; do
    grep -rqwE --include='*.c' --include='*.py' "$name" tests || {
        echo "docs/EGRESS.md: no test $name"
        bad=1
    }
done <"$tmp"

# Links of the documents, and paths in backticks that begin with a folder of ours.
for doc in README.md docs/*.md; do
    dir=$(dirname "$doc")
    grep -oE '\]\([^)#:]+\)' "$doc" | tr -d '])(' | sort -u >"$tmp"
    while read -r to; do
        [ -e "$dir/$to" ] || { echo "$doc: broken link $to"; bad=1; }
    done <"$tmp"
    grep -oE '`(common|tunneld|agentd|tests|docs|examples|certs)/[A-Za-z_][A-Za-z0-9_./-]*`' "$doc" | tr -d '`' |
        sort -u >"$tmp"
    while read -r to; do
        [ -e "$to" ] || { echo "$doc: no such path $to"; bad=1; }
    done <"$tmp"
done
exit $bad
