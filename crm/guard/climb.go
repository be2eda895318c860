package guard

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard/crm"
)

// hierarchy is a domain type whose records are above one another: the column names the id of the one that is directly above. None is ever above itself.
type hierarchy interface{ Hierarchy() (column string) }

// upward is that column.
func (r *Records[P]) upward() (column int, ok bool) {
	if h, is := any(r.codec.New()).(hierarchy); is {
		column, ok = r.column[h.Hierarchy()]
	}
	return column, ok
}

// climb refuses writes after which a record would be above itself: a *crm.InvalidError with the rule cycle. It follows who is above each record that gets another one there, through the
// other writes of the transaction and through the recycle bin. Those on the way are written again as they are, so that of two changes at once that would make a cycle together, one
// meets a conflict.
func (g *Guard) climb(ctx context.Context, c Caller, writes []pending) (above []pending, err error) {
	var written map[place]*crm.Row
	for i := range writes {
		row := &writes[i].row
		g.mu.Lock()
		t, known := g.types[row.Type]
		g.mu.Unlock()
		if !known {
			continue
		}
		column, ok := t.door.upward()
		if !ok || superior(row, column).IsZero() {
			continue
		}
		if writes[i].expect != 0 {
			was, err := t.door.load(ctx, c, row.ID)
			if errors.Is(err, crm.ErrNotFound) {
				return nil, crm.ErrConflict
			} else if err != nil {
				return nil, err
			}
			if superior(was, column) == superior(row, column) {
				continue
			}
		}
		if written == nil {
			written = map[place]*crm.Row{}
			for j := range writes {
				written[place{writes[j].row.Type, writes[j].row.ID}] = &writes[j].row
			}
		}
		seen := []crm.UUID{row.ID}
		for up := superior(row, column); !up.IsZero() && !slices.Contains(seen[1:], up); {
			if up == row.ID {
				return nil, &crm.InvalidError{Type: row.Type, Fields: []crm.FieldError{{Field: t.schema.Columns[column].Name, Rule: "cycle"}}}
			}
			seen = append(seen, up)
			next := written[place{row.Type, up}]
			if next == nil {
				found, err := t.door.load(ctx, c, up)
				if errors.Is(err, crm.ErrNotFound) {
					break
				} else if err != nil {
					return nil, err
				}
				again := *found
				again.Version++
				w, err := t.door.seal(ctx, again, found.Version)
				if err != nil {
					return nil, err
				}
				above, next = append(above, w), &w.row
				written[place{row.Type, up}] = next
			}
			up = superior(next, column)
		}
	}
	if len(writes)+len(above) > MaxBatch {
		return nil, ErrTx
	}
	return above, nil
}

// superior is the id in a column of a row, zero when there is none.
func superior(row *crm.Row, column int) crm.UUID {
	if column >= len(row.Clear) {
		return crm.UUID{}
	}
	text, _ := row.Clear[column].Any().(string)
	id, err := crm.ParseUUID(text)
	if err != nil {
		return crm.UUID{}
	}
	return id
}
