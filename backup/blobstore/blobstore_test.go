package blobstore_test

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/blobstore"
)

func open(t testing.TB, u string) *blobstore.Bucket {
	t.Helper()
	b, err := blobstore.Open(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func folder(dir string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
}

func TestMemory(t *testing.T) {
	backuptest.TestBucket(t, func(t testing.TB) backup.Bucket { return open(t, "mem://") })
}

func TestFolder(t *testing.T) {
	backuptest.TestBucket(t, func(t testing.TB) backup.Bucket {
		return open(t, folder(filepath.Join(t.(*testing.T).TempDir(), "a folder", "bucket")))
	})
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := filepath.Join(t.TempDir(), "bucket")
	b := open(t, folder(dir))
	if err := b.Put(t.Context(), "segments/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
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

func TestTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	b := open(t, folder(dir))
	if err := b.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "a", []byte("y")); !errors.Is(err, backup.ErrExists) {
		t.Fatalf("got %v, want ErrExists", err)
	}
	young, old := filepath.Join(dir, "b.1.tmp"), filepath.Join(dir, "c.2.tmp")
	for _, path := range []string{young, old} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	b = open(t, folder(dir))
	for o, err := range b.List(t.Context(), "") {
		if err != nil || o.Name != "a" {
			t.Errorf("listed %s, %v", o.Name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("files: %v, %v; want the object and the young temporary file", entries, err)
	}
}

func TestRefusedURLs(t *testing.T) {
	for _, u := range []string{"", "folder", "/folder", "file:folder", "file://host/folder", "mem://name", "mem:///x",
		"s3://bucket", "file:///tmp/x?metadata=skip", "file://user:secret@/tmp/x", "http://\x7f"} {
		b, err := blobstore.Open(t.Context(), u)
		if err == nil {
			b.Close()
			t.Errorf("%q was taken", u)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password", u)
		}
	}
}

func TestRefusedNames(t *testing.T) {
	b := open(t, folder(t.TempDir()))
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "../a", "a/../b", "A", "a b", "a.tmp", "客户"} {
		if err := b.Put(t.Context(), name, nil); err == nil {
			t.Errorf("put %q was taken", name)
		}
		if _, err := b.Get(t.Context(), name, 0, 1); err == nil {
			t.Errorf("get %q was taken", name)
		}
		if err := b.Delete(t.Context(), name); err == nil {
			t.Errorf("delete %q was taken", name)
		}
	}
}

func TestTargetGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "segments"), nil, 0o600); err != nil { // where a folder must be
		t.Fatal(err)
	}
	if err := open(t, folder(dir)).Put(t.Context(), "segments/a", []byte("x")); err == nil {
		t.Fatal("put into a file")
	}
}
