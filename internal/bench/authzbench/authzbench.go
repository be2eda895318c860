// Package authzbench measures decisions beside cedar-go, Casbin, plain OPA and Go by hand. All of them have the same
// policy, and have to give the same answers before anything is measured.
package authzbench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// Bar is a bound and what was measured.
type Bar struct {
	Name        string
	Value, Most float64 // in Unit; with Least, the value has to be that at least
	Unit        string
	Least       bool
}

// Met tells whether the bound is kept.
func (b Bar) Met() bool {
	if b.Least {
		return b.Value >= b.Most
	}
	return b.Value <= b.Most
}

// String writes a line for people.
func (b Bar) String() string {
	word, verdict := "at most", "met"
	if b.Least {
		word = "at least"
	}
	if !b.Met() {
		verdict = "MISSED"
	}
	return fmt.Sprintf("%-6s  %s: %.4g %s, %s %g", verdict, b.Name, b.Value, b.Unit, word, b.Most)
}

// ours is the variant that the others are compared with.
const ours = "crmguard"

// Requests is how many requests have to be answered alike.
const Requests = 4096

// World has the engines and what they are asked.
type World struct {
	engine, shipped *rego.Engine
	bare            *rego.Engine // has OPA check no sample of its decisions
	hand            *hand
	cedar           *cedarEngine
	casbin          *casbinEngine
	opa, opaShipped *opaEngine

	requests, full []authz.Request // of the small policy, of the shipped one
}

// New makes the engines.
func New(ctx context.Context) (*World, error) {
	s, err := readSettings()
	if err != nil {
		return nil, err
	}
	w := &World{requests: requests(Requests, s.Actions), full: fullRequests(Requests)}
	if w.engine, err = rego.New(ctx, &rego.Options{Policy: Policy()}); err != nil {
		return nil, err
	}
	if w.shipped, err = rego.New(ctx, nil); err != nil {
		return nil, err
	}
	if w.bare, err = rego.New(ctx, &rego.Options{Policy: Policy(), Sample: -1}); err != nil {
		return nil, err
	}
	w.hand = newHand(s, w.engine.Revision())
	if w.cedar, err = newCedar(s); err != nil {
		return nil, err
	}
	if w.casbin, err = newCasbin(s, w.hand); err != nil {
		return nil, err
	}
	if w.opa, err = newOPA(ctx, Policy()); err != nil {
		return nil, err
	}
	w.opaShipped, err = newOPA(ctx, rego.Embedded())
	return w, err
}

// fullRequests makes requests of the shipped policy: from another address each time, over five minutes.
func fullRequests(n int) []authz.Request {
	d := dice(0xd1342543de82ef95)
	shippedRoles := []string{"sales", "sales", "manager", "support", "finance", "marketing", "auditor", "admin", "analyst"}
	shippedTypes := []string{"customer", "contact", "lead", "follow_up", "quote", "contract", "ticket"}
	people := subjects(&d, 240)
	start := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	for i := range people {
		s := &people[i]
		s.Roles = []string{shippedRoles[d.roll(len(shippedRoles))]}
		s.Zone, s.Region, s.Device = "Asia/Shanghai", "cn", "managed"
		if d.percent(20) {
			s.Compartments = []string{"board"}
		}
		for j := range s.Shares {
			s.Shares[j].By, s.Shares[j].Until = fmt.Sprintf("e%d", d.roll(len(people))), start.Add(time.Hour)
		}
	}
	actions := []authz.Action{
		authz.List, authz.Read, authz.Read, authz.Search, authz.Create, authz.Update, authz.Delete, authz.Reveal, authz.Export, authz.Approve,
	}
	out := make([]authz.Request, n)
	for i := range out {
		r := authz.Request{Subject: people[d.roll(len(people))], Resource: resource(&d, d.roll(2000), len(people))}
		r.Resource.Type = shippedTypes[d.roll(len(shippedTypes))]
		r.Action = actions[d.roll(len(actions))]
		if d.percent(33) {
			r.Resource.Owner = r.Subject.ID
		}
		if d.percent(10) {
			r.Resource.Compartments = []string{"board"}
		}
		r.Resource.Actors, r.Resource.Amount = []string{"e1", r.Subject.ID}[:1+d.roll(2)], int64(d.roll(10_000_000))
		// The facts of an address and a minute are kept, as in a program; which plans there are does not depend on them.
		r.Environment = authz.Environment{Time: start.Add(time.Duration(d.roll(60)) * time.Second), Purpose: "sales", Rows: d.roll(3000)}
		r.Environment.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(len(r.Subject.ID))})
		out[i] = r
	}
	return out
}

func equal(a, b authz.Decision) bool {
	return a.Allowed == b.Allowed && a.Revision == b.Revision && slices.Equal(a.Controls, b.Controls) &&
		slices.Equal(a.Obligations, b.Obligations) && maps.Equal(a.Fields.ByClass, b.Fields.ByClass) &&
		maps.Equal(a.Fields.ByName, b.Fields.ByName)
}

// Agree asks every engine every request. It returns how many were allowed by the small policy and by the shipped one, and
// an error for the first answer that differs.
func (w *World) Agree(ctx context.Context) (small, shipped int, err error) {
	for i := range w.requests {
		r := &w.requests[i]
		d, err := w.engine.Decide(ctx, *r)
		if err != nil {
			return 0, 0, err
		}
		if d.Allowed {
			small++
		}
		differs := func(who string, theirs any) error {
			return fmt.Errorf("%s answers otherwise: %v, %s has %+v; %+v", who, theirs, ours, d, *r)
		}
		if h := w.hand.decide(r); !equal(d, h) || w.hand.allowed(r) != d.Allowed {
			return 0, 0, differs("Go by hand", h)
		}
		m, err := w.opa.decide(ctx, opaInput(r))
		if err != nil {
			return 0, 0, err
		}
		if o := w.opa.read(m, d.Revision); !equal(d, o) {
			return 0, 0, differs("OPA", o)
		}
		if ok, err := w.cedar.allowed(w.cedar.request(r)); err != nil || ok != d.Allowed {
			return 0, 0, differs("cedar-go", fmt.Sprint(ok, err))
		}
		if ok, err := w.casbin.allowed(r); err != nil || ok != d.Allowed {
			return 0, 0, differs("Casbin", fmt.Sprint(ok, err))
		}
	}
	for i := range w.full {
		r := &w.full[i]
		d, err := w.shipped.Decide(ctx, *r)
		if err != nil {
			return 0, 0, err
		}
		if d.Allowed {
			shipped++
		}
		m, err := w.opaShipped.decide(ctx, opaInput(r))
		if err != nil {
			return 0, 0, err
		}
		if o := w.opaShipped.read(m, d.Revision); !equal(d, o) {
			return 0, 0, fmt.Errorf("OPA answers otherwise: %+v, %s has %+v; %+v", o, ours, d, *r)
		}
	}
	return small, shipped, nil
}

// turns calls f with the numbers below n in turn.
func turns(n int, f func(i int) error) func() error {
	i := -1
	return func() error {
		if i++; i == n {
			i = 0
		}
		return f(i)
	}
}

// Decisions measures single decisions.
func (w *World) Decisions(ctx context.Context, opts measure.Options) ([]measure.Figure, []Bar, error) {
	n := len(w.requests)
	var sink authz.Decision
	ready := make([]cedarRequest, n)
	inputs, fullInputs := make([]any, n), make([]any, len(w.full))
	for i := range w.requests {
		ready[i], inputs[i] = w.cedar.request(&w.requests[i]), opaInput(&w.requests[i])
	}
	for i := range w.full {
		fullInputs[i] = opaInput(&w.full[i])
	}
	figures, err := measure.Compare(fmt.Sprintf("decision, %d requests in turn", n), opts,
		measure.Variant{Name: ours, Peer: true, Do: turns(n, func(i int) (err error) {
			sink, err = w.engine.Decide(ctx, w.requests[i])
			return err
		})},
		measure.Variant{Name: ours + ", no sample checked by OPA", Do: turns(n, func(i int) (err error) {
			sink, err = w.bare.Decide(ctx, w.requests[i])
			return err
		})},
		measure.Variant{Name: "Go by hand", Do: turns(n, func(i int) error {
			sink = w.hand.decide(&w.requests[i])
			return nil
		})},
		measure.Variant{Name: "cedar-go, entities at hand", Do: turns(n, func(i int) error {
			_, err := w.cedar.allowed(ready[i])
			return err
		})},
		measure.Variant{Name: "cedar-go, entities made", Do: turns(n, func(i int) error {
			_, err := w.cedar.allowed(w.cedar.request(&w.requests[i]))
			return err
		})},
		measure.Variant{Name: "OPA, map input", Do: turns(n, func(i int) error {
			_, err := w.opa.decide(ctx, inputs[i])
			return err
		})},
		measure.Variant{Name: "OPA, map input, yes or no", Do: turns(n, func(i int) error {
			_, err := w.opa.allowed(ctx, inputs[i])
			return err
		})},
		measure.Variant{Name: "Casbin, yes or no", Do: turns(n, func(i int) error {
			_, err := w.casbin.allowed(&w.requests[i])
			return err
		})},
	)
	if err != nil {
		return nil, nil, err
	}
	const few = 16 // what a processor's caches hold
	hot, err := measure.Compare(fmt.Sprintf("decision, %d requests in turn", few), opts,
		measure.Variant{Name: ours, Peer: true, Do: turns(few, func(i int) (err error) {
			sink, err = w.engine.Decide(ctx, w.requests[i])
			return err
		})},
		measure.Variant{Name: ours + ", no sample checked by OPA", Do: turns(few, func(i int) (err error) {
			sink, err = w.bare.Decide(ctx, w.requests[i])
			return err
		})},
		measure.Variant{Name: ours + ", every control", Do: turns(few, func(i int) (err error) {
			sink, err = w.shipped.Decide(ctx, w.full[i])
			return err
		})},
		measure.Variant{Name: "Go by hand", Do: turns(few, func(i int) error {
			sink = w.hand.decide(&w.requests[i])
			return nil
		})},
		measure.Variant{Name: "cedar-go, entities at hand", Do: turns(few, func(i int) error {
			_, err := w.cedar.allowed(ready[i])
			return err
		})},
	)
	if err != nil {
		return nil, nil, err
	}
	full, err := measure.Compare("decision, every control", opts,
		measure.Variant{Name: ours, Peer: true, Do: turns(len(w.full), func(i int) (err error) {
			sink, err = w.shipped.Decide(ctx, w.full[i])
			return err
		})},
		measure.Variant{Name: "OPA, map input", Do: turns(len(w.full), func(i int) error {
			_, err := w.opaShipped.decide(ctx, fullInputs[i])
			return err
		})},
	)
	_ = sink
	return slices.Concat(figures, hot, full), []Bar{
		{Name: "decision", Value: figures[0].NsPerOp, Most: 300, Unit: "ns"},
		{Name: "decision", Value: figures[0].AllocsPerOp, Most: 1, Unit: "allocations"},
		{Name: "decision of few requests", Value: hot[0].NsPerOp, Most: 300, Unit: "ns"},
		{Name: "decision of few requests beside cedar-go", Value: hot[4].Ratio, Most: 40, Unit: "times", Least: true},
		{Name: "decision of few requests, every control", Value: hot[2].NsPerOp, Most: 1000, Unit: "ns"},
		{Name: "decision beside cedar-go, entities at hand", Value: figures[3].Ratio, Most: 40, Unit: "times", Least: true},
		{Name: "decision beside OPA", Value: figures[5].Ratio, Most: 100, Unit: "times", Least: true},
		{Name: "decision beside Casbin", Value: figures[7].Ratio, Most: 200, Unit: "times", Least: true},
		{Name: "decision, every control", Value: full[0].NsPerOp, Most: 1000, Unit: "ns"},
	}, err
}

// Lists measures the list of 10,000 records. Those that take records one by one are measured with 500 of them.
func (w *World) Lists(ctx context.Context, opts measure.Options) ([]measure.Figure, []Bar, error) {
	const many, few = 10_000, 500
	records, r := rows(many)
	perRecord := func(allowed func(*authz.Request) (bool, error), n int) (visible int, err error) {
		one := r
		for i := range records[:n] {
			records[i].resource(&one.Resource)
			ok, err := allowed(&one)
			if err != nil {
				return 0, err
			}
			if ok {
				visible++
			}
		}
		return visible, nil
	}
	filter := func(engine *rego.Engine) (int, error) {
		out, err := authz.FilterSlice(ctx, engine, r, records, (*row).resource)
		return len(out), err
	}
	cedar := w.cedar.list(records, r)
	inputs := map[string]any{}
	for i := range records[:few] {
		one := r
		records[i].resource(&one.Resource)
		inputs[records[i].ID] = opaInput(&one)
	}
	byHand := func(r *authz.Request) (bool, error) { return w.hand.allowed(r), nil }
	byOPA := func(r *authz.Request) (bool, error) { return w.opa.allowed(ctx, inputs[r.Resource.ID]) }
	visible := func(run func() (int, error), want int) func() error {
		return func() error {
			if n, err := run(); err != nil || n != want {
				return fmt.Errorf("%d records, not %d: %w", n, want, err)
			}
			return nil
		}
	}
	all, err := perRecord(byHand, many)
	if err != nil {
		return nil, nil, err
	}
	some, err := perRecord(byHand, few)
	if err != nil {
		return nil, nil, err
	}
	times := fmt.Sprintf(", %d records times %d", few, many/few)
	figures, err := measure.Compare(fmt.Sprintf("list of %d, %d visible", many, all), opts,
		measure.Variant{Name: ours, Peer: true, Do: visible(func() (int, error) { return filter(w.engine) }, all)},
		measure.Variant{Name: ours + ", every control", Do: func() error { _, err := filter(w.shipped); return err }},
		measure.Variant{Name: "Go by hand", Do: visible(func() (int, error) { return perRecord(byHand, many) }, all)},
		measure.Variant{Name: "cedar-go, x/exp/batch", Do: visible(cedar.run, all)},
		measure.Variant{Name: "OPA" + times, Do: visible(func() (int, error) { return perRecord(byOPA, few) }, some)},
		measure.Variant{Name: "Casbin" + times, Do: visible(func() (int, error) { return perRecord(w.casbin.allowed, few) }, some)},
	)
	if err != nil {
		return nil, nil, err
	}
	for i := range figures {
		if strings.HasSuffix(figures[i].Variant, times) {
			figures[i].NsPerOp *= many / few
			figures[i].AllocsPerOp *= many / few
			figures[i].Ratio *= many / few
		}
	}
	return figures, []Bar{
		{Name: "list", Value: figures[0].NsPerOp / 1e6, Most: 1, Unit: "ms"},
		{Name: "list, every control", Value: figures[1].NsPerOp / 1e6, Most: 1, Unit: "ms"},
		{Name: "list beside cedar-go's batch", Value: figures[3].Ratio, Most: 20, Unit: "times", Least: true},
		{Name: "list beside OPA, record by record", Value: figures[4].Ratio, Most: 400, Unit: "times", Least: true},
	}, nil
}

// WhoCan measures who of 1,000 subjects may read one record.
func (w *World) WhoCan(ctx context.Context, opts measure.Options) ([]measure.Figure, []Bar, error) {
	d := dice(0x9fb21c651e98df25)
	people := subjects(&d, 1000)
	record := resource(&d, 0, len(people))
	record.Tenant, record.Level = "t", 1
	r := authz.Request{Action: authz.Read, Resource: record}
	var can int
	for i := range people {
		one := r
		one.Subject = people[i]
		if w.hand.allowed(&one) {
			can++
		}
	}
	ask := func(engine *rego.Engine) (int, error) {
		out, err := review.WhoCan(ctx, engine, slices.Values(people), r)
		return len(out), err
	}
	check := func(run func() (int, error)) func() error {
		return func() error {
			if n, err := run(); err != nil || n != can {
				return fmt.Errorf("%d subjects, not %d: %w", n, can, err)
			}
			return nil
		}
	}
	cedar := w.cedar.whoCan(people, r)
	figures, err := measure.Compare(fmt.Sprintf("who can, of %d; %d can", len(people), can), opts,
		measure.Variant{Name: ours, Peer: true, Do: check(func() (int, error) { return ask(w.engine) })},
		measure.Variant{Name: ours + ", every control", Do: func() error { _, err := ask(w.shipped); return err }},
		measure.Variant{Name: "cedar-go, x/exp/batch", Do: check(cedar.run)},
	)
	if err != nil {
		return nil, nil, err
	}
	return figures, []Bar{
		{Name: "who can", Value: figures[0].NsPerOp / 1e6, Most: 1, Unit: "ms"},
		{Name: "who can, every control", Value: figures[1].NsPerOp / 1e6, Most: 1, Unit: "ms"},
	}, nil
}

// Print writes the figures as a table.
func Print(out io.Writer, figures []measure.Figure) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "work\tvariant\ttime/op\tallocs/op\ttimes ours\t")
	last := ""
	for _, f := range figures {
		work := f.Work
		if work == last {
			work = ""
		}
		last = f.Work
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%.3g\t\n", work, f.Variant, duration(f.NsPerOp), f.AllocsPerOp, f.Ratio)
	}
	return t.Flush()
}

func duration(ns float64) string {
	switch {
	case ns < 1e4:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.2f ms", ns/1e6)
}
