//go:build !unix

package localkek

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// lock makes the lock file and removes it again. A process that was killed leaves it behind.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("localkek: %w", err)
	}
	f.Close()
	return func() { os.Remove(path) }, nil
}
