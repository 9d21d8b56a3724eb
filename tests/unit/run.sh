#!/bin/sh
# run.sh BUILD TEST... -- run unit test programs, one line each; a failing one's whole output.
# With VALGRIND set, each under it.
set -u
build=$1
shift
fail=
n=0
log=$build/unit.log
for t in "$@"; do
    n=$((n + 1))
    if ${VALGRIND:-} "$t" >"$log" 2>&1; then
        count=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | head -n 1)
        printf 'ok    %-40s %s tests\n' "${t#"$build"/tests/unit/}" "${count:-no}"
        [ -n "$count" ] || fail="$fail $t"
        grep -E '^\[  SKIPPED \]|left out:' "$log"
    else
        printf 'FAIL  %s (exit %s)\n' "${t#"$build"/tests/unit/}" "$?"
        cat "$log"
        fail="$fail $t"
    fi
done
[ -z "$fail" ] || {
    echo "FAILED:$fail"
    exit 1
}
[ "$n" -gt 0 ] || {
    echo "no unit test matches"
    exit 1
}
