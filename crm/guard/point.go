package guard

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
)

// PointIn adds to a Tx that what refers to one record refers to another from now on, as a merge moves it: those of the columns, clear ones that hold an id, that
// have from get to. It is the action merge on the record that refers, whatever its state, also in the recycle bin; nothing of it is opened, and rules of
// its type about updates are not asked. It returns the columns that change. Errors: crm.ErrNotFound, crm.ErrConflict when none of them has from,
// *authz.DeniedError, ErrTx.
func (r *kind) PointIn(ctx context.Context, tx *Tx, id, from, to crm.UUID, columns ...string) (moved []string, err error) {
	row, d, err := r.mayChange(ctx, tx.c, authz.Merge, id)
	if err != nil {
		return nil, err
	}
	next := *row
	next.Version++
	next.Clear = slices.Clone(row.Clear)
	was := crm.StringValue(from.String())
	for _, name := range columns {
		i, ok := r.column[name]
		if !ok || r.columns[i].Kind != crm.KindString || to.IsZero() || from.IsZero() {
			return nil, errors.New("guard: a reference is a clear column that holds an id")
		}
		if i < len(next.Clear) && next.Clear[i] == was {
			next.Clear[i] = crm.StringValue(to.String())
			moved = append(moved, name)
		}
	}
	if len(moved) == 0 {
		return nil, crm.ErrConflict
	}
	if i, ok := r.column["updated_at"]; ok && i < len(next.Clear) && !row.Deleted { // in the bin it says when it was deleted
		next.Clear[i] = crm.TimeValue(tx.now)
	}
	w, err := r.seal(ctx, next, row.Version)
	if err != nil {
		return nil, err
	}
	return moved, tx.add(w, d)
}
