#!/bin/sh
# demo.sh BUILD -- the whole thing on one machine: certificates, tunneld, a small app, agentd.
# All in the foreground; one Ctrl-C ends all. `make demo` builds and calls this.
# DEMO_PORT (8443) is the server's port, APP_PORT (3000) the app's; DEMO_SECONDS ends it by itself.
set -eu
cd "$(dirname "$0")/.."
build=$1
domain=preview.localhost
port=${DEMO_PORT:-8443}
app_port=${APP_PORT:-3000}
place=$PWD/build/demo
certs=$place/certs

. examples/processes.sh

umask 077
mkdir -p "$place"
sh certs/make-dev.sh "$certs" $domain >/dev/null

cat >"$place/tunneld.json" <<JSON
{ "domain": "$domain",
  "listen": ["127.0.0.1:$port"],
  "tls": { "cert": "$certs/cert.pem", "key": "$certs/key.pem" },
  "state_dir": "$place/state",
  "limits": { "access_token_s": 86400 } }
JSON

"$build/bin/tunneld" serve -c "$place/tunneld.json" 2>"$place/tunneld.log" &
server=$!
pids="$pids $server"
wait_for $server "$place/tunneld.log" 'event=ready' "tunneld (is port $port free? DEMO_PORT=... changes it)"

"$build/examples/hello/hello" "$app_port" >"$place/app.log" 2>&1 &
app=$!
pids="$app $pids"
wait_for $app "$place/app.log" listening "the app (is port $app_port free? APP_PORT=... changes it)"

"$build/bin/tunneld" token -c "$place/tunneld.json" --sandbox demo >"$place/agent.token"
access=$("$build/bin/tunneld" token -c "$place/tunneld.json" --sandbox demo --access --ttl 24h)
"$build/bin/agentd" up --server "https://$domain:$port" --token-file "$place/agent.token" \
    --ca-file "$certs/ca.pem" --proxy none --json >"$place/agent.events" 2>"$place/agentd.log" &
agent=$!
pids="$agent $pids"
wait_for $agent "$place/agent.events" "\"port\": *$app_port" "the agent"

url=https://$app_port-demo.$domain:$port/
cat <<TEXT

  The app on 127.0.0.1:$app_port is now at

      $url?_tunnel=$access

  It is private: the token in this URL opens it in a browser for a day, and without it every
  visitor gets 401. On the command line:

      curl --cacert $certs/ca.pem -H "X-Tunnel-Token: $access" $url

  The certificate is from a development CA made just now. To let a browser trust it, import
      $certs/ca.pem
  (Firefox: Settings, Certificates, Authorities. Chromium on Linux:
      certutil -d sql:\$HOME/.pki/nssdb -A -t C,, -n tunneld-demo -i $certs/ca.pem
  ), or accept the browser's warning.

  Any other port that a program opens here is published too; start one and look below.
  Logs: $place/*.log.  Ctrl-C ends all.

TEXT
if [ -n "${DEMO_SECONDS:-}" ]; then
    sleep "$DEMO_SECONDS" &
    wait $! || true
    exit 0
fi
tail -n +1 -f "$place/agent.events" &
pids="$! $pids"
wait $agent
