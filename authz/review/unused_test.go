package review_test

import (
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
)

var now = time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)

const days = 24 * time.Hour

// log yields uses, then the error if there is one.
func log(err error, uses ...review.Use) iter.Seq2[review.Use, error] {
	return func(yield func(review.Use, error) bool) {
		for _, u := range uses {
			if !yield(u, nil) {
				return
			}
		}
		if err != nil {
			yield(review.Use{}, err)
		}
	}
}

// TestUnused: grants that nobody used for their days are named, so that they can be taken away.
//
//crm:item 25
func TestUnused(t *testing.T) {
	use := review.Use{Subject: "e1", Role: "sales", Type: "customer", Action: authz.Read}
	at := func(u review.Use, ago time.Duration) review.Use { u.Time = now.Add(-ago); return u }
	for _, c := range []struct {
		name  string
		grant review.Grant
		uses  []review.Use
		idle  bool
		last  time.Time
	}{
		{"never used", review.Grant{Subject: "e1", Role: "sales"}, nil, true, time.Time{}},
		{"used lately", review.Grant{Subject: "e1", Role: "sales"}, []review.Use{at(use, days)}, false, time.Time{}},
		{"used long ago", review.Grant{Subject: "e1", Role: "sales"}, []review.Use{at(use, 91*days)}, true, now.Add(-91 * days)},
		{"used at the very edge", review.Grant{Subject: "e1", Role: "sales"}, []review.Use{at(use, 90*days)}, false, time.Time{}},
		{"the later use counts, in any order", review.Grant{Subject: "e1", Role: "sales"}, []review.Use{at(use, days), at(use, 200*days)}, false, time.Time{}},
		{"another's use", review.Grant{Subject: "e2", Role: "sales"}, []review.Use{at(use, days)}, true, time.Time{}},
		{"another role's use", review.Grant{Subject: "e1", Role: "manager"}, []review.Use{at(use, days)}, true, time.Time{}},
		{"a right of the role that somebody uses", review.Grant{Role: "sales", Type: "customer", Action: authz.Read}, []review.Use{at(use, days)}, false, time.Time{}},
		{"a right of the role that nobody uses", review.Grant{Role: "sales", Type: "customer", Action: authz.Export}, []review.Use{at(use, days)}, true, time.Time{}},
		{"a type that nobody uses", review.Grant{Role: "sales", Type: "ticket"}, []review.Use{at(use, days)}, true, time.Time{}},
		{"an action on any type", review.Grant{Subject: "e1", Role: "sales", Action: authz.Read}, []review.Use{at(use, days)}, false, time.Time{}},
		{"too young to be unused", review.Grant{Subject: "e1", Role: "sales", Since: now.Add(-89 * days)}, nil, false, time.Time{}},
		{"old enough to be unused", review.Grant{Subject: "e1", Role: "sales", Since: now.Add(-90 * days)}, nil, true, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := review.Unused([]review.Grant{c.grant}, log(nil, c.uses...), now, 90*days)
			require.NoError(t, err)
			if !c.idle {
				assert.Empty(t, got)
				return
			}
			assert.Equal(t, []review.Idle{{Grant: c.grant, Last: c.last}}, got)
		})
	}
	broken := errors.New("the log is gone")
	got, err := review.Unused([]review.Grant{{Role: "sales"}}, log(broken, use), now, 90*days)
	require.ErrorIs(t, err, broken)
	assert.Nil(t, got)
}

func ExampleUnused() {
	grants := []review.Grant{{Subject: "e1", Role: "sales"}, {Subject: "e1", Role: "finance"}, {Subject: "e2", Role: "sales"}}
	uses := log(nil,
		review.Use{Subject: "e1", Role: "sales", Time: now.Add(-2 * days)},
		review.Use{Subject: "e2", Role: "sales", Time: now.Add(-120 * days)})
	idle, err := review.Unused(grants, uses, now, 90*days)
	if err != nil {
		panic(err)
	}
	fmt.Print(review.NewTable("Not used for 90 days", idle))
	// Output:
	// # Not used for 90 days. Columns: subject role type action since last use
	// e1         finance      never
	// e2         sales        2026-03-03
}
