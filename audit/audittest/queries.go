package audittest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
)

// The words that TestQueries draws from. The last of each is in no event.
var (
	drawActors  = []string{"", "emp-1", "emp-2", "emp-3", "emp-4", "root", "emp-9"}
	drawActions = []string{"customer.read", "customer.update", "customer.delete", "export.run", "session.logon", "nothing"}
	drawTenants = []string{"", "acme", "umbra", "other"}
	drawTypes   = []string{"customer", "contact", "contract"}
)

// drawPerson makes one of eight persons, of which drawn events have seven.
func drawPerson(r *rand.Rand, n int) [16]byte { return [16]byte{0, byte(1 + r.IntN(n)), 15: 7} }

func drawID(r *rand.Rand) string {
	if n := r.IntN(25); n > 0 {
		return fmt.Sprintf("0190b2a0-0000-7000-8000-%012x", n)
	}
	return "not-a-uuid"
}

// draw makes an event whose time is about at.
func draw(r *rand.Rand, at time.Time) audit.Event {
	e := audit.Event{
		Time:    at.Add(time.Duration(r.Int64N(int64(2*time.Hour))) - time.Hour),
		Action:  drawActions[r.IntN(len(drawActions)-1)],
		Outcome: audit.Outcome(1 + r.IntN(4)),
		Actor:   drawActors[r.IntN(len(drawActors)-1)],
		Tenant:  drawTenants[r.IntN(len(drawTenants)-1)],
	}
	for range r.IntN(4) {
		e.Targets = append(e.Targets, audit.Target{Type: drawTypes[r.IntN(len(drawTypes))], ID: drawID(r)})
	}
	for range max(0, r.IntN(6)-3) {
		e.Details = append(e.Details, audit.Personal("reason", drawPerson(r, 7), "asked by phone"))
	}
	return e
}

// drawFilter makes a filter of some of its fields.
func drawFilter(r *rand.Rand, begin time.Time, length time.Duration) audit.Filter {
	var f audit.Filter
	some := func() bool { return r.IntN(3) == 0 }
	if some() {
		f.Tenant = drawTenants[r.IntN(len(drawTenants))]
	}
	if some() {
		f.Actor = drawActors[r.IntN(len(drawActors))]
	}
	if some() {
		f.Action = drawActions[r.IntN(len(drawActions))]
	}
	if some() {
		f.TargetType = drawTypes[r.IntN(len(drawTypes))]
	}
	if some() {
		f.TargetID = drawID(r)
	}
	if some() {
		f.Person = drawPerson(r, 8)
	}
	if some() {
		f.Outcome = audit.Outcome(1 + r.IntN(5))
	}
	if some() {
		f.From = begin.Add(time.Duration(r.Int64N(int64(length))))
	}
	if some() {
		f.To = begin.Add(time.Duration(r.Int64N(int64(length))))
	}
	return f
}

// wanted says in other words than package audit whether a filter selects an
// event.
func wanted(f audit.Filter, e audit.Event) bool {
	hit := slices.ContainsFunc(e.Targets, func(t audit.Target) bool {
		return (f.TargetType == "" || f.TargetType == t.Type) && (f.TargetID == "" || f.TargetID == t.ID)
	})
	var persons [][16]byte
	for _, d := range e.Details {
		persons = append(persons, d.Person)
	}
	if f.Person != [16]byte{} && !slices.Contains(persons, f.Person) || f.Outcome != 0 && f.Outcome != e.Outcome {
		return false
	}
	return (f.Tenant == "" || f.Tenant == e.Tenant) && (f.Actor == "" || f.Actor == e.Actor) && (f.Action == "" || f.Action == e.Action) &&
		(f.From.IsZero() || f.From.Compare(e.Time) <= 0) && (f.To.IsZero() || f.To.Compare(e.Time) > 0) &&
		(hit || f.TargetType == "" && f.TargetID == "")
}

// TestQueries compares what Log.Query finds in a log of some 1,500 drawn events
// with a plain look at each of them: by each field of a filter and by several,
// in pages of several lengths, also when the log was opened again and after a
// pruning. open is that of TestStore.
func TestQueries(t *testing.T, open func(testing.TB) (store driver.Store, again func() driver.Store)) {
	const events = 1500
	filters := 60
	if testing.Short() {
		filters = 20
	}
	ctx := context.Background()
	store, again := open(t)
	if again == nil {
		again = func() driver.Store { return store }
	}
	begin := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	var now atomic.Int64
	now.Store(begin.UnixNano())
	sealer := NewSealer()
	signer := Signer(t, "log.example.com/queries")
	var l *audit.Log
	reopen := func(s driver.Store) {
		t.Helper()
		if l != nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if l, err = audit.Open(ctx, s, signer, &audit.Options{Sealer: sealer, Clock: func() time.Time { return time.Unix(0, now.Load()).UTC() }}); err != nil {
			t.Fatal(err)
		}
	}
	reopen(store)
	defer func() { l.Close() }()

	r := rand.New(rand.NewPCG(1, 2))
	all := map[uint64]audit.Event{}
	length := time.Duration(events) * time.Minute
	for len(all) < events {
		var list []audit.Event
		for range 1 + r.IntN(40) {
			list = append(list, draw(r, begin.Add(time.Duration(len(all)+len(list))*time.Minute)))
		}
		receipts, err := l.AppendAll(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range receipts {
			all[got.Index] = list[i]
		}
	}

	check := func(when string) {
		t.Helper()
		for e, err := range l.Events(ctx, 0) { // and those that the log has written itself
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := all[e.Index]; !ok {
				all[e.Index] = e.Event
			}
		}
		r := rand.New(rand.NewPCG(3, 4))
		hits := 0
		for i := range filters {
			var f audit.Filter
			switch {
			case i == 0: // everything
			case i == 1:
				f.Actor = "emp-1"
			case i == 2:
				f.Action = "export.run"
			case i == 3:
				f.TargetType, f.TargetID = "customer", "not-a-uuid"
			case i == 4:
				f.Person = [16]byte{0, 3, 15: 7}
			case i == 5:
				f.Outcome = audit.Denied
			case i == 6:
				f.From, f.To = begin.Add(length/4), begin.Add(length/2)
			default:
				f = drawFilter(r, begin, length)
			}
			var want []uint64
			for n, e := range all {
				if n >= l.Pruned() && wanted(f, e) {
					want = append(want, n)
				}
			}
			slices.Sort(want)
			slices.Reverse(want)
			hits += len(want)
			limit := []int{1, 7, 100, 10 * events}[r.IntN(4)]
			for before, page := l.Size()+uint64(r.IntN(2)), 0; ; page++ {
				got, err := l.Query(ctx, f, before, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != min(limit, len(want)) {
					t.Fatalf("%s: %+v, page %d of %d below %d: found %d, %d are left", when, f, page, limit, before, len(got), len(want))
				}
				for i, e := range got {
					if e.Index != want[i] {
						t.Fatalf("%s: %+v, page %d of %d: found event %d, want %d", when, f, page, limit, e.Index, want[i])
					}
					if w := all[e.Index]; e.Event.Action != w.Action || e.Event.Actor != w.Actor || !e.Event.Time.Equal(w.Time) || len(e.Event.Targets) != len(w.Targets) || len(e.Event.Details) != len(w.Details) {
						t.Fatalf("%s: event %d is %+v, appended was %+v", when, e.Index, e.Event, w)
					}
				}
				want = want[len(got):]
				if len(got) < limit || page == 8 {
					break
				}
				before = got[len(got)-1].Index
			}
		}
		if hits < events {
			t.Fatalf("%s: the filters select %d events only", when, hits)
		}
	}
	check("beside the appends")
	reopen(again())
	check("opened again")
	sealer.Erase([16]byte{0, 3, 15: 7}) // whose events stay
	now.Add(int64(300 * 24 * time.Hour))
	cut, err := l.Prune(ctx, events/3)
	if err != nil {
		t.Fatal(err)
	}
	if cut < events/4 || cut > events/3 {
		t.Fatalf("pruned up to %d", cut)
	}
	check("after a pruning")
	reopen(again())
	check("pruned and opened again")
}
