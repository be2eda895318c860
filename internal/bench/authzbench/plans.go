package authzbench

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// Plans measures what a new combination of roles costs under the shipped policy, each for several actions and types, and
// whether times and addresses make plans.
func Plans(ctx context.Context, combinations, moving int) ([]string, []Bar, error) {
	engine, err := rego.New(ctx, &rego.Options{Sample: -1, Plans: 1 << 20})
	if err != nil {
		return nil, nil, err
	}
	words := []string{"sales", "manager", "support", "finance", "marketing", "auditor", "admin", "analyst", "system"}
	questions := []struct {
		action authz.Action
		typ    string
	}{{authz.Read, "customer"}, {authz.List, "lead"}, {authz.Update, "contract"}, {authz.Export, "customer"}}
	// Somebody who may do nothing asks each question first: what a policy costs once is not a plan's.
	r := authz.Request{Subject: authz.Subject{ID: "e1", Tenant: "t", Team: "/east/", Active: true}}
	ask := func() (time.Duration, error) {
		started := measure.ProcessorTime()
		_, err := engine.Decide(ctx, r)
		return measure.ProcessorTime() - started, err
	}
	for _, q := range questions {
		r.Action, r.Resource = q.action, authz.Resource{Tenant: "t", Type: q.typ}
		if _, err := ask(); err != nil {
			return nil, nil, err
		}
	}
	var first, later []float64 // with the facts of the combination, and when they are known
	before, planned := heap(), engine.Planned()
	for set := 1; set <= combinations && set < 1<<len(words); set++ {
		r.Subject.Roles = nil
		for i, word := range words {
			if set&(1<<i) != 0 {
				r.Subject.Roles = append(r.Subject.Roles, word)
			}
		}
		for i, q := range questions {
			r.Action, r.Resource = q.action, authz.Resource{Tenant: "t", Type: q.typ}
			took, err := ask()
			if err != nil {
				return nil, nil, err
			}
			if i == 0 {
				first = append(first, float64(took.Nanoseconds()))
			} else {
				later = append(later, float64(took.Nanoseconds()))
			}
		}
	}
	kept := heap() - before
	planned = engine.Planned() - planned
	runtime.KeepAlive(engine)
	slices.Sort(first)
	slices.Sort(later)

	// The same people from other places, later and later.
	started := measure.ProcessorTime()
	once := engine.Planned()
	for i := range moving {
		r.Subject.Roles = []string{words[i%3]}
		r.Environment.Time = time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 7 * time.Second)
		r.Environment.Addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if _, err := engine.Decide(ctx, r); err != nil {
			return nil, nil, err
		}
	}
	each := (measure.ProcessorTime() - started) / time.Duration(max(1, moving))
	made := engine.Planned() - once
	return []string{
			fmt.Sprintf("plan miss, shipped policy: %d plans of %d combinations of roles; median %s with the facts of a new combination, %s without; 99 of 100 within %s; %d bytes kept for each plan",
				planned, len(first), duration(median(first)), duration(median(later)), duration(later[len(later)*99/100]), kept/int64(planned)),
			fmt.Sprintf("%d requests with another time and address each made %d plans, %s each: their facts are asked anew", moving, made, duration(float64(each.Nanoseconds()))),
		}, []Bar{
			{Name: "plan miss with new facts, median", Value: median(first) / 1e6, Most: 1, Unit: "ms"},
			{Name: "plan miss, median", Value: median(later) / 1e6, Most: 1, Unit: "ms"},
			{Name: "kept for a plan", Value: float64(kept) / float64(planned) / 1024, Most: 4, Unit: "KiB"},
			{Name: "plans made by times and addresses", Value: float64(made), Most: 0, Unit: "plans"},
		}, nil
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
