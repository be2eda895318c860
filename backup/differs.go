package backup

import (
	"context"
	"crypto/ed25519"
	"errors"
	"iter"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// Differs says in which tables a living source is other than a snapshot, the newest for an empty id: what happened since, or whether a restored
// store is what was backed up. It reads every row of the source and the snapshot's record index, and writes nothing. The index is opened by private or,
// when it is nil, the signer's index key. Memory and errors as of [Repository.Compare], and those of the source.
func (r *Repository) Differs(ctx context.Context, id string, source Source, private *backupkey.Private) ([]Change, error) {
	m, _, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	levels, err := r.data.levels(ctx, m, private)
	if err != nil {
		return nil, err
	}
	defer clearLevels(levels)
	index := *levels[0].index
	nobody, err := backupkey.Generate()
	if err != nil {
		return nil, err
	}
	// A backup that builds on the snapshot, of which nothing is kept.
	o := Options{Signer: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Recipient: nobody.Public(), Now: r.opts.Now}
	s := &space{bucket: readOnly{r.data.bucket}, kind: kindData, id: r.data.id, pin: r.data.pin, opts: &o, index: &index}
	b := &base{levels: levels, delta: true, scan: true}
	now, err := s.write(ctx, m.Name, source, b, "", newProgress(r.opts.Observer, 0))
	if errors.Is(err, errFull) {
		b.delta = false
		now, err = s.write(ctx, m.Name, source, b, "", newProgress(r.opts.Observer, 0))
	}
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, old := range m.Tables {
		c := Change{Table: old.Name, Removed: old.Rows}
		for _, t := range now.Tables {
			switch {
			case t.Name != old.Name:
			case t.compared:
				c = Change{Table: t.Name, Added: t.Added, Changed: t.Changed, Removed: t.Removed}
			case t.Rows == old.Rows && t.State == old.State: // rows without a key that are the same
				c = Change{Table: t.Name}
			default:
				c = Change{Table: t.Name, Added: t.Rows, Removed: old.Rows, Reshaped: true}
			}
		}
		if c.Added+c.Changed+c.Removed > 0 || c.Reshaped {
			out = append(out, c)
		}
	}
	before := levels[0]
	for _, t := range now.Tables {
		if before.table(t.Name) < 0 {
			out = append(out, Change{Table: t.Name, Added: t.Rows})
		}
	}
	return out, nil
}

// readOnly is a bucket that forgets what is put into it.
type readOnly struct{ b Bucket }

func (r readOnly) Put(ctx context.Context, _ string, _ []byte) error { return ctx.Err() }

func (r readOnly) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	return r.b.Get(ctx, name, offset, length)
}

func (r readOnly) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return r.b.List(ctx, prefix)
}

func (readOnly) Delete(ctx context.Context, _ string) error { return ctx.Err() }
