package dedupe

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// endShares adds to tx that the shares of the dropped record end at a time: those of its owner that still count. They do not become shares of the kept one, whose owner
// has shared nothing. That is the action merge on the share.
func (m *Merger[P]) endShares(ctx context.Context, p guard.Caller, tx *guard.Tx, dropped crm.Header, at time.Time) ([]moved, error) {
	if m.o.Shares == nil || dropped.Owner.IsZero() {
		return nil, nil
	}
	counts := []crm.Clause{
		is("record", dropped.ID.String()), is("owner", dropped.Owner.String()), {Column: "ends", Op: crm.Greater, Values: []crm.Value{crm.TimeValue(at)}},
	}
	var ended []moved
	q := guard.Query{Limit: 200, Clauses: counts}
	for {
		page, err := m.o.Shares.List(ctx, p, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			s := page.Items[i].Value
			err := m.o.Shares.ActIn(ctx, tx, "merge", s.ID.UUID(), s.Version, func(v *crm.Sharing) error { v.Ends = at; return nil })
			if errors.Is(err, crm.ErrNotFound) {
				err = guard.Deny("merge.relations")
			}
			if err != nil {
				return nil, err
			}
			ended = append(ended, moved{Type: crm.TypeSharing, ID: s.ID.String(), Columns: []string{"ends"}, Until: s.Ends})
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	// Also what was shared since it was looked for.
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeSharing, Clauses: counts}}}, crm.ErrConflict)
	return ended, nil
}

// share lets a share of the dropped record last until when it was meant to, unless somebody ended or changed it since the merge.
func (m *Merger[P]) share(ctx context.Context, tx *guard.Tx, rec *crm.Merge, id crm.UUID, until time.Time, out *Undone) error {
	err := crm.ErrNotFound
	if m.o.Shares != nil {
		err = m.o.Shares.ActIn(ctx, tx, "merge", id, 0, func(v *crm.Sharing) error {
			if v.Record != rec.Dropped || !v.Ends.Equal(rec.At) {
				return crm.ErrConflict
			}
			v.Ends = until
			return nil
		})
	}
	switch {
	case err == nil:
		out.Shared++
	case errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound):
		out.Stayed = append(out.Stayed, Ref{crm.TypeSharing, id})
	default:
		return err
	}
	return nil
}
