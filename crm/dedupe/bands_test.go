package dedupe_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
)

var _ transfer.Checker[*crm.Customer] = (*dedupe.Checker[*crm.Customer])(nil)

// TestBands: an import hears of what is stored, and of the rows before one in its file, in this call or in earlier ones.
func TestBands(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	named := func(name, phone string) *crm.Customer {
		return &crm.Customer{
			Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(name), Phone: crm.NewText(phone),
		}
	}
	_, err := o.customers.Create(ctx, sales, named("Grace Hopper", "13800138001"))
	require.NoError(t, err)
	checker, err := dedupe.New(o.customers, nil, nil)
	require.NoError(t, err)
	bands := func(before []*crm.Customer, vs ...*crm.Customer) []guard.Band {
		t.Helper()
		got, err := checker.Bands(ctx, admin, before, vs)
		require.NoError(t, err)
		return got
	}
	assert.Empty(t, bands(nil))
	assert.Equal(t, []guard.Band{guard.Certain, guard.Unlike, guard.Certain, guard.Unlike},
		bands(nil, named("Hopper, Grace", "138 0013 8001"), named("Ada Lovelace", "13800138002"), named("Ada Lovelace", "+86 138 0013 8002"), named("Ada Byron", "13800138003")))
	assert.Equal(t, []guard.Band{guard.Certain, guard.Unlike},
		bands([]*crm.Customer{named("Alan Turing", "13800138004")}, named("Turing, Alan", "13800138004"), named("Alan Turing", "13900139004")))
	var crowd []*crm.Customer // more than one AlikeEach takes, and than a block compares
	for i := range 3 * guard.MostChecks {
		crowd = append(crowd, named("Ann Smith", fmt.Sprintf("139%08d", i)))
	}
	crowd = append(crowd, named("Ann Smith", "13900000599"), named("Grace Hopper", "13800138001"))
	got := bands(nil, crowd...)
	assert.Equal(t, []guard.Band{guard.Certain, guard.Certain}, got[len(got)-2:], "a phone is found among so many namesakes, and a record after so many rows")
	assert.NotContains(t, got[:len(got)-2], guard.Certain)
}

// TestBandsRefused: who may not check hears nothing, and who has asked too much neither.
func TestBandsRefused(t *testing.T) {
	o := newOffice(t)
	checker, err := dedupe.New(o.customers, nil, nil)
	require.NoError(t, err)
	v := &crm.Customer{Kind: crm.PersonCustomer, Name: crm.NewText("Ann"), Phone: crm.NewText("13800138001")}
	_, err = checker.Bands(t.Context(), as("nobody", 9, "/east/1/"), nil, []*crm.Customer{v})
	require.True(t, guard.Denied(err), "%v", err)
	var many []*crm.Customer
	for range 121 {
		many = append(many, v)
	}
	_, err = checker.Bands(t.Context(), sales, nil, many)
	require.ErrorIs(t, err, guard.ErrQuota)
}
