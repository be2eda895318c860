package encrypt_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// counting is a store that says how many keys it took, and counts how often it is asked for those of persons.
type counting struct {
	*keys.Memory
	persons int
	before  func(records []keys.Record) error // an insertion
}

func (c *counting) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	if q.Persons != nil {
		c.persons++
	}
	return c.Memory.Find(ctx, tenant, q)
}

func (c *counting) AddCounted(ctx context.Context, tenant string, records []keys.Record) (int, error) {
	if c.before != nil && len(records) > 0 && records[0].Kind == keys.PersonKey {
		if err := c.before(records); err != nil {
			return 0, err
		}
	}
	return c.Memory.AddCounted(ctx, tenant, records)
}

// TestMakeKeys: the keys of new persons are asked for once, and those that somebody else made first, or may have, are read again.
func TestMakeKeys(t *testing.T) {
	codec, kek, store := newCodec(t), newKEK(t), &counting{Memory: keys.NewMemory()}
	keeper := newKeeper(t, kek, store, nil)
	rec := func(n byte) encrypt.Record {
		return encrypt.Record{Tenant: "acme", Person: [16]byte{n}, ID: [16]byte{n}}
	}
	opens := func(r encrypt.Record, s encrypt.Sealed) { // another process opens it
		t.Helper()
		got := &customer{}
		_, err := codec.Open(ctx, newKeeper(t, kek, store, nil), r, s.Fields, got, "name")
		require.NoError(t, err)
		assert.Equal(t, "张伟", got.Name.s)
	}
	only := func(name string) *customer { return &customer{Name: text{s: name}} }

	var recs []encrypt.Record
	var vs []*customer
	for n := range byte(100) {
		recs, vs = append(recs, rec(n+1)), append(vs, only("张伟"))
	}
	sealed, err := codec.SealAll(ctx, keeper, recs, vs)
	require.NoError(t, err)
	assert.Equal(t, 1, store.persons, "how often a hundred new persons are asked for")
	opens(recs[0], sealed[0])
	opens(recs[99], sealed[99])
	made, err := store.Memory.Find(ctx, "acme", keys.Query{All: true})
	require.NoError(t, err)
	together := map[[4]byte]int{}
	for _, r := range made {
		if r.Kind == keys.PersonKey {
			together[[4]byte(r.ID[:4])]++
		}
	}
	assert.Len(t, together, 1, "keys made together have ids that lie together")

	// Another process makes the key first: its key counts.
	store.persons = 0
	var rival encrypt.Sealed
	store.before = func([]keys.Record) error {
		store.before = nil
		rival, err = codec.Seal(ctx, newKeeper(t, kek, store, nil), rec(200), only("李娜"), nil)
		return err
	}
	ours, err := codec.Seal(ctx, keeper, rec(200), only("张伟"), nil)
	require.NoError(t, err)
	assert.Equal(t, 3, store.persons, "the rival's one and two of ours")
	assert.Equal(t, rival.Fields[0].Data[:10], ours.Fields[0].Data[:10], "both name one key")
	opens(rec(200), ours)

	// Who has a key of another class is read again, for it may have been blocked since.
	store.persons = 0
	v := only("张伟")
	v.Signer, v.SignerID = text{s: "张伟"}, id{200} // of the class contract
	signed, err := codec.Seal(ctx, newKeeper(t, kek, store, nil), rec(200), v, nil)
	require.NoError(t, err)
	assert.Equal(t, 2, store.persons)
	opens(rec(200), signed)
	store.before = func([]keys.Record) error {
		store.before = nil
		found, err := store.Memory.Find(ctx, "acme", keys.Query{Persons: [][16]byte{{1}}})
		if err != nil {
			return err
		}
		var ids []keys.ID
		for i := range found {
			ids = append(ids, found[i].ID)
		}
		return store.Block(ctx, "acme", ids, found[0].Created)
	}
	v.SignerID = id{1}
	_, err = codec.Seal(ctx, newKeeper(t, kek, store, nil), rec(1), v, nil)
	require.ErrorIs(t, err, encrypt.ErrBlocked)
	_, err = codec.Seal(ctx, newKeeper(t, kek, store, nil), rec(1), only("张伟"), nil)
	require.ErrorIs(t, err, encrypt.ErrBlocked)
}
