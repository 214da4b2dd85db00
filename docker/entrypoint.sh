#!/bin/sh
# Runs feature-atlas with the credentials of a secret that holds USER/PASSWORD, as Neo4j's image takes it.
set -eu
if [ -n "${NEO4J_AUTH_FILE:-}" ] && [ -z "${NEO4J_PASSWORD:-}" ]; then
    # read fails at the end of a file without a newline, but has read it.
    IFS=/ read -r NEO4J_USERNAME NEO4J_PASSWORD < "$NEO4J_AUTH_FILE" || true
    if [ -z "${NEO4J_PASSWORD:-}" ]; then
        echo "$NEO4J_AUTH_FILE is not readable or does not hold USER/PASSWORD" >&2
        exit 1
    fi
    export NEO4J_USERNAME NEO4J_PASSWORD
fi
exec feature-atlas "$@"
