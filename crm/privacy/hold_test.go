package privacy_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt"
)

var (
	asker, second, third = crm.ID[crm.Employee](crm.NewUUID()), crm.ID[crm.Employee](crm.NewUUID()), crm.ID[crm.Employee](crm.NewUUID())
	noon                 = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
)

// wrongStep checks that an error says that a step is none.
func wrongStep(t *testing.T, err error, why string) {
	t.Helper()
	var step *crm.TransitionError
	require.ErrorAs(t, err, &step, why)
}

// TestHoldSteps: a hold is lifted by two, of whom the second neither asked nor put it on, and not without being asked.
func TestHoldSteps(t *testing.T) {
	h := &privacy.Hold{Subject: crm.ID[crm.Person](crm.NewUUID()), RecordType: crm.TypeCustomer, Record: crm.NewUUID(), Reason: crm.NewText("lawsuit 7"), State: privacy.HoldActive}
	h.Owner = asker
	require.NoError(t, h.Validate())
	wrongStep(t, h.Decide(second, privacy.HoldLifted, noon), "nobody asked")
	require.NoError(t, h.Ask(third, noon))
	wrongStep(t, h.Ask(third, noon), "twice")
	wrongStep(t, h.Decide(third, privacy.HoldLifted, noon), "who asked")
	wrongStep(t, h.Decide(asker, privacy.HoldLifted, noon), "who put it on")
	wrongStep(t, h.Decide(crm.ID[crm.Employee]{}, privacy.HoldLifted, noon), "nobody")
	require.Error(t, h.Validate(), "no reason for its end")
	h.LiftReason = crm.NewText("settled")
	h.Version = 2
	require.NoError(t, h.Validate())
	require.NoError(t, h.Decide(second, privacy.HoldLifted, noon))
	require.NoError(t, h.Validate())
	assert.Equal(t, second, h.LiftedBy)
	for _, to := range []privacy.HoldState{privacy.HoldActive, privacy.HoldLifting, privacy.HoldLifted, "x"} {
		wrongStep(t, h.Decide(second, to, noon), "it is over: "+string(to))
	}
	for name, change := range map[string]func(*privacy.Hold){
		"nobody is held": func(h *privacy.Hold) { h.Subject = crm.ID[crm.Person]{} }, "no reason": func(h *privacy.Hold) { h.Reason = crm.Text{} }, "no owner": func(h *privacy.Hold) { h.Owner = crm.ID[crm.Employee]{} },
		"no record": func(h *privacy.Hold) { h.Record = crm.UUID{} }, "a state": func(h *privacy.Hold) { h.State = "x" }, "lifted by who asked": func(h *privacy.Hold) { h.LiftedBy = h.AskedBy },
		"new and lifted": func(h *privacy.Hold) { h.Version = 1 },
	} {
		x := *h
		change(&x)
		var invalid *crm.InvalidError
		require.ErrorAs(t, x.Validate(), &invalid, name)
		assert.NotContains(t, invalid.Error(), "lawsuit")
	}
	for name, change := range map[string]func(*privacy.Hold){
		"somebody else": func(h *privacy.Hold) { h.Subject = crm.ID[crm.Person](crm.NewUUID()) }, "another owner": func(h *privacy.Hold) { h.Owner = third }, "another reason": func(h *privacy.Hold) { h.Reason = crm.NewText("x") },
		"back": func(h *privacy.Hold) { h.State = privacy.HoldActive },
	} {
		x := *h
		change(&x)
		require.Error(t, x.CheckUpdate(h), name)
	}
	require.NoError(t, h.CheckUpdate(h))
}

// TestErasureSteps: an erasure is approved by another one in time, carried out in time, and its receipt grows and never shrinks.
func TestErasureSteps(t *testing.T) {
	e := &privacy.Erasure{Subject: crm.ID[crm.Person](crm.NewUUID()), RecordType: crm.TypeLead, Record: crm.NewUUID(), Reason: crm.NewText("a letter"), State: privacy.ErasureRequested}
	e.Owner, e.CreatedAt = asker, noon
	require.NoError(t, e.Validate())
	wrongStep(t, e.Due(noon), "nobody agreed")
	wrongStep(t, e.Note(guard.Erasure{}), "nobody agreed")
	wrongStep(t, e.Decide(asker, privacy.ErasureApproved, noon), "who asked")
	wrongStep(t, e.Decide(second, privacy.ErasureApproved, noon.Add(privacy.MaxErasure)), "too late")
	wrongStep(t, e.Decide(second, privacy.ErasureDestroyed, noon), "a leap")
	refused := *e
	require.NoError(t, refused.Decide(second, privacy.ErasureRefused, noon.Add(privacy.MaxErasure)))
	assert.False(t, refused.Open())
	wrongStep(t, refused.Decide(third, privacy.ErasureApproved, noon), "refused")
	require.NoError(t, e.Decide(second, privacy.ErasureApproved, noon))
	wrongStep(t, e.Decide(third, privacy.ErasureRefused, noon), "twice")
	require.NoError(t, e.Due(noon))
	wrongStep(t, e.Due(noon.Add(privacy.MaxErasure)), "too late")

	first := guard.Erasure{Records: 2, Marks: 3, Event: 7, Receipt: encrypt.Receipt{Persons: make([][16]byte, 2), At: noon, Due: noon.Add(72 * time.Hour)}}
	require.NoError(t, e.Note(first))
	assert.Equal(t, privacy.ErasureBlocked, e.State)
	require.NoError(t, e.Due(noon.Add(2*privacy.MaxErasure)), "what was begun is ended, however late")
	last := guard.Erasure{Records: 2, Event: 9, Receipt: encrypt.Receipt{Persons: make([][16]byte, 2), At: noon.Add(80 * time.Hour), Number: 5}}
	require.NoError(t, e.Note(last))
	assert.Equal(t, privacy.ErasureDestroyed, e.State)
	assert.Equal(t, []int64{2, 2, 3, 7, 9, 5}, []int64{e.Persons, e.Records, e.Marks, e.Event, e.LastEvent, e.Number})
	wrongStep(t, e.Note(first), "it is over")
	e.Version = 4
	require.NoError(t, e.Validate())
	x := *e
	x.Approver = asker
	require.Error(t, x.Validate())
	require.Error(t, x.CheckUpdate(e))
	x = *e
	x.Subject = crm.ID[crm.Person](crm.NewUUID())
	require.Error(t, x.CheckUpdate(e))
}
