package backupbench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmguard/crmguard/internal/realtest"
)

// program runs one of the system's and returns its figures, which include those of programs that it started.
func program(ctx context.Context, dir string, env []string, name string, args ...string) (figures, string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w: %s", name, err, out)
	}
	f := figures{"wall": time.Since(start).Seconds(), "cpu": (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f["peak"] = float64(u.Maxrss) * 1024
	}
	return f, string(out), nil
}

// plus adds what was spent before to figures.
func (f figures) plus(before figures) figures {
	f["wall"] += before["wall"]
	f["cpu"] += before["cpu"]
	return f
}

// restic is a repository of it.
type restic struct{ dir string }

func (r restic) do(ctx context.Context, work string, args ...string) (figures, error) {
	env := []string{"RESTIC_PASSWORD=bench", "RESTIC_REPOSITORY=" + r.dir, "RESTIC_CACHE_DIR=" + r.dir + "-cache"}
	f, _, err := program(ctx, work, env, "restic", args...)
	return f, err
}

// size is the bytes of all files below a folder.
func size(dir string) (n float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += float64(info.Size())
		}
		return err
	})
	return n, err
}

// twin makes a copy of a folder whose files are written once: by links.
func twin(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// server is a PostgreSQL server of its own.
type server struct {
	tb  *standIn
	p   *realtest.PostgresServer
	pid int
}

func startServer() (s *server, err error) {
	s = &server{tb: &standIn{}}
	defer func() {
		if r := recover(); r != nil {
			if r != errStopped { //nolint:errorlint // a panic value
				panic(r)
			}
			s.tb.end()
			err = s.tb.err
		}
	}()
	s.p = realtest.PostgresWith(s.tb, realtest.PostgresOptions{Settings: []string{"autovacuum=off", "max_wal_size=8GB"}})
	text, err := os.ReadFile(filepath.Join(s.p.Dir, "postmaster.pid"))
	if err == nil {
		first, _, _ := strings.Cut(string(text), "\n")
		s.pid, err = strconv.Atoi(first)
	}
	if err != nil {
		s.tb.end()
	}
	return s, err
}

// create makes an empty database and returns its name for the driver.
func (s *server) create(name string) (string, error) {
	if _, err := s.p.DB.Exec("CREATE DATABASE " + name); err != nil {
		return "", err
	}
	return strings.Replace(s.p.DSN, "/crmguard?", "/"+name+"?", 1), nil
}

func (s *server) drop(name string) error {
	_, err := s.p.DB.Exec("DROP DATABASE " + name + " WITH (FORCE)")
	if err == nil {
		_, err = s.p.DB.Exec("CHECKPOINT") // so that the next one does not pay for this one
	}
	return err
}

// cpu is the processor time of the connections that have ended, in seconds; 0 where the system does not say it.
func (s *server) cpu() float64 {
	time.Sleep(300 * time.Millisecond) // the last one ends soon after its client
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[13], 64)
	system, _ := strconv.ParseFloat(f[14], 64)
	return (user + system) / 100 // ticks of 10 ms
}

// standIn lets a program use the servers of the tests.
type standIn struct {
	testing.TB
	cleanups []func()
	err      error
}

var errStopped = errors.New("stopped")

func (b *standIn) Helper()             {}
func (b *standIn) Cleanup(f func())    { b.cleanups = append(b.cleanups, f) }
func (b *standIn) Logf(string, ...any) {}
func (b *standIn) Name() string        { return "bench" }

func (b *standIn) Fatalf(format string, args ...any) {
	b.err = fmt.Errorf(format, args...)
	panic(errStopped)
}

func (b *standIn) Fatal(args ...any)                { b.Fatalf("%s", fmt.Sprint(args...)) }
func (b *standIn) Skipf(format string, args ...any) { b.Fatalf(format, args...) }

func (b *standIn) end() {
	for i := len(b.cleanups) - 1; i >= 0; i-- {
		b.cleanups[i]()
	}
}
