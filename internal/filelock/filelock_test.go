package filelock_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/crmguard/crmguard/internal/filelock"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := filelock.Try(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(path); !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("taken twice: %v", err)
	}
	unlock()
	unlock, err = filelock.Try(path)
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	unlock()
	if _, err := filelock.Try(filepath.Join(path, "below")); err == nil || errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("no folder: %v", err)
	}
}
