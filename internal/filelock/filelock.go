// Package filelock holds a lock file, so that one process at a time does something. The lock ends with the process.
package filelock

import (
	"errors"
	"fmt"
	"os"
)

// ErrHeld means that somebody else holds the lock.
var ErrHeld = errors.New("filelock: held by another")

// Try takes the lock of a file, which is made with mode 0600, and returns what gives it back. The file stays: to remove it would let two processes lock two
// files of one name. Error: ErrHeld.
func Try(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("filelock: %w", err)
	}
	if err := exclusive(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // which ends the lock
}
