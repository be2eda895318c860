// Package mirror writes a repository to several buckets in one pass: one at hand, one in another
// house, one that locks its objects.
//
// The first target decides: which snapshot gets which number, and whether a backup fails. Another target that fails does
// not end the backup; it gets nothing more, so that no manifest stands there without its objects, and [Bucket.Sync]
// gives it later what it lacks, and only that: what was written there before is not written again.
//
// Reading asks the targets in their order, and names lie wherever one of them has them; so what one lost
// is still there. Damage is not seen here: verify each target's bucket by itself, and mend it with backup.Heal.
// Sync never deletes: a first target that was emptied does not empty the others. Nor does it bring anything into the first one, for what is not there
// may have been deleted for good reason; backup.Heal does, by the signed manifests.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/backup"
)

// Target is one of the buckets.
type Target struct {
	Name   string // for errors and reports
	Bucket backup.Bucket
}

// Lag is what a target lacks of what the first one has.
type Lag struct {
	Target  string
	Objects int
	Bytes   int64
	Oldest  time.Time // when the oldest of it was written to the first target; the zero time = it lacks nothing
	Err     error     // why it was left behind, or could not be asked; nil = it was not
}

// Bucket is a backup.Bucket over several; also a backup.Locker, which locks in those targets that can, and a backup.Lingerer, which
// says the worst of them. It is safe for concurrent use.
type Bucket struct {
	targets []*target
}

type target struct {
	Target
	mu   sync.Mutex
	left error // why it gets nothing more; nil = it keeps up
}

var (
	_ backup.Locker   = (*Bucket)(nil)
	_ backup.Lingerer = (*Bucket)(nil)
)

// New makes one of at least one target; names are unique. Call Sync before the first backup.
func New(targets ...Target) (*Bucket, error) {
	b := &Bucket{}
	for _, t := range targets {
		if t.Name == "" || t.Bucket == nil || slices.ContainsFunc(b.targets, func(o *target) bool { return o.Name == t.Name }) {
			return nil, errors.New("mirror: a target has a name of its own and a bucket")
		}
		b.targets = append(b.targets, &target{Target: t})
	}
	if len(b.targets) == 0 {
		return nil, errors.New("mirror: no target")
	}
	return b, nil
}

// wrap names the target in an error, and keeps what it is.
func (t *target) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mirror: target %s: %w", t.Name, err)
}

// behind leaves a target behind because of an error.
func (t *target) behind(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left == nil {
		t.left = err
	}
}

func (t *target) state() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// Put implements backup.Bucket: first in the first target, then in the others at once.
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := b.targets[0].Bucket.Put(ctx, name, data); err != nil {
		return b.targets[0].wrap(err)
	}
	var wg sync.WaitGroup
	for _, t := range b.targets[1:] {
		if t.state() != nil {
			continue
		}
		wg.Go(func() {
			if err := put(ctx, t.Bucket, name, data); err != nil {
				t.behind(err)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// put writes an object that may be there already: a run that was interrupted, or two at once.
func put(ctx context.Context, to backup.Bucket, name string, data []byte) error {
	err := to.Put(ctx, name, data)
	if !errors.Is(err, backup.ErrExists) {
		return err
	}
	there, gerr := to.Get(ctx, name, 0, int64(len(data))+1)
	if gerr != nil {
		return gerr
	}
	if string(there) != string(data) {
		return err // Heal mends what is damaged, and tells two histories apart
	}
	return nil
}

// Get implements backup.Bucket: from the first target that has the object.
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	var first error
	for _, t := range b.targets {
		d, err := t.Bucket.Get(ctx, name, offset, length)
		if err == nil {
			return d, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if first == nil || errors.Is(first, backup.ErrNotFound) && !errors.Is(err, backup.ErrNotFound) {
			first = t.wrap(err)
		}
	}
	return nil, first
}

// List implements backup.Bucket: what any target has, as the first of them says. A target that cannot be asked is an error, for
// what only it has would look missing; one that was left behind is passed over.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return func(yield func(backup.Object, error) bool) {
		type cursor struct {
			next func() (backup.Object, error, bool)
			at   backup.Object
			ok   bool
		}
		var all []*cursor
		step := func(t *target, c *cursor) error {
			var err error
			c.at, err, c.ok = c.next()
			if c.ok && err != nil {
				c.ok = false
				return t.wrap(err)
			}
			return nil
		}
		var owner []*target
		for i, t := range b.targets {
			if i > 0 && t.state() != nil {
				continue
			}
			next, stop := iter.Pull2(t.Bucket.List(ctx, prefix))
			defer stop()
			c := &cursor{next: next}
			if err := step(t, c); err != nil {
				if i == 0 {
					yield(backup.Object{}, err)
					return
				}
				t.behind(err)
				continue
			}
			all, owner = append(all, c), append(owner, t)
		}
		for {
			var least *cursor
			for _, c := range all {
				if c.ok && (least == nil || c.at.Name < least.at.Name) {
					least = c
				}
			}
			if least == nil {
				return
			}
			o := least.at
			for i, c := range all {
				if c.ok && c.at.Name == o.Name {
					if err := step(owner[i], c); err != nil {
						yield(backup.Object{}, err)
						return
					}
				}
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Delete implements backup.Bucket: everywhere. What one target keeps, or does not answer for, is an error after the others were asked.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	var errs []error
	for _, t := range b.targets {
		errs = append(errs, t.wrap(t.Bucket.Delete(ctx, name)))
	}
	return errors.Join(errs...)
}

// Lock implements backup.Locker in the targets that are Lockers. An error of the first of them is returned, another is left behind. One
// that was left behind is locked by Sync.
func (b *Bucket) Lock(ctx context.Context, name string, until time.Time) error {
	found := false
	for i, t := range b.targets {
		l, ok := t.Bucket.(backup.Locker)
		if !ok || i > 0 && t.state() != nil {
			found = found || ok
			continue
		}
		err := l.Lock(ctx, name, until)
		if err != nil && (i == 0 || ctx.Err() != nil || !found && !b.another(i)) {
			return t.wrap(err)
		}
		if err != nil {
			t.behind(err)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("mirror: %w: no target can lock objects", backup.ErrUnlocked)
	}
	return nil
}

// another says whether a target other than i can lock.
func (b *Bucket) another(i int) bool {
	return slices.ContainsFunc(b.targets, func(t *target) bool {
		_, ok := t.Bucket.(backup.Locker)
		return ok && t != b.targets[i]
	})
}

// LockedUntil implements backup.Locker: the latest time of all targets.
func (b *Bucket) LockedUntil(ctx context.Context, name string) (until time.Time, err error) {
	err = fmt.Errorf("mirror: %w", backup.ErrNotFound)
	for _, t := range b.targets {
		l, ok := t.Bucket.(backup.Locker)
		if !ok {
			continue
		}
		at, lerr := l.LockedUntil(ctx, name)
		if lerr == nil {
			err = nil
			if at.After(until) {
				until = at
			}
		} else if err != nil {
			err = t.wrap(lerr)
		}
	}
	return until, err
}

// Linger implements backup.Lingerer: the longest of all targets.
func (b *Bucket) Linger(ctx context.Context) (after time.Duration, cause string, err error) {
	for _, t := range b.targets {
		l, ok := t.Bucket.(backup.Lingerer)
		if !ok {
			continue
		}
		d, why, err := l.Linger(ctx)
		if err != nil {
			return 0, "", t.wrap(err)
		}
		if d > after {
			after, cause = d, "target "+t.Name+": "+why
		}
	}
	return after, cause, nil
}

// last are the objects that say that others are there.
const last = "snapshots/"

// lacks lists what a target has not of what the first one has: manifests last, else by name.
func (b *Bucket) lacks(ctx context.Context, t *target) (todo []backup.Object, err error) {
	have := map[string]bool{}
	for o, err := range t.Bucket.List(ctx, "") {
		if err != nil {
			return nil, t.wrap(err)
		}
		have[o.Name] = true
	}
	for o, err := range b.targets[0].Bucket.List(ctx, "") {
		if err != nil {
			return nil, b.targets[0].wrap(err)
		}
		if !have[o.Name] {
			todo = append(todo, o)
		}
	}
	slices.SortStableFunc(todo, func(x, y backup.Object) int {
		if a, b := strings.HasPrefix(x.Name, last), strings.HasPrefix(y.Name, last); a != b {
			if a {
				return 1
			}
			return -1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return todo, nil
}

// Status says of each target but the first what it lacks. A target that cannot be asked has its error in its Lag.
func (b *Bucket) Status(ctx context.Context) []Lag {
	var all []Lag
	for _, t := range b.targets[1:] {
		lag := Lag{Target: t.Name, Err: t.state()}
		todo, err := b.lacks(ctx, t)
		if err != nil {
			lag.Err = err
		}
		for _, o := range todo {
			lag.Objects++
			lag.Bytes += o.Size
			if lag.Oldest.IsZero() || o.Modified.Before(lag.Oldest) {
				lag.Oldest = o.Modified
			}
		}
		all = append(all, lag)
	}
	return all
}

// Sync copies to each other target what it lacks of the first, manifests last, with its locks where both can tell and set them, and
// returns what it lacks still. A target that is whole again takes part in the next Put. It returns the errors of the targets that stay behind,
// joined.
func (b *Bucket) Sync(ctx context.Context) ([]Lag, error) {
	var errs []error
	for _, t := range b.targets[1:] {
		err := b.sync(ctx, t)
		t.mu.Lock()
		t.left = err
		t.mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		}
	}
	return b.Status(ctx), errors.Join(errs...)
}

func (b *Bucket) sync(ctx context.Context, t *target) error {
	todo, err := b.lacks(ctx, t)
	if err != nil {
		return err
	}
	first := b.targets[0]
	src, can := first.Bucket.(backup.Locker)
	dst, also := t.Bucket.(backup.Locker)
	for _, o := range todo {
		d, err := first.Bucket.Get(ctx, o.Name, 0, o.Size+1)
		if errors.Is(err, backup.ErrNotFound) { // deleted meanwhile
			continue
		}
		if err != nil {
			return first.wrap(err)
		}
		if err := put(ctx, t.Bucket, o.Name, d); err != nil {
			return t.wrap(err)
		}
		if !can || !also {
			continue
		}
		until, err := src.LockedUntil(ctx, o.Name)
		if err == nil && !until.IsZero() {
			err = dst.Lock(ctx, o.Name, until)
		}
		if err != nil {
			return t.wrap(err)
		}
	}
	return nil
}
