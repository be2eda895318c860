package audit_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/keep"
	"github.com/crmguard/crmguard/audit/memstore"
)

// gate is a store whose writes wait while it is shut.
type gate struct {
	driver.Store
	mu   sync.Mutex
	fail error
}

func (g *gate) Writer(ctx context.Context) (driver.Writer, error) {
	w, err := g.Store.Writer(ctx)
	return &gateWriter{w, g}, err
}

type gateWriter struct {
	driver.Writer
	g *gate
}

func (w *gateWriter) Append(ctx context.Context, b driver.Batch) error {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	if w.g.fail != nil {
		return w.g.fail
	}
	return w.Writer.Append(ctx, b)
}

func all(t testing.TB, l *audit.Log) (es []audit.Event) {
	t.Helper()
	for e, err := range l.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, e.Event)
	}
	return es
}

func TestLevels(t *testing.T) {
	l := openLog(t, memstore.New(), &audit.Options{Sealer: clearSealer{}, Rules: []keep.Rule{
		{Action: "page.view", Level: keep.None}, {Action: "page.*", Level: keep.Metadata}, {Action: "search.run", Level: keep.Request}}})
	event := func(action string, o audit.Outcome, a audit.Activity) audit.Event {
		e := full(3)
		e.Action, e.Outcome, e.Activity = action, o, a
		e.Details = []audit.Detail{audit.Personal("reason", [16]byte{1}, "x")}
		return e
	}
	kept := func(e audit.Event) string {
		switch {
		case len(e.Details) == 1 && len(e.Fields) == 2 && len(e.Targets[0].Digest) == 3:
			return "full"
		case len(e.Details) == 0 && len(e.Fields) == 2 && e.Note != "" && e.Targets[0].Version == 3:
			return "request"
		case len(e.Details) == 0 && len(e.Fields) == 0 && e.Purpose == "" && e.Note == "" && e.Targets[0].Version == 0 && e.Targets[0].Digest == nil &&
			e.Actor != "" && len(e.Targets) == 3 && e.Targets[1].ID == "not-a-uuid" && e.Decision != "" && len(e.Controls) == 2 && e.HasRef:
			return "metadata"
		}
		return fmt.Sprintf("%+v", e)
	}
	for _, c := range []struct {
		e    audit.Event
		want string
	}{
		{event("page.view", audit.Allowed, audit.Read), "none"},
		{event("page.open", audit.Allowed, audit.Read), "metadata"},
		{event("search.run", audit.Allowed, audit.Search), "request"},
		{event("search.runner", audit.Allowed, audit.Search), "full"},
		{event("customer.read", audit.Allowed, audit.Read), "full"},
		// What a rule cannot weaken.
		{event("page.view", audit.Denied, audit.Read), "metadata"},
		{event("page.view", audit.Allowed, audit.Erase), "metadata"},
		{event("page.view", audit.Failed, audit.Configure), "metadata"},
		{event("page.view", audit.Allowed, audit.Grant), "metadata"},
		{event("page.view", audit.Allowed, audit.Revoke), "metadata"},
		{event("page.view", audit.Intended, audit.Update), "full"},
		{event("page.view", audit.Aborted, audit.Update), "full"},
		{event("search.run", audit.Denied, audit.Search), "request"},
	} {
		for name, log := range map[string]func() (audit.Receipt, error){
			"Append": func() (audit.Receipt, error) { return l.Append(ctx, c.e) },
			"AppendAll": func() (audit.Receipt, error) {
				rs, err := l.AppendAll(ctx, []audit.Event{c.e})
				return append(rs, audit.Receipt{})[0], err
			},
			"AppendAsync": func() (audit.Receipt, error) {
				p, err := l.AppendAsync(ctx, c.e)
				if err != nil {
					return audit.Receipt{}, err
				}
				return p.Wait(ctx)
			},
		} {
			before := l.Size()
			r, err := log()
			if err != nil {
				t.Fatal(name, c.e.Action, err)
			}
			if c.want == "none" {
				if l.Size() != before || r != (audit.Receipt{}) {
					t.Fatal(name, "logged")
				}
				continue
			}
			es := all(t, l)
			if got := kept(es[len(es)-1]); got != c.want || r.Index != before {
				t.Fatalf("%s %s %v: %s, want %s", name, c.e.Action, c.e.Outcome, got, c.want)
			}
		}
		if len(c.e.Details) != 1 || len(c.e.Fields) != 2 || c.e.Targets[0].Version != 3 {
			t.Fatal("the event of the caller was changed")
		}
	}
	// In one call the rest is kept, with the receipts in their places.
	before := l.Size()
	rs, err := l.AppendAll(ctx, []audit.Event{event("page.view", audit.Allowed, audit.Read), read(1), event("page.view", audit.Allowed, audit.Read), read(2)})
	if err != nil || l.Size() != before+2 || rs[1].Index != before || rs[3].Index != before+1 || rs[0] != (audit.Receipt{}) || rs[2] != (audit.Receipt{}) {
		t.Fatal(rs, err)
	}
	bad := event("page.view", audit.Allowed, audit.Read)
	bad.Actor = "a\nb"
	if _, err := l.Append(ctx, bad); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal("an event that is not kept is not checked:", err)
	}
}

func TestRulesAreLogged(t *testing.T) {
	store := memstore.New()
	rules := []keep.Rule{{Action: "page.*", Level: keep.Metadata, Buffered: true, Shed: true}}
	told := func(r []keep.Rule) (n int, last audit.Event) {
		l := openLog(t, store, &audit.Options{Rules: r})
		for _, e := range all(t, l) {
			if e.Action == "audit.rules" {
				n, last = n+1, e
			}
		}
		l.Close()
		return n, last
	}
	if n, _ := told(nil); n != 0 {
		t.Fatal("no rules, and told")
	}
	for range 2 {
		if n, e := told(rules); n != 1 || e.Actor != "audit" || !slices.Equal(e.Fields, []string{"page.* metadata buffered shed"}) {
			t.Fatal(n, e)
		}
	}
	if n, e := told(nil); n != 2 || e.Count != 0 {
		t.Fatal(n, e)
	}
	for _, r := range []keep.Rule{{}, {Action: "**"}, {Action: "a*b"}, {Action: "a", Level: 4}, {Action: "a", Shed: true}, {Action: "a\n"}} {
		if _, err := audit.Open(ctx, memstore.New(), signerOf(t), &audit.Options{Rules: []keep.Rule{r}}); !errors.Is(err, audit.ErrInvalid) {
			t.Fatal(r, err)
		}
	}
}

// A full queue makes buffered and asynchronous appends wait, and nothing is
// lost; where shedding is allowed, the log says how much was.
func TestBuffered(t *testing.T) {
	g := &gate{Store: memstore.New()}
	l := openLog(t, g, &audit.Options{Queue: 10, Rules: []keep.Rule{{Action: "page.view", Buffered: true, Shed: true}, {Action: "page.*", Buffered: true}}})
	event := func(action, note string) audit.Event {
		e := read(1)
		e.Action, e.Note = action, note
		return e
	}
	g.mu.Lock()
	var pending []*audit.Pending
	for i := range 4 {
		if r, err := l.Append(ctx, event("page.open", fmt.Sprint("open ", i))); err != nil || r != (audit.Receipt{}) {
			t.Fatal(r, err)
		}
		p, err := l.AppendAsync(ctx, event("customer.read", fmt.Sprint("async ", i)))
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for i := range 7 { // two find room
		if _, err := l.Append(ctx, event("page.view", fmt.Sprint("view ", i))); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := l.AppendAsync(short, event("customer.read", "too much")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("a full queue takes more:", err)
	}
	if _, err := l.Append(short, event("page.open", "too much")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("a full queue takes more:", err)
	}
	if _, err := pending[0].Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 { // wait for room
		wg.Go(func() {
			if _, err := l.Append(ctx, event("page.open", fmt.Sprint("late ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	g.mu.Unlock()
	wg.Wait()
	for i, p := range pending {
		for range 2 {
			r, err := p.Wait(ctx)
			if err != nil || r.Index == 0 {
				t.Fatal(i, r, err)
			}
		}
	}
	if err := l.Close(); err != nil { // what is queued is committed
		t.Fatal(err)
	}
	l = openLog(t, g, nil)
	counts := map[string]int{}
	gaps := int64(0)
	for _, e := range all(t, l) {
		counts[strings.Fields(e.Note + " x")[0]]++
		if e.Action == "audit.gap" {
			gaps += e.Count
			if e.Actor != "audit" || len(e.Targets) != 1 || e.Targets[0].ID != "page.view" || int64(e.Targets[0].Version) != e.Count {
				t.Fatalf("%+v", e)
			}
		}
	}
	if counts["open"] != 4 || counts["async"] != 4 || counts["late"] != 20 || counts["view"] != 2 || gaps != 5 || counts["too"] != 0 {
		t.Fatal(counts, gaps)
	}
}

// When the log fails, those who wait are told, and so is everybody after them.
func TestAsyncFails(t *testing.T) {
	g := &gate{Store: memstore.New()}
	l := openLog(t, g, &audit.Options{Rules: []keep.Rule{{Action: "page.*", Buffered: true}}})
	g.mu.Lock()
	g.fail = errors.New("disk full")
	g.mu.Unlock()
	p, err := l.AppendAsync(ctx, read(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(ctx); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := l.AppendAsync(ctx, read(1)); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	e := read(1)
	e.Action = "page.open"
	if _, err := l.Append(ctx, e); !errors.Is(err, audit.ErrUnavailable) || l.Err() == nil {
		t.Fatal(err)
	}
	e.Actor = "a\nb"
	l2 := openLog(t, memstore.New(), nil)
	if _, err := l2.AppendAsync(ctx, e); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal(err)
	}
}

func TestFollow(t *testing.T) {
	l := openLog(t, memstore.New(), nil)
	grow(t, l, 50)
	var wg sync.WaitGroup
	for _, from := range []uint64{0, 7, 51, 200} {
		wg.Go(func() {
			next := from
			for e, err := range l.Follow(ctx, from) {
				if err != nil || e.Index != next {
					t.Errorf("from %d: %d, expected %d: %v", from, e.Index, next, err)
					return
				}
				next++
				if from == 7 && next%50 == 0 {
					time.Sleep(5 * time.Millisecond) // slow, and it holds up nobody
				}
			}
			if next != 551 {
				t.Errorf("from %d: ended at %d", from, next)
			}
		})
	}
	for i := range 500 {
		if _, err := l.Append(ctx, read(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close() // ends them, after the last event
	wg.Wait()

	l = openLog(t, memstore.New(), nil)
	gone, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	next, stop := iter.Pull2(l.Follow(gone, 0))
	defer stop()
	if e, err, ok := next(); !ok || err != nil || e.Index != 0 {
		t.Fatal(e, err)
	}
	if _, err, ok := next(); !ok || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, _, ok := next(); ok {
		t.Fatal("goes on after an error")
	}
}

func TestReplay(t *testing.T) {
	l := openLog(t, memstore.New(), nil)
	at := clock()
	shift := func(s int) time.Time { return at.Add(time.Duration(s) * time.Second) }
	add := func(seconds ...int) {
		for _, s := range seconds {
			e := read(s)
			e.Time = shift(s)
			if _, err := l.Append(ctx, e); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(10, 12, 11, 11, 20, 5, 19, 40, 30, 41)
	got := func(window time.Duration) (s string) {
		for e, err := range l.Replay(ctx, 1, window) {
			if err != nil {
				t.Fatal(err)
			}
			s += fmt.Sprint(" ", int(e.Event.Time.Sub(at)/time.Second))
			if e.Late {
				s += "L"
			}
		}
		return s[1:]
	}
	for window, want := range map[time.Duration]string{
		0:                " 10 11 11 12 5L 19 20 30 40 41",
		5 * time.Second:  " 10 11 11 12 5L 19 20 30 40 41",
		20 * time.Second: " 5 10 11 11 12 19 20 30 40 41",
	} {
		if s := " " + got(window); s != want {
			t.Errorf("window %v:%s, want%s", window, s, want)
		}
	}
	// Every event comes once, and those that are not late in order.
	n := 3000
	for range n {
		add(100 + rand.IntN(300))
	}
	seen := map[uint64]bool{}
	last := time.Time{}
	for e, err := range l.Replay(ctx, 0, time.Minute) {
		if err != nil || seen[e.Index] || !e.Late && e.Event.Time.Before(last) || e.Late && !e.Event.Time.Before(last) {
			t.Fatal(e.Index, e.Late, err)
		}
		if !e.Late {
			last = e.Event.Time
		}
		seen[e.Index] = true
	}
	if len(seen) != n+11 {
		t.Fatal(len(seen))
	}
}
