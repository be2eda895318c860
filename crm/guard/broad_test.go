package guard_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// TestSearchWholeNameAmongMany: a whole name is found although a thousand records share a part of it; a part of it is too broad, and so is a whole name that nobody has.
func TestSearchWholeNameAmongMany(t *testing.T) {
	r := newRig(t)
	batch := make([]*crm.Customer, 0, guard.MaxBatch)
	for i := range guard.MaxBatch + 200 {
		v := customer(fmt.Sprintf("杭州明%c科技有限公司", rune(0x4e10+i)), "", "")
		v.Owner, v.Team = crm.ID[crm.Employee](lin), "/east/1/"
		if batch = append(batch, v); len(batch) == guard.MaxBatch || i == guard.MaxBatch+199 {
			errs, err := r.customers.CreateAll(t.Context(), admin, batch)
			require.NoError(t, err)
			for _, err := range errs {
				require.NoError(t, err)
			}
			batch = batch[:0]
		}
	}
	r.add(t, sales, "苏州远远科技有限公司", "13800000001", "")
	got, err := r.customers.Search(t.Context(), sales, "苏州远远科技有限公司", 10, "name")
	require.NoError(t, err)
	require.Len(t, got.Items, 1)
	assert.Equal(t, "苏州远远科技有限公司", got.Items[0].Value.Name.Expose())
	for _, term := range []string{"苏州远近科技有限公司", "远远科技有限公司"} {
		_, err = r.customers.Search(t.Context(), sales, term, 10, "name")
		require.ErrorIs(t, err, guard.ErrBroad, term)
	}
	got, err = r.customers.Search(t.Context(), other, "苏州远远科技有限公司", 10, "name")
	if err == nil {
		assert.Empty(t, got.Items, "of somebody else")
	}
}
