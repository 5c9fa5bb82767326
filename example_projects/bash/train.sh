#!/usr/bin/env bash
# Gradient descent on (x - 3)^2 in bash and awk: the journal takes lines of JSON from any language.
set -euo pipefail
steps=$1 rate=$2

log() { printf '%s\n' "$1" >> "$MLCLI_JOURNAL"; }

log '{"tag": "language", "value": "bash"}'
x=0
for ((step = 0; step < steps; step++)); do
    read -r x loss < <(awk -v x="$x" -v rate="$rate" 'BEGIN { x -= rate * 2 * (x - 3); printf "%.10g %.10g\n", x, (x - 3)^2 }')
    log "{\"metrics\": {\"x\": $x, \"loss\": $loss}, \"step\": $step}"
done
echo "x = $x, loss = $loss"
