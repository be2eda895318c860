package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// apiPool is a pool with its rules.
type apiPool struct {
	ID         string    `json:"id"`
	Version    int64     `json:"version"`
	Name       string    `json:"name"`
	RecordType string    `json:"record_type"`
	Mode       string    `json:"mode" enum:"claim,assign"`
	You        string    `json:"you,omitempty" enum:"admin,member"`
	HoldCap    int64     `json:"hold_cap"`
	TotalCap   int64     `json:"total_cap"`
	DailyCap   int64     `json:"daily_cap"`
	LockCap    int64     `json:"lock_cap"`
	Cooldown   int64     `json:"cooldown"`
	Clocks     apiClocks `json:"clocks"`
	RemindDays int64     `json:"remind_days"`
	Hide       []string  `json:"hide"`
	Zone       string    `json:"zone"`
}

// apiClocks are days.
type apiClocks struct {
	Protect int64 `json:"protect"`
	Extend  int64 `json:"extend"`
	Max     int64 `json:"max"`
}

type apiPools struct {
	Body struct {
		Items []apiPool `json:"items"`
		Next  string    `json:"next,omitempty"`
	}
}

// apiGroup is one group of records.
type apiGroup struct {
	Keys  []any   `json:"keys" doc:"the field, and the currency of the sum; null is a key too"`
	Count int64   `json:"count"`
	Sums  []int64 `json:"sums,omitempty" doc:"minor units"`
}

type apiGroups struct {
	Body struct {
		Groups []apiGroup `json:"groups"`
		Hidden int        `json:"hidden" doc:"how many groups are so small that they are left out"`
	}
}

func poolAnswer(p *pool.Pool, self crm.ID[crm.Employee]) apiPool {
	out := apiPool{
		ID: p.ID.String(), Version: p.Version, Name: p.Name, RecordType: p.RecordType, Mode: string(p.Mode),
		HoldCap: p.HoldCap, TotalCap: p.TotalCap, DailyCap: p.DailyCap, LockCap: p.LockCap, Cooldown: p.Cooldown,
		Clocks: apiClocks{p.Clocks.Protect, p.Clocks.Extend, p.Clocks.Max}, RemindDays: p.RemindDays, Hide: p.Hide, Zone: p.Zone,
	}
	if out.Hide == nil {
		out.Hide = []string{}
	}
	switch {
	case p.Admin(self):
		out.You = "admin"
	case p.Member(self):
		out.You = "member"
	}
	return out
}

// poolAPI registers pools, the acts by which records change hands, and numbers.
func (s *Server) poolAPI(api huma.API) {
	caller := func(ctx context.Context) (guard.Caller, *request) {
		r := ctx.Value(apiKey{}).(*request)
		return r.caller(), r
	}
	op := func(id, method, path, summary, tag string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}, MaxBodyBytes: 16 << 10}
	}
	huma.Register(api, op("list-pools", http.MethodGet, "/api/v1/pools", "List the pools that you may see, by name", "pools"),
		func(ctx context.Context, in *struct {
			After string `query:"after" doc:"next of the page before" maxLength:"400"`
			Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		}) (*apiPools, error) {
			c, r := caller(ctx)
			p, err := s.app.Pools.List(ctx, c, guard.Query{Sort: "name", After: in.After, Limit: in.Limit})
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiPools{}
			out.Body.Next, out.Body.Items = p.Next, []apiPool{}
			for i := range p.Items {
				out.Body.Items = append(out.Body.Items, poolAnswer(p.Items[i].Value, r.self.ID))
			}
			return out, nil
		})
	huma.Register(api, op("list-pool-records", http.MethodGet, "/api/v1/pools/{id}/records", "List what is free in a pool, as it may be seen before a claim", "pools"),
		func(ctx context.Context, in *struct {
			ID    string `path:"id" maxLength:"36"`
			After string `query:"after" doc:"next of the page before" maxLength:"400"`
			Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		}) (*apiPage, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			c, _ := caller(ctx)
			v, err := s.app.Pools.Get(ctx, c, u)
			if err != nil {
				return nil, apiFault(err)
			}
			k, err := s.freeOf(v.Value)
			if err != nil {
				return nil, apiFault(err)
			}
			if ok, err := k.browsable(ctx, c, v.Value); err != nil {
				return nil, apiFault(err)
			} else if !ok {
				return nil, apiFault(&pool.Refusal{Act: pool.Claim, Reason: pool.NotMember})
			}
			out := &apiPage{}
			if out.Body.Items, out.Body.Next, err = k.freeRecords(ctx, c, s.app.Desk, v.Value, guard.Query{After: in.After, Limit: in.Limit}); err != nil {
				return nil, apiFault(err)
			}
			return out, nil
		})
	for _, k := range s.kinds {
		switch k.name() {
		case crm.TypeCustomer, crm.TypeLead:
		default:
			continue
		}
		for act := range handing {
			type body struct {
				Version int64  `json:"version,omitempty" minimum:"0" doc:"that you saw; 0: whichever is stored"`
				To      string `json:"to,omitempty" maxLength:"36" doc:"who gets it, or the pool that it enters"`
			}
			huma.Register(api, op(act+"-"+k.path(), http.MethodPost, "/api/v1/"+k.path()+"/{id}/"+act, "Change who has a record: "+act, k.path()),
				func(ctx context.Context, in *struct {
					ID   string `path:"id" maxLength:"36"`
					Body *body
				}) (*struct{}, error) {
					u, err := crm.ParseUUID(in.ID)
					if err != nil {
						return nil, apiFault(crm.ErrNotFound)
					}
					var b body
					if in.Body != nil {
						b = *in.Body
					}
					c, _ := caller(ctx)
					if err := s.hand(ctx, c, act, desk.Target{Type: k.name(), ID: u, Version: b.Version}, b.To); err != nil {
						return nil, apiFault(err)
					}
					return nil, nil
				})
		}
	}
	for _, n := range s.allNumbered() {
		path := map[string]string{crm.TypeCustomer: "customers", crm.TypeLead: "leads", crm.TypeOpportunity: "opportunities"}[n.typ]
		huma.Register(api, op("group-"+path, http.MethodGet, "/api/v1/"+path+"/groups", "Count and sum by fields; small groups are left out", path),
			func(ctx context.Context, in *struct {
				By string `query:"by" doc:"stage, state, source or owner" maxLength:"40" required:"true"`
			}) (*apiGroups, error) {
				c, _ := caller(ctx)
				if !slices.Contains(n.by, in.By) {
					return nil, apiFault(errBadRequest)
				}
				found, err := n.group(ctx, c, n.grouping(in.By))
				if err != nil {
					return nil, apiFault(err)
				}
				out := &apiGroups{}
				out.Body.Hidden, out.Body.Groups = found.Hidden, []apiGroup{}
				for _, g := range found.Groups {
					a := apiGroup{Count: g.Count, Sums: g.Sums}
					for _, key := range g.Keys {
						v := key.Any()
						if t, ok := v.(time.Time); ok {
							v = t.UTC()
						}
						if text, ok := v.(string); ok && strings.TrimSpace(text) == "" {
							v = nil
						}
						a.Keys = append(a.Keys, v)
					}
					out.Body.Groups = append(out.Body.Groups, a)
				}
				return out, nil
			})
	}
}
