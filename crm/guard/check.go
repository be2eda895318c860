package guard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Finding is one row that is not as the log says.
type Finding struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Problem string `json:"problem"` // missing, forged, rolled_back, altered, unlogged or keyless
}

// CheckReport is what a Check found.
type CheckReport struct {
	Rows     int64     `json:"rows"`   // looked at
	Events   int64     `json:"events"` // writes in the log
	Open     int64     `json:"open"`   // writes that a crash may have kept from being made; the next start settles them
	Digest   string    `json:"digest"` // SHA-256 over all rows by type and id, hex: equal for equal stores
	Findings []Finding `json:"findings"`
}

// OK tells whether there was nothing to find.
func (r CheckReport) OK() bool { return len(r.Findings) == 0 }

// written is the last state of a record that the log knows.
type written struct {
	event   uint64
	version uint64
	digest  []byte
	seen    bool
}

// Check compares rows with the log: their MACs, and their versions and digests with the newest write
// that was announced and not aborted. It finds rows that are missing, forged, put back to an older
// state, or written past the log.
//
// After a restore the rows are those of the backup: what the log announced before the snapshot is expected
// in the store; a row that it does not know is checked by its MAC only.
type Check struct {
	// Shared says that other logs announce writes to the same store: a row that this log does not know
	// is checked by its MAC only.
	Shared   bool
	tenant   string
	schemas  []crm.Schema
	last     map[string]map[crm.UUID]*written
	pending  map[uint64]audit.Event // announced, until it is known that it was not aborted
	mark     uint64                 // announcements up to here were settled while the program that made them ran
	restored bool
	report   CheckReport
}

// NewCheck begins a check of the rows of these schemas; see Schema.
func NewCheck(tenant string, schemas ...crm.Schema) *Check {
	c := &Check{
		tenant: tenant, schemas: schemas,
		last: map[string]map[crm.UUID]*written{}, pending: map[uint64]audit.Event{},
	}
	for _, s := range schemas {
		c.last[s.Type] = map[crm.UUID]*written{}
	}
	return c
}

// Event takes one event; give it all, from the begin of the log on, in order.
func (c *Check) Event(e audit.Entry) {
	if e.Event.Tenant != "" && e.Event.Tenant != c.tenant {
		return
	}
	if e.Event.HasRef && (e.Event.Outcome == audit.Intended || e.Event.Action == actionSettled || e.Event.Action == actionReconciled) {
		c.mark = max(c.mark, e.Event.Ref)
	}
	switch {
	case e.Event.Action == actionRestored:
		// What the log announced before the snapshot was made must be there; what came later is gone.
		c.restored = true
		for index := range c.pending {
			if index >= uint64(e.Event.Count) {
				delete(c.pending, index)
			}
		}
	case e.Event.Outcome == audit.Intended:
		c.report.Events++
		c.pending[e.Index] = e.Event
	case e.Event.Outcome == audit.Aborted && e.Event.HasRef:
		delete(c.pending, e.Event.Ref)
	}
}

// settle notes what a write made of its records.
func (c *Check) settle(index uint64, e audit.Event) {
	for _, t := range e.Targets {
		m, ok := c.last[t.Type]
		id, err := crm.ParseUUID(t.ID)
		if !ok || err != nil || len(t.Digest) == 0 {
			continue
		}
		if w := m[id]; w == nil || w.version < t.Version {
			m[id] = &written{event: index, version: t.Version, digest: t.Digest}
		}
	}
}

// Rows reads every row of the store and reports. keeper's tenant keys are needed, no person key is. A row
// whose write was under way while the events were read is not a finding when a later check would not
// find it: rows newer than the log as it was read are only checked by their MAC.
func (c *Check) Rows(ctx context.Context, store crm.Store, keeper *encrypt.Keeper) (CheckReport, error) {
	for index, e := range c.pending {
		c.settle(index, e)
	}
	all := sha256.New()
	for _, s := range c.schemas {
		if err := c.rows(ctx, store, keeper, s, c.last[s.Type], all); err != nil {
			return c.report, err
		}
	}
	c.report.Digest = hex.EncodeToString(all.Sum(nil))
	return c.report, nil
}

func (c *Check) rows(ctx context.Context, store crm.Store, keeper *encrypt.Keeper, s crm.Schema, last map[crm.UUID]*written, all hash.Hash) error {
	find := func(id crm.UUID, problem string) {
		c.report.Findings = append(c.report.Findings, Finding{Type: s.Type, ID: id.String(), Problem: problem})
	}
	type line struct {
		id   crm.UUID
		hash [sha256.Size]byte
	}
	var lines []line
	q := crm.Query{Tenant: c.tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000}
	for {
		page, err := store.List(ctx, q)
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		if err := c.keys(ctx, keeper, page.Rows, find); err != nil {
			return err
		}
		for i := range page.Rows {
			row := &page.Rows[i]
			c.report.Rows++
			sum := digest(row, s.Columns)
			lines = append(lines, line{row.ID, sha256.Sum256(binary.BigEndian.AppendUint64(slices.Concat(sum, row.MAC), uint64(row.ChangeSeq)))})
			w := last[row.ID]
			err := keeper.VerifyMAC(ctx, c.tenant, macLabel, sum, row.MAC)
			switch {
			case errors.Is(err, encrypt.ErrTampered):
				find(row.ID, "forged")
			case err != nil:
				return fmt.Errorf("guard: %w", err)
			case w == nil && !c.restored && !c.Shared:
				find(row.ID, "unlogged")
			case w == nil:
			case uint64(row.Version) < w.version && w.event > c.mark:
				c.report.Open++
			case uint64(row.Version) < w.version:
				find(row.ID, "rolled_back")
			case uint64(row.Version) == w.version && !bytes.Equal(sum, w.digest):
				find(row.ID, "altered")
			}
			if w != nil {
				w.seen = true
			}
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return bytes.Compare(a.id[:], b.id[:]) })
	for _, l := range lines {
		all.Write(l.id[:])
		all.Write(l.hash[:])
	}
	for id, w := range last {
		switch {
		case w.seen:
		case w.event > c.mark:
			c.report.Open++
		default:
			find(id, "missing")
		}
	}
	return nil
}

// keys finds rows with a value whose key is gone without having been destroyed.
func (c *Check) keys(ctx context.Context, keeper *encrypt.Keeper, rows []crm.Row, find func(crm.UUID, string)) error {
	var sealed [][]byte
	var of []int
	for i := range rows {
		for _, f := range rows[i].Sealed {
			sealed = append(sealed, f.Data)
			of = append(of, i)
		}
	}
	missing, err := keeper.MissingKeys(ctx, c.tenant, sealed)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	last := -1
	for _, m := range missing {
		if of[m] != last {
			last = of[m]
			find(rows[last].ID, "keyless")
		}
	}
	return nil
}
