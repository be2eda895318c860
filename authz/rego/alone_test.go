package rego

import "testing"

// Alone passes over a test in which nothing runs side by side, in short runs under the race detector: it makes compiling a policy ten times as slow.
func Alone(t testing.TB) {
	t.Helper()
	if raced && testing.Short() {
		t.Skip("nothing runs side by side")
	}
}
