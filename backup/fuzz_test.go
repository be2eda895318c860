package backup_test

import (
	"bytes"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

// FuzzManifest reads signed payloads of any content: no panic.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"number":1,"kind":"data","cipher":"AES-256-GCM","compression":"zstd","digest":"HMAC-SHA-256","keys":[{"size":1}],"segments":[{"size":-1}]}`))
	f.Add([]byte(`{"repository":"zz"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		backup.ParseManifest(b, signer)
		if backup.OpenSigned(b, pin) == nil {
			t.Fatal("what nobody signed was taken")
		}
	})
}

// FuzzPrunes reads lists of any content: no panic.
func FuzzPrunes(f *testing.F) {
	f.Add([]byte(`{"repository":"00000000000000000000000000000000","number":1,"created":"2026-01-01T00:00:00Z","condemned":[{"number":1,"snapshot":"00000000000000000000000000000001","since":"2026-01-01T00:00:00Z"}],"accepted":[]}`))
	f.Add([]byte(`{"repository":"00000000000000000000000000000000","number":1,"condemned":[{"number":2},{"number":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := backup.ParsePrunes(b); err == nil && n < 0 {
			t.Fatal("a negative number")
		}
	})
}

// FuzzTombstones: one list has one spelling.
func FuzzTombstones(f *testing.F) {
	f.Add(append(make([]byte, 23), 1, 0, 0, 0, 1, 0, 0, 0, 1, 'x'))
	f.Add(make([]byte, 28))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := backup.ParseTombstones(b)
		if err == nil && !bytes.Equal(out, b) {
			t.Fatalf("%x reads as %x", b, out)
		}
	})
}

// FuzzRows: one row has one spelling.
func FuzzRows(f *testing.F) {
	f.Add([]byte{0, 1, 6, 3, 1, 'x', 4, 0, 5, 6, 7, 2, 3}, uint8(1))
	f.Add([]byte{2, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1}, uint8(1))
	f.Add([]byte{3, 0x80, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, columns uint8) {
		if columns == 0 {
			return
		}
		out, err := backup.ParseRows(b, int(columns))
		for at := 0; err == nil && at < len(b); { // what parses can be split
			n, serr := backup.SplitRow(b[at:], int(columns))
			if serr != nil || n <= 0 {
				t.Fatalf("%x splits into %d, %v", b, n, serr)
			}
			at += n
		}
		if err == nil && !bytes.Equal(out, b) {
			t.Fatalf("%x reads as %x", b, out)
		}
	})
}

// FuzzSegment: nothing but the segment itself opens.
func FuzzSegment(f *testing.F) {
	good := backup.Segment()
	if err := backup.ReadSegment(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		if backup.ReadSegment(b) == nil && !bytes.HasPrefix(b, good[:8]) {
			t.Fatal("opened")
		}
	})
}

// FuzzIndex: one index frame, and one directory, has one spelling.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 1}, uint32(1))
	f.Add([]byte{5, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 9}, uint32(2))
	f.Add(append(bytes.Repeat([]byte{255}, 9), 1, 0, 0, 0, 0, 0, 0, 0, 0, 1), uint32(1))
	f.Add(bytes.Repeat([]byte{1}, 16), uint32(1))
	f.Add(backup.Directory(), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		if out, err := backup.ParseEntries(b, n); err == nil && !bytes.Equal(out, b) {
			t.Fatalf("entries %x read as %x", b, out)
		}
		if k, err := backup.ParseLinks(b, n); err == nil && k*16 != len(b) {
			t.Fatalf("%d links of %d bytes", k, len(b))
		}
		if out, err := backup.ParseDirectory(b); err == nil && !bytes.Equal(out, b) {
			t.Fatalf("directory %x reads as %x", b, out)
		}
	})
}

func BenchmarkBackup(b *testing.B) {
	m := backuptest.Rows(100_000)
	r := open(b, &backuptest.Bucket{}, nil)
	for b.Loop() {
		b.SetBytes(mustBackup(b, r, m, nil).Bytes)
	}
}

func BenchmarkVerify(b *testing.B) {
	m := backuptest.Rows(100_000)
	r := open(b, &backuptest.Bucket{}, nil)
	b.SetBytes(mustBackup(b, r, m, nil).Bytes)
	o := full(b)
	for b.Loop() {
		if rep, err := r.Verify(b.Context(), o); err != nil || rep.Err() != nil {
			b.Fatal(err, rep.Err())
		}
	}
}
