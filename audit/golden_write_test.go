package audit_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
)

func (clearSealer) SealOpening(_ context.Context, _ string, _ [16]byte, _, plaintext []byte) ([]byte, error) {
	return append([]byte("sealed:"), plaintext...), nil
}

func (clearSealer) OpenOpening(_ context.Context, _ string, _ [16]byte, _, sealed []byte) ([]byte, error) {
	return sealed[len("sealed:"):], nil
}

func writeGolden(t *testing.T) {
	dir := filepath.Join(goldenDir, "log")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, fileStore(t, dir), &audit.Options{Sealer: clearSealer{}})
	for i := range 4 {
		es := []audit.Event{full(i), read(i)}
		es[1].Details = []audit.Detail{audit.Personal("search.term", [16]byte{9}, "电话 13800000000"), audit.Personal("reason", [16]byte{8}, "")}
		if _, err := l.AppendAll(ctx, es[:1+i%2]); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	os.Remove(filepath.Join(dir, "lock"))
	got := readReference(t, goldenDir, audittest.Signer(t, origin).VerifierKey())
	b, err := json.MarshalIndent(got, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(goldenDir, "expect.json"), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
