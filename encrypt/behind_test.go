package encrypt_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func newLocal(t testing.TB) *localkek.KEK {
	t.Helper()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	return kek
}

// damaging is a store in which one bit of one record has flipped.
type damaging struct {
	keys.Store
	id keys.ID
}

func (d *damaging) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	all, err := d.Store.Find(ctx, tenant, q)
	for i := range all {
		if all[i].ID == d.id && len(all[i].Wrapped) > 0 {
			all[i].Wrapped[len(all[i].Wrapped)-1] ^= 1
		}
	}
	return all, err
}

// TestQuarantine: a damaged key record is named, everything else is rotated, and once the record is set aside the epoch
// ends and the KEK's old version with it.
func TestQuarantine(t *testing.T) {
	kek, store, c := newLocal(t), &damaging{Store: keys.NewMemory()}, singleCodec(t)
	opts := &encrypt.Options{Grace: -1}
	k := newKeeper(t, kek, store, opts)
	seal := func(n byte) (encrypt.Record, []encrypt.SealedField) {
		r := encrypt.Record{Tenant: "acme", ID: [16]byte{n}, Person: [16]byte{n}}
		s, err := c.Seal(ctx, k, r, &single{encrypt.NewText("x")}, nil)
		require.NoError(t, err)
		return r, s.Fields
	}
	hurt, hurtFields := seal(1)
	well, wellFields := seal(2)
	erased, erasedFields := seal(3)
	copies := exported(t, k)
	warm := newKeeper(t, kek, store, opts)
	_, err := c.Open(ctx, warm, hurt, hurtFields, &single{}, "name")
	require.NoError(t, err)
	store.id = keys.ID(hurtFields[0].Data[2:10])
	_, err = k.Erase(ctx, "acme", erased.Person, nil)
	require.NoError(t, err)
	attack := func() error {
		there := newKeeper(t, kek, keys.NewMemory(), nil)
		if err := there.ImportKeys(ctx, "acme", copies); err != nil {
			return err
		}
		_, err := c.Open(ctx, there, erased, erasedFields, &single{}, "name")
		return err
	}
	for range 2 {
		err := k.Rotate(ctx, "acme", nil)
		var damaged *keys.DamagedError
		require.ErrorAs(t, err, &damaged)
		require.ErrorIs(t, err, encrypt.ErrTampered)
		require.Equal(t, []keys.Damaged{{ID: store.id, Person: hurt.Person, Retention: keys.Ordinary}}, damaged.Records)
		require.ErrorContains(t, err, store.id.String())
	}
	require.NoError(t, attack(), "the damaged record holds the epoch")
	_, err = c.Open(ctx, k, well, wellFields, &single{}, "name")
	require.NoError(t, err)

	// Nothing but damaged records of persons is set aside.
	var kept [][]byte
	keep := func(_ [8]byte, record []byte) error { kept = append(kept, record); return nil }
	roots, err := store.Find(ctx, "acme", keys.Query{Tenant: true})
	require.NoError(t, err)
	for _, ids := range [][]keys.ID{{keys.ID(wellFields[0].Data[2:10])}, {store.id, keys.ID(wellFields[0].Data[2:10])}, {roots[0].ID}, {{9}}} {
		require.Error(t, k.Quarantine(ctx, "acme", ids, keep))
	}
	require.Error(t, k.Quarantine(ctx, "acme", []keys.ID{store.id}, nil))
	full := errors.New("no room")
	require.ErrorIs(t, k.Quarantine(ctx, "acme", []keys.ID{store.id}, func([8]byte, []byte) error { return full }), full)
	require.Empty(t, kept)
	require.ErrorIs(t, k.Rotate(ctx, "acme", nil), encrypt.ErrTampered)

	require.NoError(t, k.Quarantine(ctx, "acme", []keys.ID{store.id}, keep))
	require.NoError(t, k.Quarantine(ctx, "acme", []keys.ID{store.id}, keep))
	require.Len(t, kept, 1)
	var r keys.Record
	require.NoError(t, r.UnmarshalBinary(kept[0]))
	require.Equal(t, store.id, r.ID)
	require.NotEmpty(t, r.Wrapped)
	require.NoError(t, k.Rotate(ctx, "acme", nil))
	require.ErrorIs(t, attack(), encrypt.ErrRetired, "the old copy")
	_, err = c.Open(ctx, k, hurt, hurtFields, &single{}, "name")
	require.ErrorIs(t, err, encrypt.ErrRetired)
	_, err = c.Open(ctx, k, well, wellFields, &single{}, "name")
	require.NoError(t, err)
	for _, k := range []*encrypt.Keeper{k, warm} { // a process that had the key sees it too: it must seal nothing more with it
		_, err = c.Seal(ctx, k, hurt, &single{encrypt.NewText("y")}, nil)
		require.ErrorIs(t, err, encrypt.ErrRetired)
	}
	due, err := k.Due(ctx, "acme")
	require.NoError(t, err)
	require.Empty(t, due)
	require.NoError(t, k.Spare(ctx, "acme", hurt.Person))
	_, err = k.Renew(ctx, "acme")
	require.NoError(t, err)
	again, err := c.Seal(ctx, k, hurt, &single{encrypt.NewText("z")}, nil)
	require.NoError(t, err)
	_, err = c.Open(ctx, warm, hurt, again.Fields, &single{}, "name")
	require.NoError(t, err)
	_, err = c.Open(ctx, k, hurt, hurtFields, &single{}, "name")
	require.ErrorIs(t, err, encrypt.ErrRetired)
	// The quarantine does not stand for the beginning of an erasure's grace.
	later := newKeeper(t, kek, store, nil)
	receipt, err := later.Erase(ctx, "acme", hurt.Person, nil)
	require.NoError(t, err)
	require.Empty(t, receipt.Keys)
	require.Equal(t, 72*time.Hour, receipt.Due.Sub(receipt.At))
}

// TestGoneBy: the date of a receipt counts all tenants under the KEK, and an old copy opens nothing once they were
// rotated as often as Options.Epoch says. Behind names who is late.
func TestGoneBy(t *testing.T) {
	const day = 24 * time.Hour
	kek, store, c := newLocal(t), keys.NewMemory(), singleCodec(t)
	var now clock
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now.now.Store(start.UnixNano())
	opts := &encrypt.Options{Grace: -1, Now: now.Now}
	k := newKeeper(t, kek, store, opts)
	seal := func(tenant string) (encrypt.Record, []encrypt.SealedField) {
		r := rec
		r.Tenant = tenant
		s, err := c.Seal(ctx, k, r, &single{encrypt.NewText("x")}, nil)
		require.NoError(t, err)
		return r, s.Fields
	}
	r, fields := seal("acme")
	now.Advance(10 * day)
	seal("globex")
	copies := exported(t, k)
	attack := func() error {
		there := newKeeper(t, kek, keys.NewMemory(), opts)
		if err := there.ImportKeys(ctx, "acme", copies); err != nil {
			return err
		}
		_, err := c.Open(ctx, there, r, fields, &single{}, "name")
		return err
	}
	receipt, err := k.Erase(ctx, "acme", r.Person, nil)
	require.NoError(t, err)
	require.Equal(t, start.Add(60*day), receipt.GoneBy)
	now.Advance(20*day - time.Hour)
	seal("initech") // still under the KEK's first version
	require.NoError(t, k.Rotate(ctx, "acme", nil))
	require.NoError(t, attack())
	behind, err := k.Behind(ctx, "acme")
	require.NoError(t, err)
	require.Len(t, behind, 2)
	require.Equal(t, "globex", behind[0].Tenant)
	require.Equal(t, uint32(1), behind[0].Version)
	require.Empty(t, behind[0].Wrapped)
	require.Equal(t, "initech", behind[1].Tenant)
	now.Advance(10 * day)
	require.NoError(t, k.Rotate(ctx, "globex", nil))
	require.NoError(t, attack())
	now.now.Store(receipt.GoneBy.Add(-time.Hour).UnixNano())
	require.NoError(t, k.Rotate(ctx, "initech", nil))
	require.ErrorIs(t, attack(), encrypt.ErrRetired)
	behind, err = k.Behind(ctx, "initech")
	require.NoError(t, err)
	require.Len(t, behind, 2) // their newest ones are older, of course
	// Who has missed a rotation leaves every tenant's date open.
	seal("acme")
	now.Advance(45 * day)
	require.NoError(t, k.Rotate(ctx, "acme", nil))
	receipt, err = k.Erase(ctx, "acme", r.Person, nil)
	require.NoError(t, err)
	require.Len(t, receipt.Keys, 1)
	require.Zero(t, receipt.GoneBy)
}

// bare is a KEK that can do no more than wrap and unwrap.
type bare struct{ keys.KEK }

// rotates can make versions, and ends none.
type rotates struct{ bare }

func (rotates) Rotate(context.Context) error { return nil }

// brought is a key that a customer brought: it says so when it is to make a version of itself.
type brought struct{ *localkek.KEK }

func (brought) Rotate(context.Context) error { return errors.ErrUnsupported }

// TestGoneByUnknown: no date is promised where nothing ever ends, nor while a tenant moves.
func TestGoneByUnknown(t *testing.T) {
	for what, kek := range map[string]keys.KEK{
		"no versions": bare{newLocal(t)}, "no end": rotates{bare{newLocal(t)}}, "brought": brought{newLocal(t)},
	} {
		k := newKeeper(t, kek, keys.NewMemory(), &encrypt.Options{Grace: -1})
		_, err := k.SealFor(ctx, "acme", rec.Person, "log", nil, nil)
		require.NoError(t, err)
		require.NoError(t, k.Rotate(ctx, "acme", nil))
		r, err := k.Erase(ctx, "acme", rec.Person, nil)
		require.NoError(t, err)
		require.Len(t, r.Keys, 1)
		require.Zero(t, r.GoneBy, what)
	}
}

// TestMoveKEK: a tenant gets a KEK of its own, and another one later: what it has opens by the KEK that its epoch key
// names, and Rotate moves it.
func TestMoveKEK(t *testing.T) {
	shared, first, second := newLocal(t), newLocal(t), newLocal(t)
	store, c := keys.NewMemory(), singleCodec(t)
	s, err := c.Seal(ctx, newKeeper(t, shared, store, nil), rec, &single{encrypt.NewText("x")}, nil)
	require.NoError(t, err)
	for _, own := range []*localkek.KEK{first, second} {
		opts := &encrypt.Options{Grace: -1, KEKFor: func(context.Context, string) (keys.KEK, error) { return own, nil }}
		if own == second {
			_, err := c.Open(ctx, newKeeper(t, shared, store, opts), rec, s.Fields, &single{}, "name")
			require.ErrorIs(t, err, encrypt.ErrTampered, "nobody has the KEK that the epoch key names")
			opts.KEKByID = func(_ context.Context, id string) (keys.KEK, error) {
				if id == first.ID() {
					return first, nil
				}
				return nil, nil
			}
		}
		k := newKeeper(t, shared, store, opts)
		_, err := c.Open(ctx, k, rec, s.Fields, &single{}, "name")
		require.NoError(t, err)
		_, err = k.SealFor(ctx, rec.Tenant, [16]byte{7}, "log", nil, nil)
		require.NoError(t, err)
		receipt, err := k.Erase(ctx, rec.Tenant, [16]byte{7}, nil)
		require.NoError(t, err)
		require.Zero(t, receipt.GoneBy, "before it has moved")
		require.NoError(t, k.Rotate(ctx, rec.Tenant, nil))
		// From now on its own KEK is enough.
		_, err = c.Open(ctx, newKeeper(t, own, store, nil), rec, s.Fields, &single{}, "name")
		require.NoError(t, err)
		epochs, err := store.Epochs(ctx, own.ID())
		require.NoError(t, err)
		require.Len(t, epochs, 1)
	}
	for _, left := range []*localkek.KEK{shared, first} {
		epochs, err := store.Epochs(ctx, left.ID())
		require.NoError(t, err)
		require.Empty(t, epochs)
	}
}
