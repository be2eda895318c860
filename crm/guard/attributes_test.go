package guard_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// secretLead has all attributes that policies know of a record.
type secretLead struct {
	crm.Meta[secretLead]
	State        string `protect:"internal,indexed" json:"state"`
	Level        int64  `protect:"internal,indexed" json:"level"`
	Held         bool   `protect:"internal,indexed" json:"held"`
	Compartments string `protect:"internal,indexed" json:"compartments"`
	Actors       string `protect:"internal,indexed" json:"actors"`
}

// TestAttributesAreNotUpdated: a record is created as what it is, and an update neither lowers its level nor lifts its hold
// nor changes its compartments or who has a part in it.
func TestAttributesAreNotUpdated(t *testing.T) {
	w := onSQLite(t)
	ctx := t.Context()
	rs, err := guard.For[*secretLead](ctx, w.guard, &guard.TypeOptions{Type: "lead"})
	require.NoError(t, err)
	high := admin
	high.Subject.Level, high.Subject.Compartments = 2, []string{"a", "b"}
	_, err = rs.Create(ctx, high, &secretLead{State: "new"})
	var denied *authz.DeniedError
	require.ErrorAs(t, err, &denied, "a session of level 2 writes nothing down")
	v, err := rs.Create(ctx, high, &secretLead{State: "new", Level: 2, Held: true, Compartments: "<a><b>", Actors: "<x>"})
	require.NoError(t, err)
	_, err = rs.Get(ctx, admin, v.Value.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound, "a session of level 0 reads nothing up")
	require.ErrorAs(t, rs.Delete(ctx, high, v.Value.ID.UUID(), v.Value.Version), &denied)
	for name, change := range map[string]func(*secretLead){
		"level":        func(x *secretLead) { x.Level = 0 },
		"level above":  func(x *secretLead) { x.Level = 3 },
		"hold":         func(x *secretLead) { x.Held = false },
		"compartments": func(x *secretLead) { x.Compartments = "<a>" },
		"actors":       func(x *secretLead) { x.Actors = "<y>" },
	} {
		x := *v.Value
		change(&x)
		_, err := rs.Update(ctx, high, &x)
		require.ErrorAs(t, err, &denied, name)
	}
	x := *v.Value
	x.State = "lost"
	_, err = rs.Update(ctx, high, &x)
	require.NoError(t, err, "the rest may be changed")
	// A word that looks like two is none.
	odd := high
	odd.Subject.Compartments = []string{"a><b"}
	n, err := rs.Count(ctx, odd, guard.Query{})
	require.NoError(t, err)
	require.Zero(t, n)
}

// TestEmergencyInLists: what only an emergency opens is in lists when its obligations are met, and not before.
func TestEmergencyInLists(t *testing.T) {
	w := onSQLite(t)
	ctx := t.Context()
	w.add(t, sales, "甲公司", "13800138000", "a@example.com")
	w.add(t, other, "乙公司", "13800138001", "b@example.com")
	c := sales
	c.Environment.Time = time.Now()
	c.Subject.Emergencies = []authz.Emergency{{Type: "customer", Approvers: []string{"p", "q"}, Until: time.Now().Add(time.Hour)}}
	for met, want := range map[bool]int{false: 1, true: 2} {
		if met {
			c.Reason, c.Met = "somebody is in danger", []authz.Obligation{authz.NeedReview}
		} else {
			c.Reason, c.Met = "", nil
		}
		n, err := w.customers.Count(ctx, c, guard.Query{})
		require.NoError(t, err)
		require.EqualValues(t, want, n)
		p, err := w.customers.List(ctx, c, guard.Query{})
		require.NoError(t, err)
		require.Len(t, p.Items, want)
	}
}
