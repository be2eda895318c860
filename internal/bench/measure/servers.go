package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
)

// Servers runs f with what the servers of the tests need (package realtest), outside of a test: what is skipped or fails there
// is an error here, and everything is stopped and removed when f returns.
func Servers(f func(tb testing.TB) error) (err error) {
	b := &servers{}
	defer b.end()
	defer func() {
		if r := recover(); r != nil {
			if r != errStopped { //nolint:errorlint // a panic value
				panic(r)
			}
			err = b.err
		}
	}()
	return f(b)
}

// servers lets a program use the servers of the tests.
type servers struct {
	testing.TB
	cleanups []func()
	err      error
}

var errStopped = errors.New("stopped")

func (b *servers) Helper()                  {}
func (b *servers) Cleanup(f func())         { b.cleanups = append(b.cleanups, f) }
func (b *servers) Logf(string, ...any)      {}
func (b *servers) Name() string             { return "bench" }
func (b *servers) Context() context.Context { return context.Background() }

func (b *servers) TempDir() string {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		b.Fatalf("%v", err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (b *servers) Fatalf(format string, args ...any) {
	b.err = fmt.Errorf(format, args...)
	panic(errStopped)
}

func (b *servers) Fatal(args ...any)                { b.Fatalf("%s", fmt.Sprint(args...)) }
func (b *servers) Skipf(format string, args ...any) { b.Fatalf(format, args...) }

func (b *servers) end() {
	for i := len(b.cleanups) - 1; i >= 0; i-- {
		b.cleanups[i]()
	}
}
