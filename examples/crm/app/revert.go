package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/trash"
	"github.com/crmguard/crmguard/internal/dialect"
)

// RevertOptions say which record is to have fields of a backup back.
type RevertOptions struct {
	Type     string
	ID       crm.UUID
	Snapshot string   // "": the newest
	Recovery string   // file of the key that opens backups; "": the one of the data folder
	Older    bool     // take what is there although the log knows a newer backup
	Fields   []string // of the record; nil: all that differ
	Related  bool     // also what belongs to a customer or a lead: contacts, contracts and the like
}

// RevertStep is what would be done with one record.
type RevertStep struct {
	Type   string
	ID     crm.UUID
	Then   int64    // the version that the snapshot has; the present one is above it or the same
	Now    int64    // the present version
	Fields []string // that would get their earlier values
	InBin  bool     // it is in the recycle bin and would come out first

	keep func(ctx context.Context, tx *guard.Tx) error
}

// Revert gives a record the values of fields that it has in a backup, as a new version, in the name and with the rights of the caller. Nothing is written but by apply,
// which first takes out of the recycle bin what is in it, then
// does it in one transaction, and tells by which event. What is erased stays erased. Errors: crm.ErrNotFound when the record is not there (any
// more), backup.ErrNotFound when it is not in the snapshot, those of guard and of the repository.
func (a *App) Revert(ctx context.Context, c guard.Caller, o RevertOptions) (plan []RevertStep, apply func(ctx context.Context) (event uint64, err error), err error) {
	doors := a.revertible()
	if doors[o.Type] == nil {
		return nil, nil, fmt.Errorf("crm: records of type %q do not come back by themselves", o.Type)
	}
	if o.Recovery == "" {
		o.Recovery = a.Config.path(recoveryKey)
	}
	key, err := backupkey.Read(o.Recovery)
	if err != nil {
		return nil, nil, err
	}
	repo, err := a.Config.repositoryAt(ctx, false, o.Older, nil)
	if err != nil {
		return nil, nil, err
	}
	defer repo.close()
	then := func(typ string, id crm.UUID) (crm.Row, []byte, error) {
		return a.rowOf(ctx, repo, key, o.Snapshot, typ, id)
	}
	all := []trash.Ref{{Type: o.Type, ID: o.ID}}
	if o.Related {
		more, err := a.Desk.Related(ctx, c, all[0])
		if err != nil {
			return nil, nil, err
		}
		all = append(all, more...)
	}
	for i, ref := range all {
		if doors[ref.Type] == nil {
			continue
		}
		row, body, err := then(ref.Type, ref.ID)
		if i > 0 && errors.Is(err, backup.ErrNotFound) {
			continue // it was made later
		}
		if err != nil {
			return nil, nil, err
		}
		fields := o.Fields
		if i > 0 {
			fields = nil
		}
		step, err := doors[ref.Type].compare(ctx, c, row, body, fields)
		if err != nil {
			return nil, nil, err
		}
		if step.InBin && row.Deleted {
			continue // it was there then, too
		}
		plan = append(plan, step)
	}
	return plan, func(ctx context.Context) (uint64, error) {
		for _, s := range plan { // those that one act deleted come out together, others by themselves
			if !s.InBin {
				continue
			}
			h, err := doors[s.Type].header(ctx, c, s.ID)
			if err != nil {
				return 0, err
			}
			if !h.Deleted {
				continue
			}
			if _, err := a.Desk.Restore(ctx, c, trash.Ref{Type: s.Type, ID: s.ID}, h.Version); err != nil {
				return 0, err
			}
		}
		tx, n := a.Guard.Begin(c, o.Type+".revert"), 0
		for _, s := range plan {
			if len(s.Fields) == 0 {
				continue
			}
			if err := s.keep(ctx, tx); err != nil {
				return 0, err
			}
			n++
		}
		if n == 0 {
			return 0, nil
		}
		return tx.Commit(ctx)
	}, nil
}

// rowOf reads a row of a snapshot.
func (a *App) rowOf(ctx context.Context, repo *repository, key *backupkey.Private, snapshot, typ string, id crm.UUID) (row crm.Row, body []byte, err error) {
	schema, err := schemaOf(typ)
	if err != nil {
		return row, nil, err
	}
	// Rows of a snapshot are told apart by their number, which a record has for good.
	var number int64
	err = a.db.r.QueryRowContext(ctx, a.db.dialect.Rebind("SELECT row_id FROM "+rowsPrefix+typ+" WHERE id = ?"), id[:]).Scan(&number)
	if err != nil {
		return row, nil, fmt.Errorf("crm: looking for the row: %w", errors.Join(crm.ErrNotFound, err))
	}
	table := rowsPrefix + typ
	if a.db.dialect == dialect.Postgres {
		table = "public." + table
	}
	all, err := repo.Record(ctx, snapshot, table, []any{number}, key, nil)
	if err != nil {
		return row, nil, err
	}
	get := func(column string) any {
		if i := slices.Index(all[0].Columns, column); i >= 0 && i < len(all[0].Row) {
			return all[0].Row[i]
		}
		return nil
	}
	if all[0].Row == nil {
		return row, nil, backup.ErrNotFound
	}
	body, isBody := get("body").([]byte)
	was, isID := get("id").([]byte)
	version, isVersion := get("version").(int64)
	deleted, isDeleted := get("deleted").(int64)
	if !isBody || !isID || !isVersion || !isDeleted || string(was) != string(id[:]) {
		return row, nil, crm.ErrDamaged
	}
	row = crm.Row{Tenant: Tenant, Type: typ, ID: id, Version: version, Deleted: deleted != 0}
	for _, c := range schema.Columns {
		v, err := valueOf(c.Kind, get("c_"+c.Name))
		if err != nil {
			return row, nil, err
		}
		row.Clear = append(row.Clear, v)
	}
	return row, body, nil
}

// schemaOf returns how records of a type that can come back are stored.
func schemaOf(typ string) (crm.Schema, error) {
	switch typ {
	case crm.TypeCustomer:
		return guard.Schema[*crm.Customer](nil)
	case crm.TypeContact:
		return guard.Schema[*crm.Contact](nil)
	case crm.TypeLead:
		return guard.Schema[*crm.Lead](nil)
	case crm.TypeTicket:
		return guard.Schema[*crm.Ticket](nil)
	case crm.TypeContract:
		return guard.Schema[*crm.Contract](nil)
	case crm.TypeQuote:
		return guard.Schema[*crm.Quote](nil)
	}
	return crm.Schema{}, crm.ErrNotFound
}

// byActs are the types whose states come with times that acts set: of them a record keeps its state, unless somebody asks for it by name, and is told no.
var byActs = []string{crm.TypeQuote, crm.TypeContract, crm.TypeTicket}

// revertible are the doors of the types whose fields come back, by type.
func (a *App) revertible() map[string]reverter {
	return map[string]reverter{
		crm.TypeCustomer: reverting[*crm.Customer]{a.Customers},
		crm.TypeContact:  reverting[*crm.Contact]{a.Contacts},
		crm.TypeLead:     reverting[*crm.Lead]{a.Leads},
		crm.TypeTicket:   reverting[*crm.Ticket]{a.Tickets},
		crm.TypeContract: reverting[*crm.Contract]{a.Contracts},
		crm.TypeQuote:    reverting[*crm.Quote]{a.Quotes},
	}
}

// reverter is one of them, whatever its type.
type reverter interface {
	header(ctx context.Context, c guard.Caller, id crm.UUID) (crm.Header, error)
	compare(ctx context.Context, c guard.Caller, row crm.Row, body []byte, fields []string) (RevertStep, error)
}

type reverting[P guard.Record] struct {
	r *guard.Records[P]
}

func (d reverting[P]) header(ctx context.Context, c guard.Caller, id crm.UUID) (crm.Header, error) {
	v, err := d.r.Get(ctx, c, id)
	if err != nil {
		return crm.Header{}, err
	}
	return v.Value.Header(), nil
}

func (d reverting[P]) compare(ctx context.Context, c guard.Caller, row crm.Row, body []byte, fields []string) (RevertStep, error) {
	e, err := d.r.Compare(ctx, c, row, body)
	if err != nil {
		return RevertStep{}, err
	}
	h := e.Now.Value.Header()
	step := RevertStep{Type: row.Type, ID: row.ID, Then: row.Version, Now: h.Version, InBin: h.Deleted, Fields: e.Fields}
	if fields == nil && slices.Contains(byActs, row.Type) {
		step.Fields = slices.DeleteFunc(slices.Clone(e.Fields), func(f string) bool { return f == "state" })
	}
	if fields != nil {
		step.Fields = nil
		for _, f := range fields {
			if slices.Contains(e.Fields, f) {
				step.Fields = append(step.Fields, f)
			}
		}
	}
	step.keep = func(ctx context.Context, tx *guard.Tx) error {
		if step.InBin { // it is out of it by now, as another version
			if e, err = d.r.Compare(ctx, c, row, body); err != nil {
				return err
			}
		}
		if err := d.r.Revert(&e, step.Fields...); err != nil {
			return err
		}
		return d.r.UpdateIn(ctx, tx, e.Now.Value)
	}
	return step, nil
}
