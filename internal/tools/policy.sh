#!/usr/bin/env bash
# Checks the shipped policy: its Rego tests and what they reach, the corpus, the matrix of rights, every mutant, format, strict check
# and lint. Fails when something finds a fault, and when something matched nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
go=${1:-go}
rules=authz/rego/policy/crm
fail() { echo "policy: $*"; exit 1; }

names='TestPolicy TestMatrix TestCorpusFile TestAuthorizer TestRefusedPolicies TestUnfilterable TestSettings TestPlansAgree'
out=$("$go" test -count=1 -timeout 20m -v -run "^($(echo "$names" | tr ' ' '|'))\$" ./authz/rego 2>&1) || { grep -v '^=== ' <<<"$out"; exit 1; }
for name in $names; do
  grep -q "^--- PASS: $name " <<<"$out" || fail "$name did not run"
done
grep '^plans, OPA' <<<"$out" || fail 'no comparison of plans and OPA'

modules=$(find "$rules" -name '*.rego' ! -name '*_test.rego' | wc -l)
tests=$(find "$rules" -name '*_test.rego' | wc -l)
[ "$modules" -gt 10 ] || fail "$modules modules"
[ "$modules" -eq "$tests" ] || fail "$modules modules, but $tests files of tests"
bin/opa fmt --fail --list "$rules"
bin/opa check --strict --schema authz/rego/policy/schemas "$rules"
out=$(bin/opa test --timeout 2m "$rules" authz/rego/policy/data.json) || { echo "$out"; exit 1; }
grep -Eq '^PASS: [1-9][0-9]*/[1-9]' <<<"$out" || fail 'opa ran no tests'
echo "opa test: $out"
out=$(bin/regal lint --config-file .regal/config.yaml "$rules") || { echo "$out"; exit 1; }
grep -q "^$((modules + tests)) files linted" <<<"$out" || fail "regal looked at other files: $out"
echo "regal: $out"

out=$(CRMGUARD_MUTATE=1 "$go" test -count=1 -timeout 20m -v -run '^TestMutants$' ./authz/rego 2>&1) || { echo "$out"; exit 1; }
grep '^mutants: [1-9]' <<<"$out" || fail 'no mutants'
