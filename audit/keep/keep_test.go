package keep_test

import (
	"fmt"
	"testing"

	"github.com/crmguard/crmguard/audit/keep"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		rule, action string
		want         bool
	}{
		{"customer.read", "customer.read", true}, {"customer.read", "customer.reads", false}, {"customer.*", "customer.read", true},
		{"customer.*", "customer", false}, {"*", "anything", true}, {"c*", "customer.read", true}, {"customer.", "customer.read", false},
	} {
		if got := (keep.Rule{Action: c.rule}).Match(c.action); got != c.want {
			t.Errorf("%s and %s: %v", c.rule, c.action, got)
		}
	}
	if s := keep.Level(9).String(); s != "Level(9)" {
		t.Error(s)
	}
}

func ExampleRule() {
	r := keep.Rule{Action: "page.*", Level: keep.Metadata, Buffered: true}
	fmt.Println(r, r.Match("page.view"), r.Check())
	// Output: page.* metadata buffered true <nil>
}
