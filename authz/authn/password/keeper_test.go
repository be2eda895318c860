package password_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"

	_ "modernc.org/sqlite"
)

// keeper makes a sealer of an encrypt.Keeper, as a composition does. Rotation rewraps the tenant's key and leaves what
// it sealed as it is, so nothing is ever stale.
type keeper struct {
	*encrypt.Keeper
	tenant string
}

func (k keeper) Seal(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return k.SealTenant(ctx, k.tenant, "password", ad, plaintext)
}

func (k keeper) Open(ctx context.Context, sealed, ad []byte) ([]byte, bool, error) {
	plaintext, err := k.OpenTenant(ctx, k.tenant, "password", ad, sealed)
	return plaintext, false, err
}

// TestKeeper: records sealed by an encrypt.Keeper verify, also after its rotation, and not in another tenant.
func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	db, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(dir, "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); db.Close() })
	store, err := sqlstore.Open(t.Context(), db, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := encrypt.NewKeeper(kek, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	acme := hasher(t, keeper{k, "acme"}, password.Options{})
	record := hash(t, acme, "a", right)
	other := hasher(t, keeper{k, "other"}, password.Options{})
	for range 2 {
		if renewed, err := acme.Verify(t.Context(), "a", record, right); err != nil || renewed != nil {
			t.Errorf("%x, %v", renewed, err)
		}
		if _, err := acme.Verify(t.Context(), "b", record, right); !errors.Is(err, password.ErrRecord) {
			t.Errorf("moved: %v", err)
		}
		if _, err := other.Verify(t.Context(), "a", record, right); !errors.Is(err, password.ErrRecord) {
			t.Errorf("in another tenant: %v", err)
		}
		if err := k.Rotate(t.Context(), "acme", nil); err != nil {
			t.Fatal(err)
		}
	}
}
