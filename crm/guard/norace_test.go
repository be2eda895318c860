//go:build !race

package guard_test

// raced says that the race detector watches.
const raced = false
