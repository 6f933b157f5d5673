#!/usr/bin/env bash
# Makes what compose.yaml needs and what must not stand in a repository: an authority, certificates,
# tokens and passwords, under secrets/, and .env. Run it once, in any folder. It refuses to overwrite.
#
#   prepare.sh [SHARD ...]     also a join token for the agent of each shard; by default of shard-a
set -euo pipefail
cd "$(dirname "$0")"

if [[ -e secrets ]]; then
  echo "secrets/ exists: remove it first, and with it every certificate and token" >&2
  exit 1
fi
shards=("$@")
((${#shards[@]})) || shards=(shard-a)
umask 077
mkdir -p secrets/tokens
cd secrets

quiet() { "$@" 2>&1 || { echo "failed: $*" >&2; return 1; }; }

# An authority of its own: nobody else's certificate is taken.
quiet openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 \
  -subj "/CN=Airfleet authority" -keyout ca.key -out ca.pem >/dev/null

# certificate NAME SAN: a key, and a certificate of the authority that is valid for a year.
certificate() {
  quiet openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc \
    -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" >/dev/null
  quiet openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$2") \
    -out "$1.pem" >/dev/null
  rm "$1.csr"
}
certificate registry "DNS:registry,DNS:localhost,IP:127.0.0.1"
certificate router "DNS:router-1,DNS:router-2,DNS:localhost,IP:127.0.0.1"
certificate agent "DNS:agent,DNS:localhost,IP:127.0.0.1"

# token FILE NAME ROLE [LINE]: a random token; its hash goes into the list of the servers that take it.
token() {
  [[ -e "tokens/$2" ]] || openssl rand -hex 32 | tr -d '\n' >"tokens/$2"
  printf '[[token]]\nname = "%s"\nsha256 = "%s"\nrole = "%s"\n%s\n' \
    "$2" "$(sha256sum <"tokens/$2" | cut -d' ' -f1)" "$3" "${4:+$4$'\n'}" >>"$1"
}
for server in registry router; do
  token "$server-tokens.toml" admin admin
done
token registry-tokens.toml router operator
token router-tokens.toml registry operator
for shard in "${shards[@]}"; do
  token router-tokens.toml "join-$shard" agent "shard = \"$shard\""
done

# The databases' passwords have no characters that a URL would need to escape.
registry_password=$(openssl rand -hex 24)
router_password=$(openssl rand -hex 24)
cat >postgres.env <<END
POSTGRES_PASSWORD=$(openssl rand -hex 24)
REGISTRY_PASSWORD=$registry_password
ROUTER_PASSWORD=$router_password
END
echo "AIRFLEET__STORE__URL=postgres://registry:$registry_password@postgres/registry" >registry.env
echo "AIRFLEET__STORE__URL=postgres://router:$router_password@postgres/router" >router.env
echo "GF_SECURITY_ADMIN_PASSWORD=$(openssl rand -hex 12)" >grafana.env
cat >agent.env <<END
# The Airflow beside the agent of ${shards[0]}. A database role that may only read is enough.
AIRFLEET__AIRFLOW__METADATA_URL=postgres://airflow:CHANGE-ME@airflow-db/airflow
AIRFLEET__AIRFLOW__API_URL=http://airflow-webserver:8080
AIRFLEET__BROKER__URL=redis://airflow-redis:6379/0
END
chmod 644 ca.pem

# The containers run as the owner of these files; root's are given to the image's user.
uid=$(id -u) gid=$(id -g)
if ((uid == 0)); then
  uid=10001 gid=10001
  chown -R "$uid:$gid" .
fi
chmod 755 .
cat >../.env <<END
AIRFLEET_UID=$uid
AIRFLEET_GID=$gid
AIRFLEET_SHARD=${shards[0]}
END

echo "made $(pwd)"
echo "next: docker compose up -d, then"
echo "  airfleet status --registry https://localhost:7401 --router https://localhost:7402 \\"
echo "    --ca secrets/ca.pem --token-file secrets/tokens/admin"
