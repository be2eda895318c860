//go:build unix

package localkek

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock holds the lock file until the returned function is called or the process ends. The file stays: to
// remove it would let two processes lock two files of one name.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("localkek: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			err = fmt.Errorf("%w: %s", ErrLocked, path)
		default:
			err = fmt.Errorf("localkek: lock: %w", err)
		}
		f.Close()
		return nil, err
	}
}
