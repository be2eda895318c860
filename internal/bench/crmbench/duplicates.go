package crmbench

import (
	"context"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
)

// duplicates measures the check at entry, by somebody who may read few of the records, and the run over all of them.
func (rep *Report) duplicates(ctx context.Context, g *rig, o Options) error {
	file, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return err
	}
	checker, err := dedupe.New(file, nil, nil)
	if err != nil {
		return err
	}
	seller := g.sales()
	seller.Subject.Team = "/east/0/"
	var times []time.Duration
	found := 0
	synced := g.synced.Load()
	const warm = 50
	for n := range o.Searches + warm {
		v := g.gen.customer((n * 7919) % g.gen.rows)
		v.ID = crm.ID[crm.Customer]{} // somebody types it again
		begin := time.Now()
		got, err := checker.Check(ctx, seller, v)
		if err != nil {
			return err
		}
		if n >= warm {
			times = append(times, time.Since(begin))
			found += min(len(got), 1)
		}
	}
	if found == 0 {
		return fmt.Errorf("no check finds anything: the rows have no tokens of the indexes that checks ask")
	}
	each := time.Duration((g.synced.Load() - synced) / int64(o.Searches+warm))
	p50, p99 := quantile(times, 0.5), quantile(times, 0.99)
	rep.Figures = append(rep.Figures, Figure{
		Engine: g.engine, Work: "duplicate check at entry", Variant: "guard, log synced to file", P50: p50, P99: p99,
		Note: fmt.Sprintf("%d of %d found; of which log write and sync %s", found, len(times), span(each)),
	})
	rep.bar(g, "duplicate check at entry, p99", float64(p99)/1e6, 10, " ms")
	return rep.batch(ctx, g, checker)
}

// batch is the run over all.
func (rep *Report) batch(ctx context.Context, g *rig, checker *dedupe.Checker[*crm.Customer]) error {
	system := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	begin := time.Now()
	r, err := checker.All(ctx, system, &guard.AlikeOptions{Dir: g.dir}, func(guard.Pair) error { return nil })
	if err != nil {
		return err
	}
	took := time.Since(begin)
	rep.Figures = append(rep.Figures, Figure{
		Engine: g.engine, Work: "duplicates of all", Variant: "guard, log synced to file", PerSecond: float64(r.Rows) / took.Seconds(),
		Note: fmt.Sprintf("%s: %d blocks, %d too large; %d pairs compared, %d certain, %d likely", took.Round(time.Second), r.Blocks, r.Large, r.Compared, r.Certain, r.Likely),
	})
	rep.bar(g, "duplicates of all, for a million customers", took.Minutes()*1e6/float64(r.Rows), 10, " min")
	return nil
}
