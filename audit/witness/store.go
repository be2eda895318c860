package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

var (
	// ErrConflict says that the stored size is not the expected one.
	ErrConflict = errors.New("witness: the stored size is another one")
	// ErrState says that stored state cannot be trusted. A witness that signed
	// without its state could sign a fork, so it does not.
	ErrState = errors.New("witness: the stored state is damaged")
	// ErrLocked says that another process has the state open.
	ErrLocked = errors.New("witness: another process has the state open")
)

// Store keeps the newest signed head of each log of a witness.
type Store interface {
	// Head returns the head of the log called origin, and the zero Head when
	// there is none yet.
	Head(ctx context.Context, origin string) (Head, error)
	// Swap replaces the head of the log h.Origin by h, durably and in one step,
	// when its size is old; else it returns ErrConflict. After any other error
	// the head is the old or the new one.
	Swap(ctx context.Context, old uint64, h Head) error
}

// MemStore is a Store in memory, for tests.
type MemStore struct {
	mu    sync.Mutex
	heads map[string]Head
}

// NewMemStore returns an empty store.
func NewMemStore() *MemStore { return &MemStore{heads: map[string]Head{}} }

// Head implements Store.
func (s *MemStore) Head(_ context.Context, origin string) (Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads[origin], nil
}

// Swap implements Store.
func (s *MemStore) Swap(_ context.Context, old uint64, h Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heads[h.Origin].Size != old {
		return ErrConflict
	}
	s.heads[h.Origin] = h
	return nil
}

// FileStore is a Store in one file, replaced as a whole by each Swap. One
// process has it open at a time.
type FileStore struct {
	path string
	lock *os.File
	mu   sync.Mutex
	err  error // of a Swap whose outcome is not known
}

// CreateFileStore makes the state file of a new witness, mode 0600, and opens
// it. It refuses to replace one.
func CreateFileStore(path string) (*FileStore, error) {
	s, err := lockStore(path)
	if err != nil {
		return nil, err
	}
	if _, err = os.Lstat(path); err == nil {
		err = fmt.Errorf("witness: %w", fs.ErrExist)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = replaceFile(path, formatState(nil))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// OpenFileStore opens the state file of a witness. It returns ErrState when the
// file is damaged, ErrLocked when another process has it open, and an error
// that wraps fs.ErrNotExist when there is none: a witness that forgot what it
// signed must not begin anew by itself.
func OpenFileStore(path string) (*FileStore, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	s, err := lockStore(path)
	if err != nil {
		return nil, err
	}
	if _, err := s.read(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func lockStore(path string) (*FileStore, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return &FileStore{path: path, lock: f}, nil
}

// Close lets another process open the file.
func (s *FileStore) Close() error { return s.lock.Close() }

// Head implements Store.
func (s *FileStore) Head(_ context.Context, origin string) (Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Head{}, s.err
	}
	list, err := s.read()
	if err != nil {
		return Head{}, err
	}
	for _, h := range list {
		if h.Origin == origin {
			return h, nil
		}
	}
	return Head{}, nil
}

// Swap implements Store. After a failed write the store answers nothing but
// that error until it is opened again.
func (s *FileStore) Swap(_ context.Context, old uint64, h Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	list, err := s.read()
	if err != nil {
		return err
	}
	if h.Origin == "" || strings.ContainsRune(h.Origin, '\n') {
		return errHead
	}
	i := slices.IndexFunc(list, func(x Head) bool { return x.Origin == h.Origin })
	if i < 0 {
		i = len(list)
		list = append(list, Head{})
	}
	if list[i].Size != old {
		return ErrConflict
	}
	list[i] = h
	if err := replaceFile(s.path, formatState(list)); err != nil {
		s.err = err
		return err
	}
	return nil
}

const (
	stateHead = "crmguard witness state v1\n"
	maxState  = 16 << 20
)

func formatState(list []Head) []byte {
	b := []byte(stateHead)
	for _, h := range list {
		b = fmt.Appendf(b, "\n%s\n%d\n%s\n", h.Origin, h.Size, h.Root)
	}
	b = append(b, '\n')
	sum := sha256.Sum256(b)
	return append(append(b, "sum "+hex.EncodeToString(sum[:])...), '\n')
}

func parseState(b []byte) ([]Head, error) {
	const tail = len("sum ") + 64 + 1
	if len(b) < len(stateHead)+1+tail || !bytes.HasPrefix(b, []byte(stateHead)) {
		return nil, ErrState
	}
	var list []Head
	seen := map[string]bool{}
	lines := strings.Split(string(b[len(stateHead):len(b)-tail]), "\n")
	if len(lines)%4 != 2 || lines[len(lines)-1] != "" || lines[len(lines)-2] != "" {
		return nil, ErrState
	}
	for i := 0; i+4 < len(lines); i += 4 {
		h := Head{Origin: lines[i+1]}
		var ok, sized bool
		h.Size, sized = parseSize(lines[i+2])
		h.Root, ok = parseHash(lines[i+3])
		if lines[i] != "" || h.Origin == "" || !ok || !sized || seen[h.Origin] {
			return nil, ErrState
		}
		seen[h.Origin] = true
		list = append(list, h)
	}
	if !bytes.Equal(formatState(list), b) { // also the sum
		return nil, ErrState
	}
	return list, nil
}

func (s *FileStore) read() ([]Head, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if len(b) > maxState {
		return nil, ErrState
	}
	return parseState(b)
}

// replaceFile puts data at path, durably and in one step, with mode 0600.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".witness-*")
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	return nil
}
