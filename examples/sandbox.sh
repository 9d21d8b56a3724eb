#!/bin/sh
# sandbox.sh BUILD -- previews and egress together: an app in a sandbox that can reach nothing at all,
# with a preview that a browser opens. The agent and its token are outside; the app cannot see them.
# DEMO_PORT (8443) is the server's port, APP_PORT (3000) the app's; DEMO_SECONDS ends it by itself.
set -eu
cd "$(dirname "$0")/.."
build=$PWD/$1
domain=preview.localhost
port=${DEMO_PORT:-8443}
app_port=${APP_PORT:-3000}
place=$PWD/build/sandbox
certs=$place/certs

. examples/processes.sh

umask 077
mkdir -p "$place"
sh certs/make-dev.sh "$certs" $domain >/dev/null
cat >"$place/tunneld.json" <<JSON
{ "domain": "$domain",
  "listen": ["127.0.0.1:$port"],
  "tls": { "cert": "$certs/cert.pem", "key": "$certs/key.pem" },
  "state_dir": "$place/state" }
JSON
"$build/bin/tunneld" serve -c "$place/tunneld.json" 2>"$place/tunneld.log" &
server=$!
pids="$pids $server"
wait_for $server "$place/tunneld.log" 'event=ready' "tunneld (is port $port free? DEMO_PORT=... changes it)"

"$build/bin/tunneld" token -c "$place/tunneld.json" --sandbox demo >"$place/agent.token"
access=$("$build/bin/tunneld" token -c "$place/tunneld.json" --sandbox demo --access)

# The whole of it: one command, one policy, and the preview. The bind is for a checkout in /tmp, where
# a sandbox has a folder of its own.
TUNNEL_SERVER=https://$domain:$port TUNNEL_TOKEN_FILE=$place/agent.token TUNNEL_CA_FILE=$certs/ca.pem \
    "$build/bin/agentd" egress run --policy full-isolation --name demo --audit "$place/audit.jsonl" --up \
    --bind "$build/examples" -- \
    "$build/examples/hello/hello" "$app_port" >"$place/app.log" 2>"$place/agentd.log" &
sandbox=$!
pids="$sandbox $pids"
wait_for $sandbox "$place/app.log" listening "the app" "$place/agentd.log"
wait_for $sandbox "$place/agentd.log" "port.opened\|port=$app_port" "the preview"

cat <<TEXT

  The app runs in a sandbox that reaches nothing ($build/bin/agentd egress status --name demo) and is at

      https://$app_port-demo.$domain:$port/?_tunnel=$access

  What it tried to reach is in $place/audit.jsonl.  Ctrl-C ends all.

TEXT
if [ -n "${DEMO_SECONDS:-}" ]; then
    sleep "$DEMO_SECONDS" &
    wait $! || true
    exit 0
fi
wait $sandbox
