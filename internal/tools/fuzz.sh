#!/usr/bin/env bash
# Runs every fuzz target of the module for a time. Fails when a target finds something, when one that
# is named in a test file does not run, or when there is none at all. Inputs that reach new code are made smaller by few
# steps only: by default that takes a minute, and most of the time. The program of a package is built once for all of its targets.
#
# Go's own driver at times fails with a bare "context deadline exceeded" when the time ends while a worker is busy
# (golang.org/issue/75804). No input is written then: such a run says nothing, and is repeated.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=${1:-5s}
count=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cache=$(go env GOCACHE)/fuzz
built=
while IFS=: read -r file target; do
  in=$(dirname "$file")
  echo "fuzz ./$in $target"
  if [ "$built" != "$in" ]; then
    go test -c -fuzz '^Fuzz' -o "$dir/fuzz.test" "./$in"
    built=$in
  fi
  for try in 1 2 3 4 5; do
    out=$(cd "$in" && "$dir/fuzz.test" -test.run '^$' -test.fuzz "^${target}\$" -test.fuzztime "$time" -test.fuzzminimizetime 20x \
      -test.fuzzcachedir "$cache/crmguard/$in" 2>&1) && break
    if [ "$try" = 5 ] || grep -q 'Failing input written' <<<"$out" || ! grep -qx '    context deadline exceeded' <<<"$out"; then echo "$out"; exit 1; fi
    echo "fuzz: the time ended while a worker was busy; $target again"
  done
  echo "$out" | grep -q '^fuzz: elapsed' || { echo "$out"; echo "fuzz: $target matched nothing"; exit 1; }
  echo "$out" | grep '^fuzz: elapsed' | tail -n 1
  count=$((count + 1))
done < <(git ls-files '*_test.go' | xargs grep -hoH '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
[ "$count" -gt 0 ] || { echo 'fuzz: no targets'; exit 1; }
echo "fuzz: $count targets, $time each, no finding"
