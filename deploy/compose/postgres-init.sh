#!/bin/sh
# Runs once, when the database server's volume is new: a database with an owner for each service.
set -eu
for service in registry router; do
  case $service in
    registry) password=$REGISTRY_PASSWORD ;;
    router) password=$ROUTER_PASSWORD ;;
  esac
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set service="$service" --set password="$password" <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
SQL
done
