package crmbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/dialect"
)

// page is the length of the lists that are measured.
const page = 50

// far is the number of the later page.
const far = 1000

// callers of single records at the same time.
const callers = 64

// pages measures the first and a later page of the sales person's list.
func (rep *Report) pages(ctx context.Context, g *rig, o Options) error {
	log, err := g.memoryLog(ctx, "memory")
	if err != nil {
		return err
	}
	warm, err := g.door(ctx, g.store, nil, log, "memory")
	if err != nil {
		return err
	}
	// Each key is too old when it is asked for again; the keys of the tenant stay.
	cold, err := g.door(ctx, g.store, &encrypt.Options{CacheAge: time.Nanosecond}, log, "memory")
	if err != nil {
		return err
	}
	file, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return err
	}
	caller := g.sales()
	later := min(far, o.Owned/page-1)
	after := ""
	for left := (later - 1) * page; left > 0; { // cursors do not depend on the length of a page
		p, err := warm.List(ctx, caller, guard.Query{Limit: min(left, 200), After: after})
		if err != nil {
			return err
		}
		left -= len(p.Items)
		if after = p.Next; after == "" {
			return errShort
		}
	}
	list := func(records *guard.Records[*crm.Customer], after string) func() error {
		return func() error {
			p, err := records.List(ctx, caller, guard.Query{Limit: page, After: after})
			if err == nil && (len(p.Items) != page || p.Next == "" || p.Items[0].Value.Name.IsEmpty()) {
				err = errShort
			}
			return err
		}
	}
	var firstTook float64
	for _, at := range []struct {
		number int
		after  string
	}{{1, ""}, {later, after}} {
		work := fmt.Sprintf("page %d of %d", at.number, page)
		q, err := g.learn(ctx, func(r *guard.Records[*crm.Customer]) error { return list(r, at.after)() })
		if err != nil {
			return err
		}
		if len(q) != 1 {
			return fmt.Errorf("%d queries make a page", len(q))
		}
		figures, err := measure.Compare(work, o.Measure,
			measure.Variant{Name: "the same query by hand", Peer: true, Do: func() error {
				rows, err := bare(ctx, g.r, g.schema, q[0])
				if err == nil && len(rows) != page+1 {
					err = errShort
				}
				return err
			}},
			measure.Variant{Name: "guard, log in memory", Do: list(warm, at.after)},
			measure.Variant{Name: "guard, cold keys, log in memory", Do: list(cold, at.after)})
		if err != nil {
			return err
		}
		for _, f := range figures {
			rep.Figures = append(rep.Figures, Figure{
				Engine: g.engine, Work: work, Variant: f.Variant, Peer: f.Peer, P50: time.Duration(f.NsPerOp), Ratio: f.Ratio,
				Note: fmt.Sprintf("processor %s, ratio %.2f; %.0f allocs", span(time.Duration(f.CPUPerOp)), f.CPURatio, f.AllocsPerOp),
			})
		}
		// On SQLite all the work is of this process and waits for nothing, so its processor time says what other work on the machine does not
		// disturb.
		how, time1, ratio := "time", func(f measure.Figure) float64 { return f.NsPerOp }, func(f measure.Figure) float64 { return f.Ratio }
		if g.dialect == dialect.SQLite {
			how, time1, ratio = "processor time", func(f measure.Figure) float64 { return f.CPUPerOp }, func(f measure.Figure) float64 { return f.CPURatio }
		}
		rep.bar(g, work+", warm keys beside the query, "+how, ratio(figures[1]), 1.6, "")
		rep.bar(g, work+", cold keys beside the query, "+how, ratio(figures[2]), 2.5, "")
		if at.number == 1 {
			firstTook = time1(figures[1])
		} else {
			rep.bar(g, work+" beside page 1, "+how, time1(figures[1])/firstTook, 1.15, "")
		}
		// What the log on disk adds, told apart.
		var times []time.Duration
		synced := g.synced.Load()
		for range max(20, 20*o.Measure.Rounds) {
			begin := time.Now()
			if err := list(file, at.after)(); err != nil {
				return err
			}
			times = append(times, time.Since(begin))
		}
		each := time.Duration((g.synced.Load() - synced) / int64(len(times)))
		rep.Figures = append(rep.Figures, Figure{
			Engine: g.engine, Work: work, Variant: "guard, log synced to file", P50: quantile(times, 0.5), P99: quantile(times, 0.99),
			Note: "of which log write and sync " + span(each),
		})
	}
	return nil
}

func (rep *Report) bar(g *rig, name string, have, want float64, unit string) {
	rep.Bars = append(rep.Bars, Bar{Engine: g.engine, Name: name, Have: have, Want: want, Unit: unit})
}

// get measures 64 callers who read customers, each logged durably.
func (rep *Report) get(ctx context.Context, g *rig, o Options) error {
	file, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return err
	}
	admin := g.admin()
	ids := make([]crm.UUID, min(g.gen.rows, 20_000)) // with keys that fit into the cache
	step := g.gen.rows / len(ids)
	for i := range ids {
		ids[i] = g.gen.customer(i * step).ID.UUID()
	}
	var q []statement
	if q, err = g.learn(ctx, func(r *guard.Records[*crm.Customer]) error { _, err := r.Get(ctx, admin, ids[0]); return err }); err != nil {
		return err
	}
	if len(q) != 1 {
		return fmt.Errorf("%d queries make a get", len(q))
	}
	place := slices.IndexFunc(q[0].args, func(a any) bool { b, ok := a.([]byte); return ok && string(b) == string(ids[0][:]) })
	if place < 0 {
		return errors.New("the query of a get names no id")
	}
	byHand := func(id crm.UUID) error {
		args := slices.Clone(q[0].args)
		args[place] = id[:]
		rows, err := bare(ctx, g.r, g.schema, statement{q[0].text, args})
		if err == nil && len(rows) != 1 {
			err = errShort
		}
		return err
	}
	guarded := func(id crm.UUID) error {
		v, err := file.Get(ctx, admin, id)
		if err == nil && v.Value.Name.IsEmpty() {
			err = errShort
		}
		return err
	}
	for some := range slices.Chunk(ids, 200) { // warm keys, as in an office's day
		if _, err := file.GetAll(ctx, admin, some); err != nil {
			return err
		}
	}
	const work = "get one, 64 callers"
	var hand, ours load
	var ratios []float64
	for range o.Rounds {
		a, err := crowd(o.Round, ids, byHand)
		if err != nil {
			return err
		}
		synced := g.synced.Load()
		b, err := crowd(o.Round, ids, guarded)
		if err != nil {
			return err
		}
		b.synced = time.Duration(g.synced.Load() - synced)
		hand.add(a)
		ours.add(b)
		ratios = append(ratios, b.perSecond()/a.perSecond())
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	rep.Figures = append(rep.Figures,
		Figure{Engine: g.engine, Work: work, Variant: "the same query by hand", Peer: true, P50: quantile(hand.times, 0.5), P99: quantile(hand.times, 0.99),
			PerSecond: hand.perSecond()},
		Figure{Engine: g.engine, Work: work, Variant: "guard, log synced to file", P50: quantile(ours.times, 0.5), P99: quantile(ours.times, 0.99),
			PerSecond: ours.perSecond(), Ratio: ratio,
			Note: fmt.Sprintf("the log wrote and synced in %.0f %% of the time", 100*float64(ours.synced)/float64(ours.took))})
	rep.Bars = append(rep.Bars, Bar{Engine: g.engine, Name: work + ", throughput beside the query", Have: ratio, Want: 1.0 / 3, AtLeast: true})
	return nil
}

// load is what many callers did.
type load struct {
	times  []time.Duration
	took   time.Duration
	synced time.Duration
}

func (l *load) add(m load) {
	l.times = append(l.times, m.times...)
	l.took += m.took
	l.synced += m.synced
}

func (l load) perSecond() float64 { return float64(len(l.times)) / l.took.Seconds() }

// crowd lets all callers act for about d.
func crowd(d time.Duration, ids []crm.UUID, act func(crm.UUID) error) (load, error) {
	var wg sync.WaitGroup
	times := make([][]time.Duration, callers)
	errs := make([]error, callers)
	begin := time.Now()
	for n := range callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), uint64(begin.UnixNano())))
			for last := time.Now(); last.Sub(begin) < d; {
				if errs[n] = act(ids[r.IntN(len(ids))]); errs[n] != nil {
					return
				}
				now := time.Now()
				times[n] = append(times[n], now.Sub(last))
				last = now
			}
		})
	}
	wg.Wait()
	return load{times: slices.Concat(times...), took: time.Since(begin)}, errors.Join(errs...)
}

// mine returns places of customers of the sales person, spread over all.
func (g *rig) mine(n int) []int {
	var all []int
	for i := range g.gen.rows {
		if g.gen.isOurs(i) {
			all = append(all, i)
		}
	}
	r := rand.New(rand.NewPCG(7, uint64(g.gen.rows)))
	out := make([]int, n)
	for i := range out {
		out[i] = all[r.IntN(len(all))]
	}
	return out
}

// search measures finding one customer by the whole phone or e-mail.
func (rep *Report) search(ctx context.Context, g *rig, o Options) error {
	file, err := g.door(ctx, g.store, nil, g.files, "file")
	if err != nil {
		return err
	}
	caller := g.sales()
	const work = "search by phone or e-mail"
	var times []time.Duration
	byField := map[string][]time.Duration{}
	synced := g.synced.Load()
	for n, i := range g.mine(o.Searches) {
		c := g.gen.customer(i)
		field, term := "phone", c.Phone.Expose()
		if n%2 == 1 {
			field, term = "email", c.Email.Expose()
		}
		begin := time.Now()
		p, err := file.Search(ctx, caller, term, page, field)
		took := time.Since(begin)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.Items, func(v guard.View[*crm.Customer]) bool { return v.Value.ID == c.ID }) {
			return fmt.Errorf("customer %d is not found by %s", i, field)
		}
		times = append(times, took)
		byField[field] = append(byField[field], took)
	}
	each := time.Duration((g.synced.Load() - synced) / int64(len(times)))
	// The queries of one search by hand, its keys and log left out.
	c := g.gen.customer(g.mine(1)[0])
	q, err := g.learn(ctx, func(r *guard.Records[*crm.Customer]) error {
		_, err := r.Search(ctx, caller, c.Phone.Expose(), page, "phone")
		return err
	})
	if err != nil {
		return err
	}
	var hand []time.Duration
	for range len(times) {
		begin := time.Now()
		for _, s := range q {
			if _, err := bare(ctx, g.r, g.schema, s); err != nil {
				return err
			}
		}
		hand = append(hand, time.Since(begin))
	}
	peer := quantile(hand, 0.5)
	p99 := quantile(times, 0.99)
	rep.Figures = append(rep.Figures,
		Figure{Engine: g.engine, Work: work, Variant: "the queries of one by hand, repeated", Peer: true, P50: peer, P99: quantile(hand, 0.99)},
		Figure{Engine: g.engine, Work: work, Variant: fmt.Sprintf("guard, %d searches, log synced to file", len(times)), P50: quantile(times, 0.5), P99: p99,
			Ratio: float64(quantile(times, 0.5)) / float64(peer), Note: "of which log write and sync " + span(each)},
		Figure{Engine: g.engine, Work: work, Variant: "of them by phone", P50: quantile(byField["phone"], 0.5), P99: quantile(byField["phone"], 0.99)},
		Figure{Engine: g.engine, Work: work, Variant: "of them by e-mail", P50: quantile(byField["email"], 0.5), P99: quantile(byField["email"], 0.99)})
	if g.dialect == dialect.SQLite {
		rep.bar(g, work+", p99", float64(p99)/1e6, 20, " ms")
	}
	return nil
}

// names measures the first 50 customers of the sales person whose names begin so, in characters or letters.
func (rep *Report) names(ctx context.Context, g *rig, _ Options) error {
	store := &counting{Store: g.store}
	file, err := g.door(ctx, store, nil, g.files, "file")
	if err != nil {
		return err
	}
	caller := g.sales()
	var worst time.Duration
	broad := 0
	for _, c := range []struct{ what, term string }{
		{"two characters", "王伟"}, {"two characters, rare", "解琪"}, {"begin of a company", "上海华"}, {"pinyin of a frequent surname", "wang"},
		{"pinyin of a rare one", "xie"}, {"pinyin, two syllables", "zhang wei"}, {"pinyin, full", "li xiaoming"}, {"initials", "zxm"},
		{"letters, English", "Jam"}, {"first name", "James"}, {"whole name", "James Smith"}, {"begin of an English company", "Harbor Log"},
	} {
		var times []time.Duration
		var found guard.Page[*crm.Customer]
		var opened, lists int
		synced := g.synced.Load()
		refused := false
		for range 5 {
			store.take()
			begin := time.Now()
			found, err = file.Search(ctx, caller, c.term, page, "name")
			times = append(times, time.Since(begin))
			lists, opened = store.take()
			if errors.Is(err, guard.ErrBroad) {
				refused = true
			} else if err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
		}
		each := time.Duration((g.synced.Load() - synced) / int64(len(times)))
		first := times[0]
		p50 := quantile(times, 0.5)
		worst = max(worst, times[len(times)-1])
		note := fmt.Sprintf("%d found of %d candidates in %d pages; first time %s; log %s", len(found.Items), opened, lists, span(first), span(each))
		if refused {
			broad++
			note = fmt.Sprintf("refused as too broad after %d candidates", opened)
		}
		rep.Figures = append(rep.Figures, Figure{
			Engine: g.engine, Work: "first 50 by name", Variant: c.what + ", " + strings.TrimSpace(c.term), P50: p50, P99: times[len(times)-1], Note: note,
		})
	}
	if broad > 0 {
		rep.Notes = append(rep.Notes, fmt.Sprintf("%s: %d searches by name were refused as too broad", g.engine, broad))
	}
	rep.bar(g, "first 50 by name, slowest", float64(worst)/1e6, 300, " ms")
	return nil
}
