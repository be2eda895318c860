package encrypt_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// losing is a store that has lost the records that lost names.
type losing struct {
	keys.Store
	lost  func(r *keys.Record) bool
	added int
}

func (l *losing) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	limit := q.Limit
	if q.Limit = 0; l.lost == nil {
		q.Limit = limit
	}
	all, err := l.Store.Find(ctx, tenant, q)
	out := all[:0]
	for i := range all {
		if l.lost == nil || !l.lost(&all[i]) {
			out = append(out, all[i])
		}
	}
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, err
}

func (l *losing) Add(ctx context.Context, tenant string, records []keys.Record) error {
	l.added += len(records)
	return l.Store.Add(ctx, tenant, records)
}

// TestKeysLost: a tenant that has anything gets no new keys in the place of those that are lost. Nothing is repaired
// without a word, and what cannot be opened is missing, not retired.
func TestKeysLost(t *testing.T) {
	kek, store := newKEK(t), &losing{Store: keys.NewMemory()}
	x := newKeeper(t, kek, store, &encrypt.Options{Grace: -1})
	c := singleCodec(t)
	sealed, err := c.Seal(ctx, x, rec, &single{encrypt.NewText("x")}, nil)
	require.NoError(t, err)
	other := rec
	other.ID, other.Person = [16]byte{8}, [16]byte{9}
	gone, err := c.Seal(ctx, x, other, &single{encrypt.NewText("y")}, nil)
	require.NoError(t, err)
	_, err = x.Erase(ctx, rec.Tenant, other.Person, nil)
	require.NoError(t, err)
	require.NoError(t, x.Rotate(ctx, rec.Tenant, nil)) // one epoch key is retired, one lives
	roots, err := store.Find(ctx, rec.Tenant, keys.Query{Tenant: true})
	require.NoError(t, err)
	var living keys.ID
	for _, r := range roots {
		if r.Kind == keys.EpochKey && len(r.Wrapped) > 0 {
			living = r.ID
		}
	}
	for what, lost := range map[string]func(r *keys.Record) bool{
		"all tenant and epoch keys":                     func(r *keys.Record) bool { return r.Kind == keys.EpochKey || r.Kind == keys.TenantKey },
		"all but the tombstones":                        func(r *keys.Record) bool { return r.Kind != keys.Tombstone },
		"everything, and the number is above the first": func(*keys.Record) bool { return true },
		"the epoch key":                                 func(r *keys.Record) bool { return r.ID == living },
		"all epoch keys":                                func(r *keys.Record) bool { return r.Kind == keys.EpochKey },
		"the tenant keys":                               func(r *keys.Record) bool { return r.Kind == keys.TenantKey },
		"the index key":                                 func(r *keys.Record) bool { return r.Purpose == "index" },
	} {
		store.lost, store.added = lost, 0
		k := newKeeper(t, kek, store, nil)
		for range 2 {
			_, err := c.Open(ctx, k, rec, sealed.Fields, &single{}, "name")
			_, werr := c.Seal(ctx, k, encrypt.Record{Tenant: rec.Tenant, ID: [16]byte{3}, Person: [16]byte{4}}, &single{encrypt.NewText("z")}, nil)
			for _, err := range []error{err, werr} {
				if !errors.Is(err, encrypt.ErrKeyMissing) || errors.Is(err, encrypt.ErrRetired) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		if store.added > 0 {
			t.Errorf("%s: %d records were added", what, store.added)
		}
	}
	// Found again, they serve again.
	store.lost = nil
	k := newKeeper(t, kek, store, nil)
	_, err = c.Open(ctx, k, rec, sealed.Fields, &single{}, "name")
	require.NoError(t, err)
	states, err := c.Open(ctx, k, other, gone.Fields, &single{}, "name")
	require.NoError(t, err)
	require.Equal(t, encrypt.StateErased, c.State(states, "name"))
}

// TestEpochLost: a person key whose epoch key is lost while others live is missing, and the tenant goes on.
func TestEpochLost(t *testing.T) {
	kek, store := newKEK(t), &losing{Store: keys.NewMemory()}
	c := singleCodec(t)
	k := newKeeper(t, kek, store, nil)
	sealed, err := c.Seal(ctx, k, rec, &single{encrypt.NewText("x")}, nil)
	require.NoError(t, err)
	require.NoError(t, k.Rotate(ctx, rec.Tenant, nil))
	stray := keys.ID{1, 2, 3} // as if the person key had been left under an epoch key that is gone
	all, err := store.Find(ctx, rec.Tenant, keys.Query{Persons: [][16]byte{rec.Person}})
	require.NoError(t, err)
	mem := &strayStore{Store: store, id: all[0].ID, epoch: stray}
	fresh := newKeeper(t, kek, mem, nil)
	_, err = c.Open(ctx, fresh, rec, sealed.Fields, &single{}, "name")
	if !errors.Is(err, encrypt.ErrKeyMissing) || errors.Is(err, encrypt.ErrRetired) {
		t.Errorf("an epoch key that is not there: %v", err)
	}
	missing, err := fresh.MissingKeys(ctx, rec.Tenant, [][]byte{sealed.Fields[0].Data})
	require.NoError(t, err)
	require.Equal(t, []int{0}, missing)
	_, err = c.Seal(ctx, fresh, encrypt.Record{Tenant: rec.Tenant, ID: [16]byte{3}, Person: [16]byte{4}}, &single{encrypt.NewText("z")}, nil)
	require.NoError(t, err)
	// A retired one is retired.
	roots, err := store.Find(ctx, rec.Tenant, keys.Query{Tenant: true})
	require.NoError(t, err)
	for _, r := range roots {
		if r.Kind == keys.EpochKey && len(r.Wrapped) == 0 {
			mem.epoch = r.ID
		}
	}
	_, err = c.Open(ctx, newKeeper(t, kek, mem, nil), rec, sealed.Fields, &single{}, "name")
	if !errors.Is(err, encrypt.ErrRetired) || errors.Is(err, encrypt.ErrKeyMissing) {
		t.Errorf("an epoch key that is retired: %v", err)
	}
}

// strayStore shows one record under another epoch key.
type strayStore struct {
	keys.Store
	id, epoch keys.ID
}

func (s *strayStore) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	all, err := s.Store.Find(ctx, tenant, q)
	for i := range all {
		if all[i].ID == s.id {
			all[i].Epoch = s.epoch
		}
	}
	return all, err
}

// TestWriteBack: what was not opened is never written over by a nil slice of texts.
func TestWriteBack(t *testing.T) {
	type tagged struct {
		Name encrypt.Text            `protect:"personal"`
		Tags []encrypt.Text          `protect:"personal"`
		More map[string]encrypt.Text `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*tagged](nil)
	require.NoError(t, err)
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	in := &tagged{encrypt.NewText("x"), []encrypt.Text{encrypt.NewText("a")}, map[string]encrypt.Text{"k": encrypt.NewText("b")}}
	s, err := c.Seal(ctx, k, rec, in, nil)
	require.NoError(t, err)
	var out tagged
	_, err = c.Open(ctx, k, rec, s.Fields, &out, "name")
	require.NoError(t, err)
	_, err = c.Seal(ctx, k, rec, &out, s.Fields)
	require.ErrorIs(t, err, encrypt.ErrNotClear)
	kept, err := c.Seal(ctx, k, rec, &out, s.Fields, "tags", "more")
	require.NoError(t, err)
	require.Len(t, kept.Fields, 3)
	out.Tags, out.More = []encrypt.Text{}, map[string]encrypt.Text{}
	cleared, err := c.Seal(ctx, k, rec, &out, s.Fields)
	require.NoError(t, err)
	_, err = c.Open(ctx, k, rec, cleared.Fields, &out, c.SealedNames()...)
	require.NoError(t, err)
	require.Empty(t, out.Tags)
	_, err = c.Seal(ctx, k, rec, nil, nil)
	require.Error(t, err)
}

// TestJSONKeeps: what JSON would change is refused, not changed.
func TestJSONKeeps(t *testing.T) {
	type loose struct {
		Name encrypt.Text            `protect:"personal"`
		Tags []encrypt.Text          `protect:"personal"`
		More map[string]encrypt.Text `protect:"personal"`
		Any  map[string]any          `protect:"personal"`
		Strs []string                `protect:"personal"`
	}
	c, err := encrypt.NewCodec[*loose](nil)
	require.NoError(t, err)
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	bad := encrypt.NewText("a\xff")
	for _, v := range []loose{
		{Tags: []encrypt.Text{bad}}, {More: map[string]encrypt.Text{"k": bad}}, {More: map[string]encrypt.Text{"\xff": {}}}, {Strs: []string{"\xfe"}},
		{Any: map[string]any{"n": int64(1<<53 + 1)}}, {Any: map[string]any{"n": []any{uint64(1 << 60)}}}, {Any: map[string]any{"s": "\xff"}},
	} {
		_, err := c.Seal(ctx, k, rec, &v, nil)
		require.ErrorContains(t, err, "JSON cannot hold it")
	}
	s, err := c.Seal(ctx, k, rec, &loose{Name: bad, Any: map[string]any{"n": int64(1 << 53)}}, nil)
	require.NoError(t, err)
	var out loose
	_, err = c.Open(ctx, k, rec, s.Fields, &out, c.SealedNames()...)
	require.NoError(t, err)
	require.Equal(t, "a\xff", out.Name.Expose())
}
