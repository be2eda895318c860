package encrypt

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"
)

// TestExpand compares expand with the standard library's HKDF, over every length of info around a block and beyond
// the room that is ready for it.
func TestExpand(t *testing.T) {
	key := make([]byte, 32)
	for n := range 400 {
		rand.Read(key)
		label := strings.Repeat("x", n)
		want, err := hkdf.Expand(sha256.New, key, string(appendPart(appendPart(nil, label), "person")), 32)
		if err != nil {
			t.Fatal(err)
		}
		if got := expand(key, label, "person"); !bytes.Equal(got, want) {
			t.Fatalf("info of %d bytes: %x, want %x", n, got, want)
		}
	}
}
