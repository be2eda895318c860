package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// filled is a form with a version.
func filled(v int64, more ...string) url.Values {
	form := version(v)
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return form
}

// TestOpportunityPages: an opportunity begins at a customer's page in the first stage, goes through the stages, and is lost for a reason;
// whoever may not see the customer's sales can do none of it.
//
//crm:item 2
func TestOpportunityPages(t *testing.T) {
	o := newOffice(t)
	seller, third, auditor := o.as("sales"), o.as("third"), o.as("auditor")
	customer := o.customers[0].ID.String()
	p, err := o.app.Pipelines.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	pipeline := p.Items[0].Value
	stages := pipeline.Stages
	assert.Contains(t, seller.body("/customers/"+customer), "/opportunities/new?customer="+customer)
	assert.Contains(t, seller.body("/opportunities/new?customer="+customer), pipeline.ID.String())

	form := filled(0, "name", "Forty pumps", "customer", customer, "pipeline", pipeline.ID.String(), "amount", "1200.50", "currency", "CNY", "close_by", "2027-01-31")
	for name, change := range map[string][2]string{
		"no pipeline": {"pipeline", ""}, "another's": {"pipeline", o.id("sales")}, "no name": {"name", ""}, "no number": {"amount", "twelve"}, "no date": {"close_by", "soon"},
	} {
		broken := filled(0)
		for k := range form {
			broken.Set(k, form.Get(k))
		}
		broken.Set(change[0], change[1])
		code, _ := seller.post("/opportunities", broken)
		assert.Contains(t, []int{http.StatusUnprocessableEntity, http.StatusBadRequest}, code, name)
	}
	for _, b := range []*browser{third, auditor} {
		code, _ := b.post("/opportunities", form)
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code)
	}
	count := func() int64 {
		n, err := o.app.Opportunities.Count(t.Context(), app.System("test"), guard.Query{})
		require.NoError(t, err)
		return n
	}
	require.Zero(t, count(), "a refusal leaves nothing")

	form.Set("stage", stages[3].Name) // not for a form to say
	code, at := seller.post("/opportunities", form)
	require.Equal(t, http.StatusSeeOther, code)
	body := seller.body(at)
	assert.Contains(t, body, "Forty pumps")
	assert.Contains(t, body, "10 %")
	assert.Equal(t, http.StatusNotFound, third.get(at))
	stored := func() *sales.Opportunity {
		list, err := o.app.Opportunities.List(t.Context(), app.System("test"), guard.Query{})
		require.NoError(t, err)
		require.Len(t, list.Items, 1)
		return list.Items[0].Value
	}
	got := stored()
	assert.Equal(t, stages[0].Name, got.Stage)
	assert.EqualValues(t, 120050, got.Amount)
	assert.Equal(t, o.customers[0].Person, got.Person, "personal data in it is the customer's")
	assert.Contains(t, seller.body("/opportunities"), "Forty pumps")
	assert.Contains(t, seller.body("/customers/"+customer), "Forty pumps")
	assert.NotContains(t, third.body("/opportunities"), "Forty pumps")
	assert.NotContains(t, auditor.body("/opportunities"), "Forty pumps", "who audits sees that there is one, and not what it is called")

	// Stages.
	for _, refused := range []struct {
		b    *browser
		form url.Values
		code []int
	}{
		{third, filled(1, "stage", stages[2].Name), []int{http.StatusNotFound}},
		{auditor, filled(1, "stage", stages[2].Name), []int{http.StatusForbidden}},
		{seller, filled(9, "stage", stages[2].Name), []int{http.StatusConflict}},
		{seller, filled(1, "stage", "Heaven"), []int{http.StatusUnprocessableEntity}},
	} {
		code, _ := refused.b.post(at+"/stage", refused.form)
		assert.Contains(t, refused.code, code)
	}
	code, _ = seller.post(at+"/stage", filled(1, "stage", stages[2].Name))
	require.Equal(t, http.StatusSeeOther, code)
	got = stored()
	assert.Equal(t, stages[2].Name, got.Stage)
	assert.Equal(t, stages[2].Probability, got.Probability)

	// It is lost for a reason only, and then stays as it is.
	code, _ = seller.post(at+"/move", filled(2, "to", "lost"))
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = seller.post(at+"/lose", filled(2, "lost_reason", "the weather"))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, _ = seller.post(at+"/lose", filled(2, "lost_reason", string(sales.LostPrice)))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, sales.OpportunityLost, stored().State)
	code, _ = seller.post(at+"/stage", filled(3, "stage", stages[1].Name))
	assert.NotEqual(t, http.StatusSeeOther, code, "a lost one has no stage to come")
	code, _ = seller.post(at+"/move", filled(3, "to", "open"))
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = seller.post(at+"/move", filled(4, "to", "won"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, sales.OpportunityWon, stored().State)
}

// TestProductPages: administrators and managers keep products, sales people look them up and are offered them for the lines of an offer.
//
//crm:item 10
func TestProductPages(t *testing.T) {
	o := newOffice(t)
	manager, seller := o.as("manager"), o.as("sales")
	form := filled(0, "name", "Pump P7", "sku", "P-7", "unit", "piece", "category", "pumps", "price", "99.50", "currency", "CNY", "tax", "13", "stocked", "on", "min_stock", "3")
	code, _ := seller.post("/products", form)
	assert.Equal(t, http.StatusForbidden, code)
	for name, change := range map[string][2]string{"no number of ours": {"sku", ""}, "a tax of more than all": {"tax", "130"}, "no number": {"price", "x"}, "less than nothing": {"min_stock", "-1"}} {
		broken := filled(0)
		for k := range form {
			broken.Set(k, form.Get(k))
		}
		broken.Set(change[0], change[1])
		code, _ := manager.post("/products", broken)
		assert.Contains(t, []int{http.StatusUnprocessableEntity, http.StatusBadRequest}, code, name)
	}
	code, at := manager.post("/products", form)
	require.Equal(t, http.StatusSeeOther, code)
	body := seller.body(at)
	for _, shown := range []string{"Pump P7", "P-7", "13 %", "99.50"} {
		assert.Contains(t, body, shown)
	}
	assert.NotContains(t, body, at+"/edit")
	assert.Contains(t, manager.body(at+"/edit"), `value="13"`)
	code, _ = manager.post(at, filled(1, "name", "Pump P7", "sku", "P-8", "unit", "piece", "price", "88", "tax", "6.5", "stocked", "on", "min_stock", "3"))
	require.Equal(t, http.StatusSeeOther, code)
	list, err := o.app.Products.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	p := list.Items[0].Value
	assert.EqualValues(t, 8800, p.Price)
	assert.EqualValues(t, 650, p.Tax)
	assert.Equal(t, "P-7", p.SKU, "the number by which others know it stays")

	offer := seller.body("/quotes/new?customer=" + o.customers[0].ID.String())
	assert.Equal(t, 1, strings.Count(offer, `<option value="Pump P7">`))
	code, _ = manager.post(at+"/move", filled(2, "to", "discontinued"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.NotContains(t, seller.body("/quotes/new?customer="+o.customers[0].ID.String()), "Pump P7", "what is no longer sold is not offered")
}

// TestLinesKept: a line of an offer keeps the thousandths and the product that it names; one of nothing is not meant, and one without a product is refused.
func TestLinesKept(t *testing.T) {
	item := crm.NewUUID()
	q := &crm.Quote{Lines: []crm.Line{{Product: "pump", Item: item, Quantity: 2, Milli: 500, UnitPrice: 100}}}
	rows := lineRows(q).Rows
	require.Equal(t, "2.5", rows[0].Quantity)
	post := func(values url.Values) error {
		return readLines(&http.Request{PostForm: values}, q)
	}
	require.NoError(t, post(url.Values{"lines.0.product": {"pump"}, "lines.0.quantity": {"2.5"}, "lines.0.unit_price": {"1"}, "lines.3.quantity": {"7"}, "lines.450.product": {"hose"}, "lines.450.quantity": {"1"}}))
	require.Equal(t, []crm.Line{{Product: "pump", Item: item, Quantity: 2, Milli: 500, UnitPrice: 100}, {Quantity: 7}, {Product: "hose", Quantity: 1}}, q.Lines)
	require.NoError(t, post(url.Values{"lines.0.product": {"valve"}, "lines.0.quantity": {"1"}}))
	require.True(t, q.Lines[0].Item.IsZero(), "another product")
	for _, bad := range []string{"", "-1", "1.2345", "1,5", "x", "1.-5", "99999999999999999999"} {
		require.Error(t, post(url.Values{"lines.0.product": {"pump"}, "lines.0.quantity": {bad}}), bad)
	}
}

// TestAdminStays: nobody is the last administrator to go, by roles, state or recycle bin, and nobody takes that role from themselves.
func TestAdminStays(t *testing.T) {
	o := newOffice(t)
	admin, second := o.as("admin"), o.people["admin2"]
	self := "/employees/" + o.id("admin")
	version := func(name string) int64 {
		v, err := o.app.Employees.Get(t.Context(), app.System("test"), o.people[name].ID.UUID())
		require.NoError(t, err)
		return v.Value.Version
	}
	for _, refused := range []struct {
		path string
		form url.Values
	}{
		{self + "/delete", filled(version("admin"))}, {self + "/move", filled(version("admin"), "to", "suspended")},
		{self, filled(version("admin"), "name", "Admin", "email", "admin@demo.example", "roles", "manager")},
	} {
		code, _ := admin.post(refused.path, refused.form)
		assert.Equal(t, http.StatusUnprocessableEntity, code, refused.path)
	}
	code, _ := admin.post("/employees/"+second.ID.String()+"/delete", filled(version("admin2")))
	require.Equal(t, http.StatusSeeOther, code, "another may go while one stays")
	assert.ErrorIs(t, o.app.AdminStays(t.Context(), o.people["admin"].ID.UUID()), app.ErrLastAdmin)
	assert.Equal(t, http.StatusOK, admin.get("/"), "who stays is signed in")
}
