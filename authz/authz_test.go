package authz_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
)

// TestZeroValuesDeny: a decision, a field policy and a filter that nobody filled in deny.
//
//crm:item 25
func TestZeroValuesDeny(t *testing.T) {
	var d authz.Decision
	var de *authz.DeniedError
	require.ErrorAs(t, d.Proceed(), &de)
	assert.Equal(t, authz.Hidden, d.Fields.Access("x", "public"))
	var f authz.Filter
	assert.True(t, f.IsNone())
	assert.False(t, f.Match(func(string) any { return "x" }))
	text, _, err := f.SQL(cond.Question, nil)
	require.NoError(t, err)
	assert.Equal(t, "1=0", text)
	assert.True(t, authz.When(cond.Cond{}).IsNone())
	assert.True(t, authz.When(cond.Or()).IsNone())
	assert.True(t, authz.When(cond.AnyOf("x")).IsNone())
	assert.True(t, authz.When(cond.And()).IsAll())
}

func TestProceed(t *testing.T) {
	d := authz.Decision{Allowed: true, Obligations: []authz.Obligation{authz.NeedReason, "a_new_one"}}
	require.NoError(t, d.Proceed(authz.NeedReason, "a_new_one"))
	var de *authz.DeniedError
	require.ErrorAs(t, d.Proceed(), &de)
	require.ErrorAs(t, d.Proceed(authz.NeedReason), &de)
	assert.Equal(t, []authz.Obligation{"a_new_one"}, de.Unmet)
	d.Allowed = false
	require.Error(t, d.Proceed(authz.NeedReason, "a_new_one"))
}

func ExampleDecision_Proceed() {
	d := authz.Decision{Allowed: true, Obligations: []authz.Obligation{authz.NeedReason}}
	fmt.Println(d.Proceed())
	fmt.Println(d.Proceed(authz.NeedReason))
	// Output:
	// authz: denied: not met: reason
	// <nil>
}

func ExampleFilter() {
	f := authz.When(cond.Or(cond.Eq("owner", "lin"), cond.HasPrefix("team", "/east/")))
	text, args, _ := f.SQL(cond.Question, func(name string) (string, error) { return "c_" + name, nil })
	fmt.Println(f)
	fmt.Println(text, args)
	admit := f.Admit()
	fmt.Println(admit(&authz.Resource{Owner: "wang", Team: "/east/1/"}), admit(&authz.Resource{Owner: "wang"}))
	// Output:
	// (owner = "lin" or team begins with "/east/")
	// (c_owner = ? OR (c_team >= ? AND c_team < ?)) [lin /east/ /east0]
	// true false
}
