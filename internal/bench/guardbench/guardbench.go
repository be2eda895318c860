// Package guardbench compares reading through crm/guard with the same query without protection.
package guardbench

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/localkek"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/dialect"
)

// page is the length of the list that is measured.
const page = 50

// rig is everything that is measured: one database through two guards that differ in their log, and
// the plain database.
type rig struct {
	file, memory *guard.Records[*crm.Customer]
	peer         *peer
	caller       guard.Caller
	ids          []crm.UUID // of the caller's customers
	close        []func() error
}

func (r *rig) Close() error {
	var errs []error
	for i := len(r.close) - 1; i >= 0; i-- {
		errs = append(errs, r.close[i]())
	}
	return errors.Join(errs...)
}

// open makes a rig with so many customers, a tenth of which are the caller's.
func open(ctx context.Context, dir string, customers int) (*rig, error) {
	r := &rig{}
	if err := r.fill(ctx, dir, customers); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *rig) database(ctx context.Context, path string) (w, ro *sql.DB, err error) {
	if w, ro, err = dialect.OpenSQLite(ctx, path); err == nil {
		r.close = append(r.close, w.Close, ro.Close)
	}
	return w, ro, err
}

func (r *rig) fill(ctx context.Context, dir string, n int) error {
	w, ro, err := r.database(ctx, filepath.Join(dir, "crm.db"))
	if err != nil {
		return err
	}
	store, err := sqlstore.Open(ctx, w, ro, dialect.SQLite)
	if err != nil {
		return err
	}
	keys, err := keystore.Open(ctx, w, string(dialect.SQLite), &keystore.Options{Reads: ro})
	if err != nil {
		return err
	}
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	if err != nil {
		return err
	}
	keeper, err := encrypt.NewKeeper(kek, keys, nil)
	if err != nil {
		return err
	}
	policy, err := rego.New(ctx, nil)
	if err != nil {
		return err
	}
	files, err := filestore.Open(filepath.Join(dir, "log"), nil)
	if err != nil {
		return err
	}
	door := func(name string, s driver.Store) (*guard.Records[*crm.Customer], error) {
		signer, err := audit.OpenSigningKey(filepath.Join(dir, name+".key"), "bench/"+name)
		if err != nil {
			return nil, err
		}
		log, err := audit.Open(ctx, s, signer, nil)
		if err != nil {
			return nil, err
		}
		r.close = append(r.close, log.Close)
		g, _, err := guard.New(ctx, store, keeper, policy, log, &guard.Options{LogName: name})
		if err != nil {
			return nil, err
		}
		return guard.For[*crm.Customer](ctx, g, nil)
	}
	if r.file, err = door("file", files); err != nil {
		return err
	}
	if r.memory, err = door("memory", auditmem.New()); err != nil {
		return err
	}

	var all []*crm.Customer
	for i := range n {
		all = append(all, crmtest.Customer(i))
	}
	system := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	for rest := all; len(rest) > 0; {
		size := min(len(rest), guard.MaxBatch)
		errs, err := r.file.CreateAll(ctx, system, rest[:size])
		if err := errors.Join(append(errs, err)...); err != nil {
			return err
		}
		rest = rest[size:]
	}
	pw, pr, err := r.database(ctx, filepath.Join(dir, "plain.db"))
	if err != nil {
		return err
	}
	if r.peer, err = newPeer(ctx, pw, pr, all); err != nil {
		return err
	}

	owner := all[0].Owner
	for _, c := range all {
		if c.Owner == owner {
			r.ids = append(r.ids, c.ID.UUID())
		}
	}
	r.caller = guard.Caller{Subject: authz.Subject{
		ID: owner.String(), Tenant: "default", Roles: []string{"sales"}, Team: all[0].Team, Active: true,
	}}
	return nil
}

// over calls f with one id after another.
func (r *rig) over(f func(id crm.UUID) error) func() error {
	i := 0
	return func() error {
		i++
		return f(r.ids[i%len(r.ids)])
	}
}

func get(ctx context.Context, records *guard.Records[*crm.Customer], c guard.Caller) func(crm.UUID) error {
	return func(id crm.UUID) error { _, err := records.Get(ctx, c, id); return err }
}

func list(ctx context.Context, records *guard.Records[*crm.Customer], c guard.Caller) func() error {
	return func() error {
		p, err := records.List(ctx, c, guard.Query{Limit: page})
		if err == nil && (len(p.Items) != page || p.Next == "") {
			err = errors.New("the list is short")
		}
		return err
	}
}

// Run measures a salesperson who reads one of his customers, and a page of them, with so many customers
// in all. What is read is a database file; its log is a file that is synced at each event, and, apart
// from that, a log in memory, which leaves the cost of decision, keys, MAC and signature.
func Run(ctx context.Context, customers int, opts measure.Options) ([]measure.Figure, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r, err := open(ctx, dir, customers)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []measure.Figure
	figures, err := measure.Compare("get", opts,
		measure.Variant{Name: "plain table, database/sql", Peer: true, Do: r.over(func(id crm.UUID) error { return r.peer.get(ctx, id) })},
		measure.Variant{Name: "guard, log in memory", Do: r.over(get(ctx, r.memory, r.caller))},
		measure.Variant{Name: "guard, log synced to file", Do: r.over(get(ctx, r.file, r.caller))})
	if err != nil {
		return nil, err
	}
	all = append(all, figures...)
	figures, err = measure.Compare("list 50", opts,
		measure.Variant{Name: "plain table, database/sql", Peer: true, Do: func() error {
			return r.peer.list(ctx, r.caller.Subject.ID, page)
		}},
		measure.Variant{Name: "guard, log in memory", Do: list(ctx, r.memory, r.caller)},
		measure.Variant{Name: "guard, log synced to file", Do: list(ctx, r.file, r.caller)})
	if err != nil {
		return nil, err
	}
	all = append(all, figures...)
	figures, err = syncCost(dir, opts)
	return append(all, figures...), err
}

// syncCost measures what the disk asks for one synced append of an event's size, and nothing else.
func syncCost(dir string, opts measure.Options) ([]measure.Figure, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	event := make([]byte, 1024)
	return measure.Compare("append 1 KiB and sync", opts, measure.Variant{Name: "the disk itself", Peer: true, Do: func() error {
		if _, err := f.Write(event); err != nil {
			return err
		}
		return f.Sync()
	}})
}
