package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/internal/filelock"
)

// BackupOptions of [Repository.Backup]. A nil *BackupOptions is the zero value.
type BackupOptions struct {
	// Name of the source. Empty = "default".
	Name string
	// Anchor is kept in the manifest: the newest checkpoint of the audit log. At most 64 KiB.
	// Nil = none.
	Anchor []byte
	// Keys are the person keys that go into the shard bucket. Nil = none.
	Keys KeySource
	// Tombstones of the persons erased so far. The zero value = none are known.
	Tombstones Tombstones
	// Chain lets the snapshot hold only what changed since the one before of the same name. Nil = full.
	Chain *policy.Chain
	// Gate compares with the snapshot before and says what is unusual. Nil = nothing is.
	Gate *policy.Gate
	// Journal is the path of a file, of mode 0600, with one of the same name and .lock beside it, that notes what is uploaded, with the key of
	// this snapshot: it is a secret while it is there, and is removed when the snapshot is committed. When the backup is interrupted, the next one
	// of the same name commits what is there as a part to build on, which no list shows, and sends only the rest. What cannot be built on is sent
	// again: after half of Options.Grace, under another Recipient, in a full backup when the interrupted one was on others, and where the file or an
	// object is damaged. A second backup with the same journal is refused with ErrExists while the first is at work. Empty = what an interrupted
	// backup uploaded is uploaded again, and the first is left to Sweep.
	Journal string
	// Lock keeps the snapshot's objects, and those that it builds on, against deletion by anybody until the time that
	// Retention.Until promises. It takes a bucket that is a Locker. Nil = nothing is locked.
	Lock *policy.Retention
}

// snapshot writes a snapshot, on the ones before where that is wanted and can be.
func (s *space) snapshot(ctx context.Context, source Source, o *BackupOptions, p *progress) (*manifest, error) {
	base, before, err := s.parent(ctx, o.Name, o.Chain, o.Gate != nil)
	if err != nil {
		return nil, err
	}
	gate := base
	if o.Journal != "" {
		newest, err := s.sound(ctx, anyNumber)
		if err != nil && !errors.Is(err, ErrTampered) {
			return nil, err
		}
		p, err := s.resume(ctx, o.Journal, o.Name, newest)
		if err != nil {
			return nil, err
		}
		if p != nil {
			b, err := s.resumable(ctx, p, o.Chain == nil)
			if err != nil {
				return nil, err
			}
			if b != nil {
				base = b
			}
		}
	}
	m, err := s.write(ctx, o.Name, source, base, o.Journal, p)
	if errors.Is(err, errFull) {
		whole := *base
		whole.delta = false
		if base == gate {
			gate = &whole
		}
		base = &whole
		m, err = s.write(ctx, o.Name, source, base, o.Journal, p)
	}
	if err != nil || o.Gate == nil {
		return m, err
	}
	switch {
	case gate != nil && gate != base:
		// What it was written against is the first part of itself.
		if err := s.against(ctx, m, gate.levels); err != nil {
			return nil, err
		}
		var parts []*manifest
		for _, l := range base.levels {
			if m.Parent == 0 || !l.m.partial() {
				break
			}
			parts = append(parts, l.m)
		}
		m.Anomalies = append(m.Anomalies, checkGate(o.Gate, m, parts, gate)...)
	case gate != nil:
		m.Anomalies = append(m.Anomalies, checkGate(o.Gate, m, nil, gate)...)
	case before:
		m.Anomalies = append(m.Anomalies, policy.Anomaly{Kind: kindUncompared})
	}
	return m, nil
}

// mostResumed is how often one backup is taken up again before it begins anew.
const mostResumed = 40

// against counts what a snapshot that is about to be committed changes against another.
func (s *space) against(ctx context.Context, m *manifest, old []*level) error {
	levels, err := s.levels(ctx, m, nil)
	if err != nil {
		return err
	}
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	for i := range m.Tables {
		t := &m.Tables[i]
		if old[0].table(t.Name) < 0 {
			continue
		}
		c, err := s.compare(ctx, [2][]*level{old, levels}, t.Name, 0, zdec)
		if err != nil {
			return err
		}
		t.Added, t.Changed, t.Removed, t.compared = c.Added, c.Changed, c.Removed, !c.Reshaped
	}
	return nil
}

// Backup writes a snapshot of source, full or as BackupOptions.Chain says, and returns it when it is committed: before that,
// nothing shows. Person keys go to the shard bucket, in a set of their own, and sets that are too old are
// deleted. A snapshot with anomalies is committed and returned with ErrAnomaly, in an error that holds
// each [policy.Anomaly]; the ones before stay, for nothing is pruned until it is accepted. Errors: ErrFull, ErrStale (a snapshot that was seen is gone), ErrKey (opened for
// reading), and the source's own.
func (r *Repository) Backup(ctx context.Context, source Source, opts *BackupOptions) (Snapshot, error) {
	return r.backup(ctx, opts, func(o *BackupOptions, p *progress) (*manifest, error) { return r.data.snapshot(ctx, source, o, p) })
}

// Synthesize writes a full snapshot of what a snapshot on a chain, the newest for an empty id, has, without asking the source: on a host that holds the
// private key, so that the one that backs up need not send everything anew. Later backups build on it, and the chain below can go. Of the options Name, Chain
// and Gate are not used. Errors as of Backup and Restore.
func (r *Repository) Synthesize(ctx context.Context, id string, private *backupkey.Private, opts *BackupOptions) (Snapshot, error) {
	of, _, err := r.find(ctx, id)
	if err != nil {
		return Snapshot{}, err
	}
	return r.backup(ctx, opts, func(_ *BackupOptions, p *progress) (*manifest, error) {
		m, err := r.data.write(ctx, of.Name, repeated{r.data, of, private}, nil, "", p)
		if err == nil {
			m.Repeats = of.Number
			if m.Anchor == nil {
				m.Anchor = of.Anchor
			}
		}
		return m, err
	})
}

// repeated is a snapshot as a source.
type repeated struct {
	s       *space
	m       *manifest
	private *backupkey.Private
}

func (d repeated) Dump(ctx context.Context, w *Writer) error {
	return d.s.read(ctx, d.m, d.private, newProgress(nil, 0), func(_ context.Context, r *Reader) error {
		if err := w.Schema(r.Schema()); err != nil {
			return err
		}
		for {
			t, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = w.Table(t)
			}
			if err != nil {
				return err
			}
			for row, err := range r.Rows() {
				if err == nil {
					err = w.Row(row...)
				}
				if err != nil {
					return err
				}
			}
		}
	})
}

// backup commits what make writes, with all that belongs to it.
func (r *Repository) backup(ctx context.Context, opts *BackupOptions, make func(*BackupOptions, *progress) (*manifest, error)) (Snapshot, error) {
	var o BackupOptions
	if opts != nil {
		o = *opts
	}
	if o.Name == "" {
		o.Name = "default"
	}
	if len(o.Anchor) > maxAnchor {
		return Snapshot{}, errors.New("backup: the anchor is above 64 KiB")
	}
	if o.Keys != nil && r.shards == nil {
		return Snapshot{}, errors.New("backup: person keys need a shard bucket")
	}
	if err := r.lockable(&o); err != nil {
		return Snapshot{}, err
	}
	if o.Keys != nil {
		if err := r.lingers(ctx); err != nil {
			return Snapshot{}, err
		}
	}
	if o.Journal != "" {
		unlock, err := filelock.Try(o.Journal + ".lock")
		if errors.Is(err, filelock.ErrHeld) {
			err = fmt.Errorf("%w: another backup is at work with this journal", ErrExists)
		}
		if err != nil {
			return Snapshot{}, err
		}
		defer unlock()
	}
	newest, err := r.data.sound(ctx, anyNumber) // a damaged one is Verify's to report and must not end the backups
	if err != nil && !errors.Is(err, ErrTampered) {
		return Snapshot{}, err
	}
	if o.Tombstones.Number > 0 {
		if err := r.PutTombstones(ctx, o.Tombstones); err != nil {
			return Snapshot{}, err
		}
	}
	expected := int64(0)
	if newest != nil && newest.Name == o.Name {
		expected = newest.rows()
	}
	p := newProgress(r.opts.Observer, expected)
	m, err := make(&o, p)
	if err != nil {
		return Snapshot{}, err
	}
	if o.Anchor != nil {
		m.Anchor = o.Anchor
	}
	list, err := r.tombstones(ctx, newest)
	if err != nil {
		return Snapshot{}, err
	}
	m.Tombstones = list.Number
	if newest != nil {
		m.Shards = newest.Shards
	}
	if o.Keys != nil {
		// After the rows: a key is stored before the first row that needs it.
		set, err := r.shards.write(ctx, o.Name, keyDump{o.Keys}, nil, "", p)
		if err != nil {
			return Snapshot{}, err
		}
		set.Tombstones = m.Tombstones
		if err := r.shards.commit(ctx, set); err != nil {
			return Snapshot{}, err
		}
		if r.opts.LockShards {
			if err := r.shards.lock(ctx, set.Created.Add(r.opts.KeepShards), append(names(set), repositoryName)...); err != nil {
				return Snapshot{}, err
			}
		}
		m.Shards = set.Number
	}
	chain, err := r.data.below(ctx, m)
	if err != nil {
		return Snapshot{}, err
	}
	if err := r.data.present(ctx, chain...); err != nil {
		return Snapshot{}, err
	}
	if o.Lock != nil {
		if err := r.lockBelow(ctx, o.Lock, newest, m, chain); err != nil {
			return Snapshot{}, err
		}
	}
	if err := r.data.commit(ctx, m); err != nil {
		return Snapshot{}, err
	}
	if o.Journal != "" {
		if err := os.Remove(o.Journal); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return m.snapshot(), fmt.Errorf("backup: the snapshot is committed, its journal remains: %w", err)
		}
	}
	if !m.Keep.IsZero() {
		if err := r.data.lock(ctx, m.Keep, manifestName(m.Number)); err != nil {
			return m.snapshot(), fmt.Errorf("backup: the snapshot is committed, its manifest is not locked yet: %w", err)
		}
	}
	if r.shards != nil {
		if _, err := r.shards.expire(ctx); err != nil {
			return m.snapshot(), fmt.Errorf("backup: the snapshot is committed, old key shards remain: %w", err)
		}
	}
	return m.snapshot(), anomalies(m.Anomalies)
}

// present looks that each object of snapshots still lies there before one is committed.
func (s *space) present(ctx context.Context, all ...*manifest) error {
	want := map[string]int64{}
	for _, m := range all {
		for _, o := range m.objects() {
			want[o.Name] = o.Size
		}
	}
	for _, prefix := range []string{keyPrefix, segmentPrefix} {
		for o, err := range s.bucket.List(ctx, prefix) {
			if err != nil {
				return object(prefix, err)
			}
			if size, ok := want[o.Name]; ok && size == o.Size {
				delete(want, o.Name)
			}
		}
	}
	for name := range want {
		return object(name, ErrTampered)
	}
	return nil
}
