#!/usr/bin/env bash
# How long one device certificate takes, with this program and with those that are used for it today, one after the other on
# this machine. What is not installed is passed over; SCRIPT names a create_test_cert.js with its packages beside it.
#
#   cargo build --release && bash benches/compare.sh target/release/iot-enroll
set -euo pipefail

program=$(realpath "${1:?the program iot-enroll}")
script=$([ -z "${SCRIPT:-}" ] || realpath "$SCRIPT")
times=${TIMES:-40}
fleet=${FLEET:-100000}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"

# measure NAME COMMAND...: runs a command for each device number; seconds for each.
measure() {
    local name=$1 start end number
    shift
    start=$(date +%s%N)
    for number in $(seq "$times"); do
        "$@" "$number" >/dev/null 2>&1
    done
    end=$(date +%s%N)
    awk -v name="$name" -v ns=$((end - start)) -v n="$times" \
        'BEGIN { printf "%-44s %10.1f ms %12.1f a second\n", name, ns / n / 1e6, n / ns * 1e9 }'
}

with_openssl() {
    openssl ecparam -name prime256v1 -genkey -noout -out "o$1.key"
    openssl req -new -key "o$1.key" -subj "/CN=o-$1" -out "o$1.csr"
    openssl x509 -req -in "o$1.csr" -CA root_cert.pem -CAkey root_key.pem -days 365 -out "o$1.pem" \
        -extfile <(echo extendedKeyUsage=clientAuth)
    cat "o$1.pem" root_cert.pem >"o$1_fullchain.pem"
    openssl pkcs12 -export -inkey "o$1.key" -in "o$1_fullchain.pem" -passout pass:1234 -out "o$1.pfx"
}

with_mkcert() { CAROOT=$directory/mkcert mkcert -client -ecdsa -cert-file "m$1.pem" -key-file "m$1.key" "m-$1"; }

with_cfssl() {
    echo "{\"CN\": \"c-$1\", \"key\": {\"algo\": \"ecdsa\", \"size\": 256}}" >"c$1.json"
    cfssl gencert -ca root_cert.pem -ca-key root_sec1.pem "c$1.json" | cfssljson -bare "c$1"
}

with_script() { (cd script && node "$script" device "s-$1" scriptroot); }
with_us() { "$program" -q cert device "u-$1" root --no-pfx; }
with_us_and_pfx() { "$program" -q cert device "p-$1" root; }

# of_fleet NAME COMMAND...: many devices in one process.
of_fleet() {
    local name=$1 start end
    shift
    start=$(date +%s%N)
    "$@" >/dev/null
    end=$(date +%s%N)
    awk -v name="$name" -v ns=$((end - start)) -v n="$fleet" \
        'BEGIN { printf "%-44s %10.4f ms %12.0f a second\n", name, ns / n / 1e6, n / ns * 1e9 }'
}

"$program" -q cert root root --no-pfx >/dev/null
if [ -n "$script" ]; then
    mkdir script
    (cd script && node "$script" root scriptroot >/dev/null)
    measure "create_test_cert.js (RSA 2048)" with_script
fi
if command -v openssl >/dev/null; then
    measure "openssl, four commands, PFX too" with_openssl
fi
if command -v mkcert >/dev/null; then
    mkdir mkcert
    measure "mkcert" with_mkcert
fi
if command -v cfssl >/dev/null && command -v openssl >/dev/null; then
    openssl ec -in root_key.pem -out root_sec1.pem 2>/dev/null
    measure "cfssl" with_cfssl
fi
measure "iot-enroll cert device, PFX too" with_us_and_pfx
measure "iot-enroll cert device --no-pfx" with_us
of_fleet "iot-enroll cert fleet, $fleet in directories" "$program" -q cert fleet root --count "$fleet" --out files
of_fleet "iot-enroll cert fleet, $fleet as tar" "$program" -q cert fleet root --count "$fleet" --format tar --out fleet.tar
