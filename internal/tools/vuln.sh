#!/usr/bin/env bash
# govulncheck, which needs its database. Where that cannot be reached the answer is "not checked": it
# is neither a pass nor a failure, and a local copy must be recent to count.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${GOBIN:-$PWD/bin}/govulncheck
[ -x "$bin" ] || GOBIN=$(dirname "$bin") go install golang.org/x/vuln/cmd/govulncheck@v1.8.0 || exit 1
out=$("$bin" -format json ${VULNDB:+-db "$VULNDB"} ./... 2>&1)
status=$?
modified=$(printf '%s' "$out" | grep -o '"db_last_modified": "[^"]*"' | head -n 1 | cut -d'"' -f4)
if [ $status -ne 0 ] || [ -z "$modified" ] || [ "${modified:0:4}" = 0001 ]; then
  echo 'vuln: not checked (the vulnerability database cannot be reached; VULNDB=file:///DIR names a copy)'
  exit 0
fi
if [ "$(date -d "$modified" +%s)" -lt "$(date -d '30 days ago' +%s)" ]; then
  echo "vuln: not checked (the database is of $modified)"
  exit 0
fi
"$bin" ${VULNDB:+-db "$VULNDB"} ./... && echo "vuln: none known, database of $modified"
