package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
)

func cellOf(v *guard.View[*crm.Customer], column string) string {
	switch column {
	case "name":
		return v.Value.Name.Expose()
	case "phone":
		return v.Value.Phone.Expose()
	}
	return v.Value.City
}

// TestExport: through the policy, with its masks, a mark, a canary that is in no store, and no formula.
//
//crm:item 13 partly
func TestExport(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	text := "external id,company,phone,city\n1,=cmd()|x,+8613800138000,＝1\n2,Acme,+8613900139000,Ulm\n"
	_, err := r.importer(nil).Run(ctx, r.admin, "", csv(t, text), suggested(t, text), transfer.Create)
	require.NoError(t, err)
	c := r.admin
	c.Reason, c.Met = "audit", []authz.Obligation{authz.NeedWatermark, authz.NeedStepUp, authz.NeedReason}
	canary := transfer.NewCanary("")
	o := transfer.ExportOptions[*crm.Customer]{
		Columns: []string{"name", "phone", "city"}, Cell: cellOf, Mark: []string{"# taken by", "=me"}, Canary: &canary,
	}
	var file bytes.Buffer
	n, err := transfer.Export(ctx, c, r.customers, guard.Query{}, transfer.CSVSink(&file), o)
	require.NoError(t, err)
	assert.EqualValues(t, 2, n)
	src := csv(t, file.String())
	assert.Equal(t, []string{"# taken by", "'=me"}, src.Header())
	out := file.String()
	assert.Contains(t, out, "'=cmd()")
	assert.Contains(t, out, "'＝1")
	assert.NotContains(t, out, "13800138000", "it is masked")
	assert.Contains(t, out, "# end")
	assert.True(t, canary.In(out))
	other := transfer.NewCanary("")
	assert.False(t, other.In(out))
	assert.EqualValues(t, 2, r.count(t, r.admin), "the canary is no customer")

	// Who may not export gets nothing, and neither does a sink that breaks.
	file.Reset()
	_, err = transfer.Export(ctx, r.sales, r.customers, guard.Query{}, transfer.CSVSink(&file), o)
	require.True(t, guard.Denied(err), "%v", err)
	assert.Empty(t, file.String())
	_, err = transfer.Export(ctx, c, r.customers, guard.Query{}, transfer.CSVSink(broken{}), o)
	require.ErrorIs(t, err, errBroken)
	_, err = transfer.Export(ctx, c, r.customers, guard.Query{}, transfer.CSVSink(&file), transfer.ExportOptions[*crm.Customer]{})
	require.ErrorIs(t, err, transfer.ErrExport)
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func ExampleCanary() {
	n := transfer.Canary{Seed: "6f1d0c2b9a8e4f70b1c2d3e4f5061728"} // NewCanary makes one
	fmt.Println(n.Value("name"), n.Value("phone") != "")
	leaked := "id,name,email\n" + n.ID().String() + "," + n.Value("name") + ",***\n"
	fmt.Println(n.In(leaked), transfer.NewCanary("").In(leaked))
	// Output:
	// Greta Tavares true
	// true false
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a=b": "a=b", "-12.50": "-12.50", "=1": "'=1", " =1": "' =1", "+1": "'+1", "@x": "'@x", "-x": "'-x", "\tx": "'\tx", "\rx": "'\rx",
		"＝1": "'＝1", "\u3000＋1": "'\u3000＋1", "\ufeff=1": "'\ufeff=1", "华": "华", "%1": "'%1", "|x": "'|x",
	} {
		assert.Equal(t, want, transfer.Harmless(in), "%q", in)
	}
}
