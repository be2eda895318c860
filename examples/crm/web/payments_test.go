package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestPaymentPages: finance divides a contract into instalments once, notes payments, and another than who noted one says that it came; the contract's page
// tells what is outstanding.
//
//crm:item 6
func TestPaymentPages(t *testing.T) {
	o := newOffice(t)
	clerk, second, seller, manager := o.hire("clerk", "finance", "/finance/"), o.hire("second", "finance", "/finance/"), o.as("sales"), o.as("manager")
	customer := o.customers[0]
	k := &crm.Contract{
		Meta: crm.Meta[crm.Contract]{Person: customer.Person, Owner: o.people["sales"].ID, Team: "/east/1/"}, Number: "C-1", Customer: customer.ID, Amount: 100_001, Currency: "CNY",
		Starts: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Ends: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), State: crm.ContractDraft, SignatoryPerson: customer.Person, Signatory: crm.NewText("Ann Lee"),
	}
	_, err := o.app.Contracts.Create(t.Context(), app.System("test"), k)
	require.NoError(t, err)
	at := "/contracts/" + k.ID.String()
	plan := filled(1, "shares", "30 30 40", "first", "2026-01-31", "months", "1")
	assert.NotContains(t, clerk.body(at), at+"/plan", "a draft has no plan")
	code, _ := clerk.post(at+"/plan", plan)
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	require.NoError(t, o.app.Desk.ApproveContract(t.Context(), o.caller("clerk"), k.ID, 1))
	plan.Set("version", "2")

	for name, change := range map[string][2]string{
		"no shares": {"shares", ""}, "words": {"shares", "a third"}, "nothing": {"shares", "30 0"}, "no date": {"first", "soon"}, "no months": {"months", "0"}, "decades": {"months", "9999"},
	} {
		broken := filled(2, "shares", "30 30 40", "first", "2026-01-31", "months", "1")
		broken.Set(change[0], change[1])
		code, _ := clerk.post(at+"/plan", broken)
		assert.Equal(t, http.StatusUnprocessableEntity, code, name)
	}
	for _, b := range []*browser{seller, manager, o.as("auditor")} {
		code, _ := b.post(at+"/plan", plan)
		assert.Equal(t, http.StatusForbidden, code)
	}
	assert.NotContains(t, seller.body(at), at+"/plan")
	assert.Contains(t, clerk.body(at), at+"/plan")
	code, _ = clerk.post(at+"/plan", plan)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = clerk.post(at+"/plan", plan)
	assert.NotEqual(t, http.StatusSeeOther, code, "once")
	list, err := o.app.Instalments.List(t.Context(), app.System("test"), guard.Query{Sort: "due_at"})
	require.NoError(t, err)
	require.Len(t, list.Items, 3)
	sum := int64(0)
	var days []string
	for i := range list.Items {
		sum += list.Items[i].Value.Amount
		days = append(days, list.Items[i].Value.DueAt.In(time.Local).Format(time.DateOnly))
		assert.Equal(t, customer.Person, list.Items[i].Value.Person)
	}
	assert.EqualValues(t, 100_001, sum)
	assert.Equal(t, []string{"2026-01-31", "2026-02-28", "2026-03-31"}, days, "the last day of a shorter month")
	assert.Equal(t, 2, o.logged("contract.plan", o.id("clerk"), audit.Intended))
	assert.Equal(t, 1, o.logged("guard.aborted", o.id("clerk"), audit.Aborted), "the second is in the log, and that it was not made")

	// A payment counts when another than who noted it says so.
	form := filled(0, "contract", k.ID.String(), "amount", "300.00", "at", time.Now().Add(-time.Hour).Format("2006-01-02T15:04"), "method", "bank", "payer", "Ann Lee", "account", "6222021234567890")
	for name, change := range map[string][2]string{"no amount": {"amount", ""}, "no contract": {"contract", ""}, "shells": {"method", "shells"}, "no time": {"at", "now"}} {
		broken := filled(0)
		for f := range form {
			broken.Set(f, form.Get(f))
		}
		broken.Set(change[0], change[1])
		code, _ := clerk.post("/receipts", broken)
		assert.Contains(t, []int{http.StatusUnprocessableEntity, http.StatusBadRequest}, code, name)
	}
	for _, b := range []*browser{seller, manager} {
		code, _ := b.post("/receipts", form)
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code)
	}
	assert.Contains(t, clerk.body(at), "/receipts/new?contract="+k.ID.String())
	assert.NotContains(t, manager.body(at), "/receipts/new")
	code, receipt := clerk.post("/receipts", form)
	require.Equal(t, http.StatusSeeOther, code)
	outstanding := func() string {
		body := clerk.body(at)
		for _, s := range []string{"1,000.01", "700.01"} {
			if assert.Contains(t, body, "Outstanding") && o.contains(body, "Outstanding", s) {
				return s
			}
		}
		return ""
	}
	assert.Equal(t, "1,000.01", outstanding(), "it is only said so far")
	code, _ = clerk.post(receipt+"/decide", filled(1, "to", "approved"))
	assert.Equal(t, http.StatusForbidden, code, "not by who noted it")
	code, _ = second.post(receipt+"/decide", filled(1, "to", "reported"))
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = second.post(receipt+"/decide", filled(7, "to", "approved"))
	assert.Equal(t, http.StatusConflict, code)
	code, _ = second.post(receipt+"/decide", filled(1, "to", "approved"))
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = second.post(receipt+"/decide", filled(2, "to", "refused"))
	assert.NotEqual(t, http.StatusSeeOther, code, "what came has come")
	assert.Equal(t, "700.01", outstanding())
	v, err := o.app.Receipts.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	assert.Equal(t, finance.ReceiptApproved, v.Items[0].Value.State)

	// Who may read it sees no account, and who sells sees nothing of it.
	assert.NotContains(t, manager.body(receipt), "6222021234567890")
	assert.NotContains(t, clerk.body("/receipts"), "6222021234567890")
	assert.Contains(t, clerk.body(receipt), "6222021234567890")
	assert.Equal(t, http.StatusNotFound, seller.get(receipt))
	assert.NotContains(t, seller.body(at), "Outstanding")
}

// contains tells whether a page has a text soon behind another.
func (o *office) contains(body, after, text string) bool {
	_, rest, _ := strings.Cut(body, after)
	return strings.Contains(rest[:min(len(rest), 300)], text)
}
