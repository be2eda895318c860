package encrypt_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

func TestStream(t *testing.T) {
	k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: -1})
	person := rec.Person
	seal := func(size int) []byte {
		var out bytes.Buffer
		w, err := k.SealStream(ctx, "acme", person, "file", []byte("contract 7"), &out)
		require.NoError(t, err)
		_, err = w.Write(bytes.Repeat([]byte("0123456789abcdef"), size/16))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	open := func(tenant string, person [16]byte, label, ad string, b []byte) ([]byte, error) {
		r, err := k.OpenStream(ctx, tenant, person, label, []byte(ad), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	}
	for _, size := range []int{0, 16, 3 << 20} {
		b := seal(size)
		got, err := open("acme", person, "file", "contract 7", b)
		require.NoError(t, err)
		require.Len(t, got, size)
	}
	b := seal(64)
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := open("acme", person, "file", "contract 7", bad); !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := open("acme", person, "file", "contract 7", b[:i]); !errors.Is(err, encrypt.ErrTampered) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	_, err := open("acme", [16]byte{77}, "file", "contract 7", b)
	require.ErrorIs(t, err, encrypt.ErrTampered)
	_, err = open("acme", person, "scan", "contract 7", b)
	require.ErrorIs(t, err, encrypt.ErrTampered)
	_, err = open("acme", person, "file", "contract 8", b)
	require.ErrorIs(t, err, encrypt.ErrTampered)
	_, err = open("acme", person, "No Label", "contract 7", b)
	require.Error(t, err)
	_, err = k.Erase(ctx, "acme", person, nil)
	require.NoError(t, err)
	_, err = open("acme", person, "file", "contract 7", b)
	require.ErrorIs(t, err, encrypt.ErrErased)
}
