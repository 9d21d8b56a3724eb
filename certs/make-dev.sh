#!/bin/sh
# make-dev.sh DIR DOMAIN -- a development CA and a certificate for DOMAIN and *.DOMAIN.
#
# Makes in DIR what is not there yet or has ended, and keeps the rest:
#   ca.pem ca-key.pem        "tunneld development CA", ECDSA P-256, 10 years; its name
#                            constraints let it speak for DOMAIN and this machine only, so
#                            that trusting it in a browser risks nothing else
#   cert.pem key.pem         for DOMAIN, *.DOMAIN, localhost, 127.0.0.1, ::1; 397 days, which
#                            is the most that browsers accept; cert.pem holds the CA as well
# Prints the paths, NAME=PATH a line.
set -eu

if [ $# -ne 2 ] || [ -z "$1" ]; then
    echo "usage: $0 DIR DOMAIN" >&2
    exit 2
fi
dir=$1
domain=$2
case $domain in
*[!a-z0-9.-]* | .* | *. | -* | *..* | '')
    echo "$0: \"$domain\" is no domain in lower case" >&2
    exit 2
    ;;
esac

mkdir -p "$dir"
umask 077
tmp=$(mktemp -d "$dir/.make-dev.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

quietly() { # what openssl says matters only when it fails
    "$@" >"$tmp/out" 2>&1 || {
        cat "$tmp/out" >&2
        return 1
    }
}

new_key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# is_good CERT KEY DAYS: both are there, belong together, and last so long
is_good() {
    [ -s "$1" ] && [ -s "$2" ] &&
        openssl x509 -in "$1" -noout -checkend $(($3 * 86400)) >/dev/null 2>&1 &&
        [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout)" ]
}

covers() { # covers CERT NAME
    openssl x509 -in "$1" -noout -checkhost "$2" | grep -q 'does match'
}

ca_is_for_domain() {
    openssl x509 -in "$dir/ca.pem" -noout -ext nameConstraints 2>/dev/null |
        grep -qx " *DNS:$(printf '%s' "$domain" | sed 's/\./\\./g')"
}

make_ca() {
    new_key "$tmp/ca-key.pem"
    cat >"$tmp/ca.cnf" <<END
[req]
distinguished_name = name
prompt = no
x509_extensions = ext
[name]
CN = tunneld development CA
[ext]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, @only
[only]
permitted;DNS.1 = $domain
permitted;DNS.2 = localhost
permitted;IP.1 = 127.0.0.0/255.0.0.0
permitted;IP.2 = ::1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
END
    quietly openssl req -new -x509 -sha256 -days 3650 -config "$tmp/ca.cnf" \
        -key "$tmp/ca-key.pem" -out "$tmp/ca.pem"
    mv "$tmp/ca-key.pem" "$tmp/ca.pem" "$dir/"
}

make_cert() {
    new_key "$tmp/key.pem"
    cat >"$tmp/cert.cnf" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = @names
[names]
DNS.1 = $domain
DNS.2 = *.$domain
DNS.3 = localhost
IP.1 = 127.0.0.1
IP.2 = ::1
END
    # A common name has at most 64 characters, and nobody looks at it any more.
    quietly openssl req -new -sha256 -subj "/CN=tunneld development" \
        -key "$tmp/key.pem" -out "$tmp/cert.csr"
    quietly openssl x509 -req -sha256 -days 397 -in "$tmp/cert.csr" \
        -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$tmp/cert.cnf" -out "$tmp/leaf.pem"
    cat "$tmp/leaf.pem" "$dir/ca.pem" >"$tmp/cert.pem"
    mv "$tmp/key.pem" "$tmp/cert.pem" "$dir/"
}

is_good "$dir/ca.pem" "$dir/ca-key.pem" 398 && ca_is_for_domain || make_ca
is_good "$dir/cert.pem" "$dir/key.pem" 30 && covers "$dir/cert.pem" "$domain" &&
    covers "$dir/cert.pem" "x.$domain" &&
    openssl verify -CAfile "$dir/ca.pem" "$dir/cert.pem" >/dev/null 2>&1 || make_cert
chmod 600 "$dir/ca-key.pem" "$dir/key.pem"
chmod 644 "$dir/ca.pem" "$dir/cert.pem"
for f in ca.pem cert.pem key.pem; do
    printf '%s=%s\n' "${f%.pem}" "$dir/$f"
done
