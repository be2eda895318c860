package guard_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// freeLead has the column that policies call pool.
type freeLead struct {
	crm.Meta[freeLead]
	Name   crm.Text `protect:"personal" json:"name"`
	State  string   `protect:"internal,indexed" json:"state"`
	FreeIn string   `protect:"internal,indexed" json:"free_in"`
}

// browsing is a policy in which a list is what may be browsed.
type browsing struct{ authz.Authorizer }

func browse(r authz.Request) authz.Request {
	if r.Action == authz.List {
		r.Action = authz.Browse
	}
	return r
}

func (b browsing) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	return b.Authorizer.Decide(ctx, browse(r))
}

func (b browsing) Filter(ctx context.Context, r authz.Request) (authz.Filter, error) {
	return b.Authorizer.Filter(ctx, browse(r))
}

// TestPoolIsFreeIn: what the policy calls pool is the column free_in, in filters as functions and in SQL, and a type without it
// has nothing that is free.
func TestPoolIsFreeIn(t *testing.T) {
	member := sales
	member.Subject.Pools = []string{"p1", "p2"}
	stranger := sales
	stranger.Subject.Pools = []string{"p3", ""}
	for name, make := range map[string]func(t testing.TB) *rig{"in memory": newRig, "SQLite": func(t testing.TB) *rig { return onSQLite(t).rig }} {
		t.Run(name, func(t *testing.T) {
			w := make(t)
			ctx := t.Context()
			g, _, err := guard.New(ctx, w.store, w.keeper, browsing{w.policy}, w.log, nil)
			require.NoError(t, err)
			rs, err := guard.For[*freeLead](ctx, g, &guard.TypeOptions{Type: "lead"})
			require.NoError(t, err)
			ids := map[string]crm.UUID{}
			for _, pool := range []string{"p1", "p2", "p3", ""} {
				v, err := rs.Create(ctx, admin, &freeLead{
					Meta: crm.Meta[freeLead]{Person: crm.NewID[crm.Person]()}, Name: crm.NewText("Lin Wei"), State: "new", FreeIn: pool,
				})
				require.NoError(t, err)
				ids[pool] = v.Value.ID.UUID()
			}
			page, err := rs.List(ctx, member, guard.Query{})
			require.NoError(t, err)
			var found []string
			for _, v := range page.Items {
				found = append(found, v.Value.FreeIn)
				assert.Equal(t, authz.Masked, v.Fields["name"])
				assert.Equal(t, []string{"rbac.pool"}, grounds(v.Controls))
			}
			assert.ElementsMatch(t, []string{"p1", "p2"}, found)
			n, err := rs.Count(ctx, stranger, guard.Query{})
			require.NoError(t, err)
			assert.EqualValues(t, 1, n, "no pool is none of theirs")
			var denied *authz.DeniedError
			_, err = rs.Count(ctx, sales, guard.Query{})
			require.ErrorAs(t, err, &denied, "who is a member of no pool browses none")

			// The pool in which a record is free is no field that is updated.
			v, err := rs.Get(ctx, admin, ids["p1"])
			require.NoError(t, err)
			for _, to := range []string{"", "p2"} {
				x := *v.Value
				x.FreeIn = to
				_, err = rs.Update(ctx, admin, &x)
				require.ErrorAs(t, err, &denied)
				require.Equal(t, []string{"update.attributes"}, denied.Controls)
			}

			// A type without the column.
			plain, err := guard.For[*crm.Customer](ctx, g, nil)
			require.NoError(t, err)
			n, err = plain.Count(ctx, member, guard.Query{})
			require.NoError(t, err)
			assert.Zero(t, n)
		})
	}
}

// grounds returns those of controls that are grounds of roles.
func grounds(controls []string) []string {
	var out []string
	for _, c := range controls {
		if len(c) > 5 && c[:5] == "rbac." {
			out = append(out, c)
		}
	}
	return out
}
