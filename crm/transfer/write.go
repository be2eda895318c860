package transfer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// write stores a batch with the place in the file that it leads to. A record that the store refuses is rejected, and the others are tried again.
func (p *plan[P]) write(ctx context.Context, b *batch[P]) error {
	for {
		counts := b.counts
		for id := range b.made {
			if b.changed[id] {
				counts.Updated++
			} else {
				counts.Created++
			}
			if _, same := b.matched[id]; same {
				counts.Matched++
			}
			if b.erased[id] {
				counts.Erased++
			}
			if b.unasked[id] {
				counts.Unchecked++
			}
		}
		counts.Rows, counts.Rejected = int64(len(b.rows)), int64(len(b.rejected))
		slices.SortFunc(b.rejected, func(x, y Rejected) int { return cmp.Compare(x.Row, y.Row) })
		tx := b.tx.Copy()
		var err error
		next := *p.job
		if p.rehearse {
			add(&next, counts)
			if tx.Len() > 0 {
				_, err = tx.Rehearse(ctx)
			}
		} else {
			if err := keepRows(ctx, p, tx, keptRejected, b.rejected, func(r *Rejected) (int64, int) {
				size := 0
				for _, c := range r.Cells {
					size += len(c)
				}
				return r.Row, size
			}); err != nil {
				return err
			}
			if err := keepRows(ctx, p, tx, keptMatched, b.same(), func(r *Matched) (int64, int) { return r.Row, 0 }); err != nil {
				return err
			}
			if err := keepRows(ctx, p, tx, keptErased, b.gone(), func(r *Erased) (int64, int) { return r.Row, 0 }); err != nil {
				return err
			}
			var stored Import
			err = p.m.doors.Imports.ActIn(ctx, tx, guard.Action("update"), p.job.ID.UUID(), 0, func(i *Import) error {
				if i.State != Running || i.Position != b.from {
					return &crm.TransitionError{Type: crm.TypeImport, From: string(i.State), To: string(Running)} // somebody else goes on with it
				}
				add(i, counts)
				i.count(b.rejected)
				i.Seen = b.print
				stored = *i
				return nil
			})
			if err != nil {
				return err
			}
			if _, err = tx.Commit(ctx); err == nil {
				stored.Name, stored.Mapping = next.Name, next.Mapping
				next = stored
			}
		}
		if err == nil {
			*p.job = next
			return nil
		}
		typ, id, refused := tx.Refused()
		i, ours := b.made[id]
		if !refused || !ours || typ != p.m.records.Type() || !b.tx.Drop(typ, id) {
			return err
		}
		delete(b.made, id)
		if kept, has := b.kept[id]; has {
			b.tx.Drop(crm.TypeKept, kept)
		}
		b.reject(i, reasonsOf(err)...)
	}
}

func add(i *Import, n Counts) {
	i.Position += n.Rows
	i.Created += n.Created
	i.Updated += n.Updated
	i.Unchanged += n.Unchanged
	i.Rejected += n.Rejected
	i.Matched += n.Matched
	i.Unchecked += n.Unchecked
	i.Erased += n.Erased
}

// store adds a change of the import to a Tx.
func (p *plan[P]) store(ctx context.Context, tx *guard.Tx, change func(*Import)) error {
	return p.m.doors.Imports.ActIn(ctx, tx, guard.Action("update"), p.job.ID.UUID(), 0, func(i *Import) error {
		change(i)
		name, mapping := p.job.Name, p.job.Mapping
		*p.job = *i
		p.job.Name, p.job.Mapping = name, mapping
		return nil
	})
}

// keptTogether is how many rows lie in one Kept, and keptBytes about how long they are.
const (
	keptTogether = 100
	keptBytes    = 256 << 10
)

// keepRows adds what is kept of rows to a Tx, sealed under the import's own person. of tells the row and its length in bytes.
func keepRows[P guard.Record, R any](ctx context.Context, p *plan[P], tx *guard.Tx, kind string, rows []R, of func(*R) (row int64, size int)) error {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && n < keptTogether && (n == 0 || size < keptBytes) {
			_, more := of(&rows[n])
			size += more
			n++
		}
		text, err := json.Marshal(rows[:n])
		if err != nil {
			return fmt.Errorf("transfer: %w", err)
		}
		k := &Kept{Import: p.job.ID, Kind: kind, Values: crm.NewText(string(text))}
		k.Row, _ = of(&rows[0])
		k.ID = crm.ID[Kept](derive(p.job.ID.UUID(), kind, k.Row))
		k.Person = p.job.Person
		p.m.owned(p.c, &k.Owner, &k.Team)
		if err := p.m.doors.Kept.CreateIn(ctx, tx, k); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}
