package encrypt_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// slowKEK lets something happen between the wrapping of a key and its storing.
type slowKEK struct {
	*localkek.KEK
	after func()
}

func (k *slowKEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	out, err := k.KEK.Wrap(ctx, plaintext, ad)
	if f := k.after; f != nil {
		k.after = nil
		f()
	}
	return out, err
}

// TestTrimBesideAnotherTenant: one process wraps an epoch key; before it is stored, another one rotates and ends
// the version of the KEK that wrapped it. Nobody loses a key.
func TestTrimBesideAnotherTenant(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	open := func() *localkek.KEK {
		kek, err := localkek.Open(path, nil)
		require.NoError(t, err)
		return kek
	}
	store := keys.NewMemory()
	other := newKeeper(t, open(), store, nil)
	_, err := other.MAC(ctx, "busy", "row", nil)
	require.NoError(t, err)

	for _, work := range []string{"found", "rotate"} {
		slow := &slowKEK{KEK: open()}
		k := newKeeper(t, slow, store, nil)
		tenant := "acme-" + work
		if work == "rotate" {
			_, err := k.MAC(ctx, tenant, "row", nil)
			require.NoError(t, err)
		}
		slow.after = func() { require.NoError(t, other.Rotate(ctx, "busy", nil)) }
		if work == "rotate" {
			require.NoError(t, k.Rotate(ctx, tenant, nil))
		}
		mac, err := k.MAC(ctx, tenant, "row", nil)
		require.NoError(t, err)
		require.Nil(t, slow.after, "the other process did not come between")
		// A new process has nothing in memory: the key must open from the store.
		require.NoError(t, newKeeper(t, open(), store, nil).VerifyMAC(ctx, tenant, "row", nil, mac), work)
		require.NoError(t, newKeeper(t, open(), store, nil).VerifyMAC(ctx, "busy", "row", nil, must(other.MAC(ctx, "busy", "row", nil))))
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
