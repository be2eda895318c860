package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crmguard/crmguard/backup/policy"
)

// lockable refuses a backup whose locks the buckets cannot hold.
func (r *Repository) lockable(o *BackupOptions) error {
	if o.Lock != nil {
		if err := o.Lock.Valid(); err != nil {
			return err
		}
		if _, ok := r.data.bucket.(Locker); !ok {
			return fmt.Errorf("%w: the bucket cannot lock objects", ErrUnlocked)
		}
	}
	if r.opts.LockShards && r.shards != nil {
		if _, ok := r.shards.bucket.(Locker); !ok {
			return fmt.Errorf("%w: the shard bucket cannot lock objects", ErrUnlocked)
		}
	}
	return nil
}

// lingers refuses a shard bucket in which a deleted set can be read for longer than sets are kept.
func (r *Repository) lingers(ctx context.Context) error {
	l, ok := r.shards.bucket.(Lingerer)
	if !ok {
		return nil
	}
	after, cause, err := l.Linger(ctx)
	if err != nil {
		return err
	}
	if after > r.opts.KeepShards {
		return fmt.Errorf("%w: %s", ErrLingers, cause)
	}
	return nil
}

// lock keeps objects until a time, eight at once.
func (s *space) lock(ctx context.Context, until time.Time, names ...string) error {
	l, ok := s.bucket.(Locker)
	if !ok {
		return fmt.Errorf("%w: the bucket cannot lock objects", ErrUnlocked)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, name := range names {
		g.Go(func() error { return object(name, l.Lock(ctx, name, until)) })
	}
	return g.Wait()
}

// names are those of a snapshot's objects and its manifest.
func names(m *manifest) []string {
	all := []string{manifestName(m.Number)}
	for _, o := range m.objects() {
		all = append(all, o.Name)
	}
	return all
}

// lockBelow locks what a snapshot needs, before it is committed, and notes in it until when. Its own manifest comes last. The one before
// is locked again where a crash came between.
func (r *Repository) lockBelow(ctx context.Context, p *policy.Retention, newest, m *manifest, chain []*manifest) error {
	if newest != nil && newest.Keep.After(r.opts.Now()) {
		if err := r.data.lock(ctx, newest.Keep, manifestName(newest.Number)); err != nil {
			return err
		}
	}
	all, err := r.Snapshots(ctx)
	if ctx.Err() != nil {
		return err // what is damaged is Verify's to report
	}
	var points []policy.Snapshot
	for _, s := range all {
		if s.Condemned.IsZero() {
			points = append(points, policy.Snapshot{ID: s.ID, Name: s.Name, Number: s.Head.Number, Parent: s.Parent, Created: s.Created})
		}
	}
	until := p.Until(m.Created, m.Name, points)
	if until.IsZero() {
		return nil
	}
	m.Keep = until.Add(time.Second - 1).Truncate(time.Second)
	todo := []string{repositoryName}
	if m.Tombstones > 0 {
		todo = append(todo, tombstonesName(m.Tombstones))
	}
	for _, o := range m.objects() {
		todo = append(todo, o.Name)
	}
	for _, b := range chain {
		if b.Number > 0 && b.Keep.Before(m.Keep) {
			todo = append(todo, names(b)...)
		}
	}
	return r.data.lock(ctx, m.Keep, todo...)
}

// locked looks whether a snapshot is locked until a time that its manifest, or one that builds on it, promised; a bucket that cannot lock says nothing.
func (s *space) locked(ctx context.Context, m *manifest, promised time.Time, level Level, rep *Report, prefix string) error {
	if m.Keep.After(promised) { // also of one that is condemned
		promised = m.Keep
	}
	l, ok := s.bucket.(Locker)
	if !ok || !promised.After(s.opts.Now()) {
		return nil
	}
	todo := []string{manifestName(m.Number)}
	if level == Full {
		todo = names(m)
	}
	for _, name := range todo {
		until, err := l.LockedUntil(ctx, name)
		switch {
		case errors.Is(err, ErrNotFound): // a fault already
		case err != nil:
			return object(name, err)
		case until.Before(promised):
			rep.add(prefix, m.Snapshot.String(), name, ErrUnlocked)
		}
	}
	return nil
}
