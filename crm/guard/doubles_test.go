package guard_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// TestDoubles: a double has the same fields filled, by inventions under other persons and keys; it authenticates and opens there.
func TestDoubles(t *testing.T) {
	ctx := t.Context()
	keeper, err := encrypt.NewKeeper(doublesKEK(t), keys.NewMemory(), nil)
	require.NoError(t, err)
	d, err := guard.DoublesOf[*crm.Contract](keeper, nil)
	require.NoError(t, err)
	assert.Equal(t, crm.TypeContract, d.Schema().Type)

	own, signer := crm.NewUUID(), crm.NewUUID()
	was := crm.Row{Persons: []crm.UUID{own, signer}, Sealed: []crm.SealedField{
		{Name: "gone", Data: []byte("of a field that the type had once")},
		{Name: "note", Data: []byte("sealed note"), Tokens: []crm.Token{{Value: 4711}}},
		{Name: "signatory", Data: []byte("sealed signatory")},
	}, MAC: []byte("a MAC of another key")}
	body := rowformat.Append(nil, &was)
	got, err := d.Person(body)
	require.NoError(t, err)
	assert.Equal(t, own, got)

	// As the sandbox will have it: ids are replaced already.
	other := map[crm.UUID]crm.UUID{own: crm.NewUUID(), signer: crm.NewUUID()}
	row := crm.Row{Tenant: "default", Type: crm.TypeContract, ID: crm.NewUUID(), Version: 7, Deleted: true, Clear: make([]crm.Value, len(d.Schema().Columns))}
	for i, c := range d.Schema().Columns {
		if c.Name == "created_at" {
			row.Clear[i] = crm.TimeValue(fixed)
		}
		if c.Name == "signatory_person" {
			row.Clear[i] = crm.StringValue(other[signer].String())
		}
	}
	asked := map[string]crm.UUID{}
	with := guard.Invention{
		Person: func(u crm.UUID) crm.UUID { return other[u] },
		Value: func(f encrypt.Field, person crm.UUID, sealed []byte) (string, error) {
			assert.NotEmpty(t, sealed)
			asked[f.Name] = person
			return "invented " + f.Name, nil
		},
	}
	double, err := d.Body(ctx, row, body, with)
	require.NoError(t, err)
	assert.Equal(t, map[string]crm.UUID{"note": other[own], "signatory": other[signer]}, asked, "each of its own person")
	for _, b := range [][]byte{own[:], signer[:], []byte("sealed note"), []byte("sealed signatory"), []byte("gone"), []byte("a MAC")} {
		assert.NotContains(t, string(double), string(b))
	}
	var now crm.Row
	require.NoError(t, rowformat.Parse(double, &now))
	assert.ElementsMatch(t, []crm.UUID{other[own], other[signer]}, now.Persons)
	require.Len(t, now.Sealed, 2)
	var v crm.Contract
	v.SignatoryPerson = crm.ID[crm.Person](other[signer])
	codec, err := encrypt.NewCodec[*crm.Contract](&encrypt.CodecOptions{Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()})
	require.NoError(t, err)
	var fields []encrypt.SealedField
	for _, f := range now.Sealed {
		fields = append(fields, encrypt.SealedField{Name: f.Name, Data: f.Data})
	}
	_, err = codec.Open(ctx, keeper, encrypt.Record{Tenant: "default", ID: row.ID, Person: other[own]}, fields, &v, codec.SealedNames()...)
	require.NoError(t, err)
	assert.Equal(t, "invented note", v.Note.Expose())
	assert.Equal(t, "invented signatory", v.Signatory.Expose())

	// What was purged has no double but an empty row.
	empty := crm.Row{Tenant: "default", Type: crm.TypeContract, ID: crm.NewUUID(), Version: 9, Deleted: true, Clear: make([]crm.Value, len(d.Schema().Columns))}
	hollow, err := d.Body(ctx, empty, rowformat.Append(nil, &crm.Row{MAC: []byte("old")}), with)
	require.NoError(t, err)
	now = crm.Row{}
	require.NoError(t, rowformat.Parse(hollow, &now))
	assert.Empty(t, now.Persons)
	assert.Empty(t, now.Sealed)
	assert.NotEmpty(t, now.MAC)

	// Refused: what is no body, another type, other columns, and what the inventor or the key service says.
	failing := errors.New("not now")
	_, err = d.Body(ctx, row, body[:len(body)-1], with)
	assert.ErrorIs(t, err, crm.ErrDamaged)
	_, err = d.Body(ctx, row, nil, with)
	assert.ErrorIs(t, err, crm.ErrDamaged)
	_, err = d.Person(body[1:])
	assert.ErrorIs(t, err, crm.ErrDamaged)
	wrong := row
	wrong.Type = crm.TypeQuote
	_, err = d.Body(ctx, wrong, body, with)
	assert.Error(t, err)
	wrong = row
	wrong.Clear = wrong.Clear[1:]
	_, err = d.Body(ctx, wrong, body, with)
	assert.Error(t, err)
	bad := with
	bad.Value = func(encrypt.Field, crm.UUID, []byte) (string, error) { return "", failing }
	_, err = d.Body(ctx, row, body, bad)
	assert.ErrorIs(t, err, failing)
	ended, end := context.WithCancel(ctx)
	end()
	fresh, err := encrypt.NewKeeper(doublesKEK(t), keys.NewMemory(), nil)
	require.NoError(t, err)
	d2, err := guard.DoublesOf[*crm.Contract](fresh, nil)
	require.NoError(t, err)
	_, err = d2.Body(ended, row, body, with)
	assert.Error(t, err)
}

func doublesKEK(t testing.TB) keys.KEK {
	t.Helper()
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	return kek
}
