// Package realtest starts real servers for tests: no mocks of protocols that others define. A test
// whose server is lacking is skipped with a line that says how to get it, unless the environment
// variable CRMGUARD_REQUIRE names the server; then it fails.
package realtest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Required tells whether CRMGUARD_REQUIRE, a comma-separated list, names the server.
func Required(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("CRMGUARD_REQUIRE"), ","), name)
}

// Require ends the test when err is not nil: it fails where CRMGUARD_REQUIRE names the server and is
// skipped elsewhere. err says how to get the server.
func Require(t testing.TB, name string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case Required(name):
		t.Fatalf("%s is required: %v", name, err)
	default:
		t.Skipf("%s: %v", name, err)
	}
}

// moduleDir returns the folder of a nested module beside this file.
func moduleDir(name string) (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("the sources are not here")
	}
	dir := filepath.Join(filepath.Dir(file), name)
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return "", fmt.Errorf("no sources in internal/realtest/%s", name)
	}
	return dir, nil
}

// Build returns the binary of a nested module beside this file, from the user's cache folder, where
// it lies under a hash of its go.mod and main.go. It is built when it is not there and build is
// true. howTo is the error's advice otherwise.
func Build(name string, build bool, howTo string) (path string, err error) {
	dir, err := moduleDir(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range []string{"go.mod", "main.go"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d\n%s", len(b), b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(cache, "crmguard", fmt.Sprintf("%s-%x", name, h.Sum(nil)[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if !build {
		return "", fmt.Errorf("%s is not built yet: %s", name, howTo)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Two test binaries may come here at once: one builds, the other waits and finds it.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	tmp := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Remove(tmp)
		return "", fmt.Errorf("building %s: %v\n%s", name, err, out)
	}
	return path, os.Rename(tmp, path)
}
