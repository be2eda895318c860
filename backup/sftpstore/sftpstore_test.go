package sftpstore_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/sftpstore"
	"github.com/crmguard/crmguard/internal/realtest"
)

// open opens a folder of the server, made when it is missing.
func open(t testing.TB, s *realtest.SSHServer, addr, folder string) *sftpstore.Bucket {
	t.Helper()
	b, err := sftpstore.New(t.Context(), addr, s.User, folder, &sftpstore.Options{KeyFile: s.KeyFile, HostKey: s.HostKey, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func put(t *testing.T, b backup.Bucket, name, data string) {
	t.Helper()
	if err := b.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, b backup.Bucket, name, want string) {
	t.Helper()
	got, err := b.Get(t.Context(), name, 0, 100)
	if want == "" && !errors.Is(err, backup.ErrNotFound) || want != "" && (err != nil || string(got) != want) {
		t.Fatalf("get: %q, %v; want %q", got, err, want)
	}
}

// A usual OpenSSH, one without what it has beyond the protocol, and one without either of the two that matter.
func TestBucket(t *testing.T) {
	for _, deny := range []string{"", "hardlink", "fsync", "hardlink,fsync,posix-rename,statvfs"} {
		t.Run("without "+deny, func(t *testing.T) {
			s := realtest.SSHD(t, realtest.SSHOptions{Deny: deny})
			n := 0
			backuptest.TestBucket(t, func(t testing.TB) backup.Bucket {
				n++
				return open(t, s, s.Addr, filepath.Join(s.Dir, fmt.Sprint(n), "a folder"))
			})
			var left []string
			filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.Contains(path, "/.tmp/") {
					left = append(left, path)
				}
				return err
			})
			if len(left) != 0 {
				t.Errorf("temporary files are left: %v", left)
			}
		})
	}
}

func TestURL(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	q := url.Values{"key": {s.KeyFile}, "known_hosts": {s.KnownHosts("other.example", s.Addr)}}
	u := url.URL{Scheme: "sftp", User: url.User(s.User), Host: s.Addr, Path: s.Dir, RawQuery: q.Encode()}
	b, err := sftpstore.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	put(t, b, "segments/a", "x")
	has(t, b, "segments/a", "x")
	u.Path = s.Dir + "/missing"
	if _, err := sftpstore.Open(t.Context(), u.String()); !errors.Is(err, sftpstore.ErrNoFolder) {
		t.Fatalf("a missing folder: %v", err)
	}
	u.Path = s.KeyFile
	if _, err := sftpstore.Open(t.Context(), u.String()); !errors.Is(err, sftpstore.ErrNoFolder) {
		t.Fatalf("a file: %v", err)
	}
}

func TestModes(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	dir := filepath.Join(s.Dir, "a", "b")
	b := open(t, s, s.Addr, dir)
	put(t, b, "segments/x/y", "x")
	err := filepath.WalkDir(filepath.Join(s.Dir, "a"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHostKey(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	dir := t.TempDir()
	other := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(realtest.NewSSHKey(t, filepath.Join(dir, "other")))))
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ssh.NewPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte("["+strings.Replace(s.Addr, ":", "]:", 1)+" "+other+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	for name, c := range map[string]struct {
		opts sftpstore.Options
		want error // nil = any
	}{
		"another key":             {sftpstore.Options{HostKey: other}, sftpstore.ErrHostKey},
		"a key of another kind":   {sftpstore.Options{HostKey: string(ssh.MarshalAuthorizedKey(ecKey))}, sftpstore.ErrHostKey},
		"known by another key":    {sftpstore.Options{KnownHosts: wrong}, sftpstore.ErrHostKey},
		"unknown":                 {sftpstore.Options{KnownHosts: s.KnownHosts("other.example")}, sftpstore.ErrHostKey},
		"no file":                 {sftpstore.Options{KnownHosts: filepath.Join(dir, "none")}, fs.ErrNotExist},
		"nothing, and no default": {sftpstore.Options{}, fs.ErrNotExist},
		"no key":                  {sftpstore.Options{HostKey: "ssh-ed25519 hunter2"}, nil},
		"two pins":                {sftpstore.Options{HostKey: s.HostKey, KnownHosts: wrong}, nil},
	} {
		c.opts.KeyFile = s.KeyFile
		_, err := sftpstore.New(t.Context(), s.Addr, s.User, s.Dir, &c.opts)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.KnownHosts(s.Addr), filepath.Join(dir, ".ssh", "known_hosts")); err != nil {
		t.Fatal(err)
	}
	b, err := sftpstore.New(t.Context(), s.Addr, s.User, s.Dir, &sftpstore.Options{KeyFile: s.KeyFile})
	if err != nil {
		t.Fatalf("the user's own known_hosts: %v", err)
	}
	b.Close()
}

func TestCredentials(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	dir := t.TempDir()
	realtest.NewSSHKey(t, filepath.Join(dir, "other"))
	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		mode os.FileMode
	}{"open": {key, 0o644}, "locked": {pem.EncodeToMemory(locked), 0o600}, "none": {[]byte("hunter2"), 0o600}} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.data, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	for name, want := range map[string]error{"other": sftpstore.ErrDenied, "open": backupkey.ErrInsecure, "locked": nil, "none": nil, "missing": fs.ErrNotExist, "": nil} {
		file := ""
		if name != "" {
			file = filepath.Join(dir, name)
		}
		_, err := sftpstore.New(t.Context(), s.Addr, s.User, s.Dir, &sftpstore.Options{KeyFile: file, HostKey: s.HostKey})
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("key file %q: %v", name, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("key file %q: the error tells its content", name)
		}
	}
	if _, err := sftpstore.New(t.Context(), s.Addr, "nobody-here", s.Dir, &sftpstore.Options{KeyFile: s.KeyFile, HostKey: s.HostKey}); !errors.Is(err, sftpstore.ErrDenied) {
		t.Errorf("an unknown user: %v", err)
	}
	// An agent.
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	socket, err := os.MkdirTemp("", "agent") // a socket's path holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socket) })
	ln, err := net.Listen("unix", filepath.Join(socket, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, c)
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(socket, "s"))
	b, err := sftpstore.New(t.Context(), s.Addr, s.User, s.Dir, &sftpstore.Options{HostKey: s.HostKey})
	if err != nil {
		t.Fatalf("by an agent: %v", err)
	}
	defer b.Close()
	put(t, b, "a", "x")
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := sftpstore.New(t.Context(), s.Addr, s.User, s.Dir, &sftpstore.Options{HostKey: s.HostKey}); !errors.Is(err, sftpstore.ErrDenied) {
		t.Errorf("an empty agent: %v", err)
	}
}

func TestTemporaryFiles(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	put(t, open(t, s, s.Addr, s.Dir), "a", "x")
	young, old := filepath.Join(s.Dir, ".tmp", "b.1"), filepath.Join(s.Dir, ".tmp", "c.2")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	b := open(t, s, s.Addr, s.Dir)
	for o, err := range b.List(t.Context(), "") {
		if err != nil || o.Name != "a" {
			t.Errorf("listed %s, %v", o.Name, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.Dir, ".tmp"))
	if err != nil || len(entries) != 1 {
		t.Errorf("files: %v, %v; want the young temporary file", entries, err)
	}
}

// On a server without hard links a crash leaves the temporary file, which keeps others away, and never half an object.
func TestCrashWithoutLinks(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{Deny: "hardlink"})
	b := open(t, s, s.Addr, s.Dir)
	put(t, b, "segments/a", "x")
	tmp := filepath.Join(s.Dir, ".tmp", "segments.b")
	if err := os.WriteFile(tmp, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := b.Put(t.Context(), "segments/b", []byte("whole"))
	if err == nil || errors.Is(err, backup.ErrExists) || errors.Is(err, backup.ErrFull) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	has(t, b, "segments/b", "")
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(tmp, long, long); err != nil {
		t.Fatal(err)
	}
	b = open(t, s, s.Addr, s.Dir)
	put(t, b, "segments/b", "whole")
	has(t, b, "segments/b", "whole")
}

func TestOrder(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	b := open(t, s, s.Addr, s.Dir)
	want := []string{"a", "b-c", "b/a-1", "b/a/x", "b/a0", "b0", "c/d/e/f", "c/d/e1"}
	for i := range want {
		put(t, b, want[(i*5)%len(want)], "x")
	}
	for name, data := range map[string]string{"c/other.file": "x", "stray": ""} { // others' files are listed too, sockets are not
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(s.Dir, "b", "link")); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]string{
		"": "a b-c b/a-1 b/a/x b/a0 b0 c/d/e/f c/d/e1 c/other.file stray", "b": "b-c b/a-1 b/a/x b/a0 b0", "b/": "b/a-1 b/a/x b/a0",
		"b/a": "b/a-1 b/a/x b/a0", "b/a/": "b/a/x", "c/d/e": "c/d/e/f c/d/e1", "z": "", "a/": "", "c/d/e/f/g": "", "../": "",
	} {
		var got []string
		for o, err := range b.List(t.Context(), prefix) {
			if err != nil {
				t.Fatalf("%q: %v", prefix, err)
			}
			got = append(got, o.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %v", prefix, got, want)
		}
	}
	for range b.List(t.Context(), "") { // a reader that stops
		break
	}
	for o := range b.List(t.Context(), "") { // a reader that uses the bucket meanwhile, more often than there are connections
		for range b.List(t.Context(), "") {
			for range b.List(t.Context(), "") {
				for range b.List(t.Context(), "") {
					has(t, b, "a", "x")
				}
			}
			break
		}
		if o.Name == "b0" {
			break
		}
	}
	if _, err := b.Get(t.Context(), "b", 0, 1); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("get of a folder: %v", err)
	}
	if err := b.Delete(t.Context(), "b"); err != nil {
		t.Errorf("delete of a folder: %v", err)
	}
	has(t, b, "b/a-1", "x")
	if err := b.Put(t.Context(), "a/b", nil); err == nil {
		t.Error("put below an object")
	}
}

func TestRanges(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	b := open(t, s, s.Addr, s.Dir)
	put(t, b, "empty", "")
	put(t, b, "five", "hello")
	for _, c := range []struct {
		name           string
		offset, length int64
		want           string
	}{{"empty", 0, 0, ""}, {"empty", 0, 10, ""}, {"five", 5, 1, ""}, {"five", 100, 0, ""}, {"five", 4, 1<<63 - 1, "o"}, {"five", 0, 1<<63 - 1, "hello"}} {
		if got, err := b.Get(t.Context(), c.name, c.offset, c.length); err != nil || string(got) != c.want {
			t.Errorf("%s %d+%d: %q, %v", c.name, c.offset, c.length, got, err)
		}
	}
	if _, err := b.Get(t.Context(), "five", -1, 2); err == nil {
		t.Error("a negative offset was taken")
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<16) // 20 MiB
	if err := b.Put(t.Context(), "big", big); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), "big", 0, int64(len(big))+1); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var wg sync.WaitGroup
	for i := range 12 { // more than there are connections
		wg.Go(func() {
			got, err := b.Get(t.Context(), "big", int64(i)<<20, 1<<20)
			if err != nil || !bytes.Equal(got, big[i<<20:(i+1)<<20]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// A host that permits no deletions.
func TestAppendOnly(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{Deny: "remove"})
	b := open(t, s, s.Addr, s.Dir)
	put(t, b, "a", "x")
	if err := b.Delete(t.Context(), "a"); !errors.Is(err, backup.ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	has(t, b, "a", "x")
}

func TestReadOnly(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{Deny: "write,mkdir"})
	b := open(t, s, s.Addr, s.Dir)
	if err := b.Put(t.Context(), "a", []byte("x")); !errors.Is(err, sftpstore.ErrDenied) {
		t.Fatalf("got %v, want ErrDenied", err)
	}
}

func TestFull(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{Disk: 4 << 20})
	b := open(t, s, s.Addr, s.Dir+"/bucket")
	put(t, b, "small", "x")
	for range 2 {
		var err error
		for i := range 10 {
			if err = b.Put(t.Context(), fmt.Sprintf("segments/%d", i), make([]byte, 1<<20)); err != nil && !errors.Is(err, backup.ErrExists) {
				has(t, b, fmt.Sprintf("segments/%d", i), "")
				break
			}
		}
		if !errors.Is(err, backup.ErrFull) {
			t.Fatalf("got %v, want ErrFull", err)
		}
	}
	has(t, b, "small", "x")
	if err := b.Delete(t.Context(), "segments/0"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "segments/0", make([]byte, 1<<20)); err != nil {
		t.Fatalf("after there is room again: %v", err)
	}
}

// The connection goes half-way through an object, then the server, then the folder.
func TestVanishing(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	p := realtest.NewProxy(t, s.Addr)
	b := open(t, s, p.Addr, s.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put(t, b, "before", "x")
	data := bytes.Repeat([]byte("half"), 1<<20)
	p.CutAfter(1 << 20)
	err := b.Put(ctx, "segments/half", data)
	if err == nil || errors.Is(err, backup.ErrExists) || errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	p.Down(false)
	has(t, b, "segments/half", "")
	for range 3 { // an idle connection that is cut does no harm
		has(t, b, "before", "x")
		p.Cut()
	}
	if err := b.Put(ctx, "segments/half", data); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(ctx, "segments/half", 0, 1<<30); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	s.Kill()
	_, gerr := b.Get(ctx, "before", 0, 1)
	for what, err := range map[string]error{"get": gerr, "put": b.Put(ctx, "c", nil), "delete": b.Delete(ctx, "before")} {
		if err == nil || errors.Is(err, backup.ErrNotFound) || errors.Is(err, backup.ErrLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Restart()
	has(t, b, "before", "x")
	if err := os.RemoveAll(s.Dir); err != nil { // as a disk that is not mounted
		t.Fatal(err)
	}
	_, gerr = b.Get(ctx, "before", 0, 1)
	for what, err := range map[string]error{"get": gerr, "put": b.Put(ctx, "c", nil), "delete": b.Delete(ctx, "before")} {
		if !errors.Is(err, sftpstore.ErrNoFolder) {
			t.Errorf("%s without the folder: %v", what, err)
		}
	}
	for _, err := range b.List(ctx, "segments/") {
		if !errors.Is(err, sftpstore.ErrNoFolder) {
			t.Errorf("list without the folder: %v", err)
		}
	}
}

// The connection goes before, within and after each request of writing an object: it is whole or not there. What can be repeated is, on a
// new connection; what cannot is told as it is.
func TestCut(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	p := realtest.NewProxy(t, s.Addr)
	data := bytes.Repeat([]byte("x"), 1000)
	warm := open(t, s, p.Addr, s.Dir)
	put(t, warm, "segments/00", string(data))
	p.Marks()
	put(t, warm, "segments/01", string(data))
	var places []int64
	for _, m := range p.Marks() {
		places = append(places, m-10, m)
	}
	if len(places) < 12 {
		t.Fatalf("%d requests only", len(places)/2)
	}
	failed := 0
	for i, n := range places {
		name := fmt.Sprintf("segments/%d", 10+i)
		has(t, warm, "segments/00", string(data[:100])) // a connection is there
		p.CutOnce(n)
		err := warm.Put(t.Context(), name, data)
		p.CutAfter(-1)
		got, gerr := warm.Get(t.Context(), name, 0, 1<<20)
		switch {
		case err == nil && gerr != nil, gerr != nil && !errors.Is(gerr, backup.ErrNotFound), gerr == nil && !bytes.Equal(got, data):
			t.Errorf("cut after %d of %d bytes: put: %v; then %d bytes, %v", n, places[len(places)-1], err, len(got), gerr)
		case errors.Is(err, backup.ErrExists):
			t.Errorf("cut after %d of %d bytes: the writer's own object is said to be another's", n, places[len(places)-1])
		case err != nil:
			t.Logf("cut after %d of %d bytes: %v", n, places[len(places)-1], err)
			failed++
		}
	}
	if failed != 2 { // within the request for the link, and before its answer
		t.Errorf("%d of %d writes failed, want 2", failed, len(places))
	}
}

// Writers meet at a name at the same moment.
func TestRace(t *testing.T) {
	for _, deny := range []string{"", "hardlink"} {
		t.Run("without "+deny, func(t *testing.T) {
			s := realtest.SSHD(t, realtest.SSHOptions{Deny: deny})
			writers := make([]*sftpstore.Bucket, 4)
			for i := range writers { // a connection each
				writers[i] = open(t, s, s.Addr, s.Dir)
			}
			for round := range 30 {
				name := fmt.Sprintf("segments/%d", round)
				var wg sync.WaitGroup
				errs := make([]error, len(writers))
				for i, b := range writers {
					wg.Go(func() { errs[i] = b.Put(t.Context(), name, []byte(fmt.Sprint(i))) })
				}
				wg.Wait()
				won := -1
				for i, err := range errs {
					switch {
					case err == nil && won < 0:
						won = i
					case deny == "" && !errors.Is(err, backup.ErrExists), err == nil:
						t.Fatalf("round %d, writer %d of %v: %v", round, i, errs, err)
					}
				}
				if won < 0 {
					t.Fatalf("round %d: nobody wrote: %v", round, errs)
				}
				has(t, writers[0], name, fmt.Sprint(won))
			}
		})
	}
}

// A host that takes a connection and says nothing.
func TestSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := realtest.SSHD(t, realtest.SSHOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = sftpstore.New(ctx, ln.Addr().String(), s.User, s.Dir, &sftpstore.Options{KeyFile: s.KeyFile, HostKey: s.HostKey})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	// It falls silent later.
	p := realtest.NewProxy(t, s.Addr)
	b, err := sftpstore.New(t.Context(), p.Addr, s.User, s.Dir, &sftpstore.Options{KeyFile: s.KeyFile, HostKey: s.HostKey, Stall: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	put(t, b, "a", "x")
	p.Hold(true)
	began := time.Now()
	if _, err := b.Get(t.Context(), "a", 0, 1); err == nil {
		t.Fatal("an answer from nobody")
	} else {
		t.Log(err, time.Since(began))
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := b.Get(ctx, "a", 0, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	p.Hold(false)
	has(t, b, "a", "x")
}

func TestClosed(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	b := open(t, s, s.Addr, s.Dir)
	b.Close()
	if err := b.Put(t.Context(), "a", nil); err == nil {
		t.Fatal("put into a closed bucket")
	}
}

func TestRefusedURLs(t *testing.T) {
	for _, u := range []string{"", "sftp://", "sftp://host/folder", "sftp://user@/folder", "sftp://user:hunter2@host/folder", "sftp://user@host",
		"sftp://user@host/", "sftp://user@host:0/folder", "sftp://user@host:99999/folder", "sftp://user@host/folder#x", "sftp://user@host/folder?password=hunter2",
		"sftp://user@host/folder?key=a&key=b", "sftp://user@host/folder?a=%zz", "ssh://user@host/folder", "file:///tmp", "sftp://\x7f"} {
		b, err := sftpstore.Open(t.Context(), u)
		if err == nil {
			b.Close()
			t.Errorf("%q was taken", u)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells the password", u)
		}
	}
}

func TestRefusedNames(t *testing.T) {
	s := realtest.SSHD(t, realtest.SSHOptions{})
	b := open(t, s, s.Addr, s.Dir)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "../a", "a/../b", ".tmp/a", "A", "a b", "a.tmp", "客户"} {
		_, gerr := b.Get(t.Context(), name, 0, 1)
		for what, err := range map[string]error{"put": b.Put(t.Context(), name, nil), "get": gerr, "delete": b.Delete(t.Context(), name)} {
			if err == nil {
				t.Errorf("%s %q was taken", what, name)
			}
		}
	}
}
