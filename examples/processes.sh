# processes.sh -- for the examples to read: what they start is in $pids, and ends with them.

pids=
end() {
    trap - INT TERM EXIT
    for p in $pids; do
        kill "$p" 2>/dev/null || true
    done
    wait
}
trap end EXIT
trap 'exit 0' INT TERM

wait_for() { # wait_for PID FILE PATTERN WHAT [WHY]: until FILE has PATTERN; WHY is shown when it never does
    n=0
    until grep -q "$3" "$2" 2>/dev/null; do
        n=$((n + 1))
        if [ $n -gt 150 ] || ! kill -0 "$1" 2>/dev/null; then
            echo "$(basename "$0" .sh): $4 did not start:" >&2
            tail -n 20 "${5:-$2}" >&2
            exit 1
        fi
        sleep 0.1
    done
}
