package transfer_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/transfer"
)

// ExampleSuggest proposes what the columns of a file mean.
func ExampleSuggest() {
	m := transfer.Suggest(transfer.Customers(transfer.Others{}).Fields, []string{"公司名称", "Fone", "Emial", "Colour", "日期"},
		[][]string{{"Acme", "+86 138 0013 8000", "a@example.com", "red", "30/11/2025"}})
	for _, c := range m.Columns {
		fmt.Printf("%s=%s ", c.Header, c.Field)
	}
	fmt.Println(m.Dates, m.Ignored())
	// Output: 公司名称=company Fone=phone Emial=email Colour= 日期=created_at dmy [Colour]
}

func TestFindDateOrder(t *testing.T) {
	for want, values := range map[transfer.DateOrder][]string{
		transfer.DayMonthYear: {"20-10-16", "25-10-16", "01-03-17"},
		transfer.MonthDayYear: {"10/20/2016", "03/01/2017"},
		"":                    {"01/02/2017", "03/04/2017"},
	} {
		assert.Equal(t, want, transfer.FindDateOrder(values))
	}
	assert.Empty(t, transfer.FindDateOrder([]string{"31/12/2017", "12/31/2017"}), "no order has both")
	assert.Empty(t, transfer.FindDateOrder([]string{"soon", ""}))
}

func TestNames(t *testing.T) {
	n := transfer.NewNames()
	a, b := crm.NewUUID(), crm.NewUUID()
	n.Add("GTX Pro", a, "")
	n.Add("GTX Basic", b, "")
	n.Add("Twin", a, "")
	n.Add("twin", b, "")
	id, _, rule := n.Find(" gtx  pro")
	assert.Empty(t, rule)
	assert.Equal(t, a, id)
	_, _, rule = n.Find("GTXPro")
	assert.Equal(t, "bad_reference", rule)
	require.NotEmpty(t, n.Near("GTXPro"))
	assert.Equal(t, "GTX Pro", n.Near("GTXPro")[0])
	_, _, rule = n.Find("Twin")
	assert.Equal(t, "ambiguous", rule)
	assert.Empty(t, n.Near("something else"))
}

// FuzzMapping: any header and cells give a mapping that is used or refused, without a panic.
func FuzzMapping(f *testing.F) {
	f.Add("name", "phone", "Acme", "01/02/2024")
	f.Add("公司", "日期", "=1", "31.12.99")
	f.Fuzz(func(t *testing.T, a, b, x, y string) {
		m := transfer.Suggest(transfer.Opportunities(transfer.Others{}).Fields, []string{a, b}, [][]string{{x, y}})
		if len(m.Columns) != 2 || m.Columns[0].Field != "" && m.Columns[0].Field == m.Columns[1].Field {
			t.Fatal("a field twice")
		}
		transfer.FindDateOrder([]string{x, y})
		transfer.Harmless(x)
	})
}
