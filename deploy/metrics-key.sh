#!/bin/sh
# Makes an API key with the scope metrics and writes it where Prometheus reads it. Does nothing when it is there.
set -eu

file=${1:-/keys/metrics}
admin_key=${2:-/data/bootstrap-key}
[ ! -s "$file" ] || exit 0

JUSTONCE_API_KEY=${JUSTONCE_BOOTSTRAP_KEY:-$(cat "$admin_key")}
export JUSTONCE_API_KEY
unset JUSTONCE_BOOTSTRAP_KEY
answer=$(justonce keys create --user prometheus --scopes metrics)
printf '%s\n' "$answer" | sed -n 's/^ *"key": "\(jo_[^"]*\)".*/\1/p' > "$file.new"
test -s "$file.new"
# Prometheus is another user of this volume, which holds nothing else.
chmod 0644 "$file.new"
mv "$file.new" "$file"
