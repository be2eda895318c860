// Package recovery is what is done on the bad day: look at every place where backups lie, choose, restore.
//
// [Assess] asks each place what it has and whether the key in hand opens it, without writing anything. [Assessment.Plan] chooses the newest snapshot before a
// moment that is whole, from the place that has it, and says what will be lost. [Plan.Restore] does it. docs/recovery.md is the same as a
// runbook, with the commands.
package recovery

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
)

// Place is one place where a repository lies.
type Place struct {
	Name   string
	Data   backup.Bucket
	Shards backup.Bucket // of the key shards; nil = not in this place
}

// Options of [Assess].
type Options struct {
	// Pin is the Ed25519 public key that manifests are checked with. Needed.
	Pin ed25519.PublicKey
	// Key opens backups. Nil = whether they open is not known.
	Key *backupkey.Private
	// Head is the newest snapshot that is known from elsewhere, such as the audit log: a place without it is behind. The zero Head = unknown.
	Head backup.Head
	// KeepShards is for how long deleted sets of key shards may be read somewhere. 0 = 7 days.
	KeepShards time.Duration
	// Level is how much of each place is read. The zero value = signatures and presence.
	Level backup.Level
	// Now is the clock. Nil = time.Now.
	Now func() time.Time
}

// State is what a place has.
type State struct {
	Name      string
	Err       error             // why it is of no use; nil = it can be restored from
	Snapshots []backup.Snapshot // oldest first, those that were condemned left out
	Faults    []*backup.ObjectError
	Opens     bool          // the key opens the newest snapshot
	KeysOpen  bool          // and the newest set of key shards
	Linger    time.Duration // how long what is deleted from the shards can be read
	Cause     string        // of that
	Behind    bool          // it has not the newest snapshot that is known

	repo  *backup.Repository
	opens map[string]bool // by id
}

// Assessment is what all places have.
type Assessment struct {
	States []State
	opts   Options
}

// Assess looks at places and writes nothing. What is wrong with one stands in its State; the error is for options and ctx. A shard bucket in which deleted keys
// can be read for longer than Options.KeepShards is of no use: erasures would not hold there (backup.ErrLingers).
func Assess(ctx context.Context, places []Place, o *Options) (*Assessment, error) {
	if o == nil || len(o.Pin) != ed25519.PublicKeySize || len(places) == 0 {
		return nil, errors.New("recovery: places and the pinned key are needed")
	}
	a := &Assessment{opts: *o}
	if a.opts.KeepShards <= 0 {
		a.opts.KeepShards = 7 * 24 * time.Hour
	}
	if a.opts.Now == nil {
		a.opts.Now = time.Now
	}
	for _, p := range places {
		s := State{Name: p.Name}
		s.Err = a.look(ctx, p, &s)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		a.States = append(a.States, s)
	}
	return a, nil
}

func (a *Assessment) look(ctx context.Context, p Place, s *State) (err error) {
	bo := &backup.Options{Shards: p.Shards, Now: a.opts.Now}
	if s.repo, err = backup.Open(ctx, p.Data, a.opts.Pin, bo); err != nil {
		return err
	}
	all, err := s.repo.Snapshots(ctx)
	for _, snap := range all {
		if snap.Condemned.IsZero() {
			s.Snapshots = append(s.Snapshots, snap)
		}
	}
	if err != nil && len(s.Snapshots) == 0 {
		return err
	}
	if len(s.Snapshots) == 0 {
		return fmt.Errorf("%w: no snapshot", backup.ErrNotFound)
	}
	newest := s.Snapshots[len(s.Snapshots)-1]
	s.Behind = newest.Head.Number < a.opts.Head.Number
	rep, err := s.repo.Verify(ctx, &backup.VerifyOptions{Level: a.opts.Level})
	if err != nil {
		return err
	}
	s.Faults = rep.Faults
	if a.opts.Key != nil {
		ids, err := s.repo.Opens(ctx, a.opts.Key.Public().ID())
		if err != nil && len(ids) == 0 {
			return err
		}
		s.opens = map[string]bool{}
		for _, id := range ids {
			s.opens[id] = true
		}
		s.Opens = s.repo.TryKey(ctx, newest.ID, a.opts.Key) == nil
		s.KeysOpen = s.repo.TryKey(ctx, "", a.opts.Key) == nil
	}
	if l, ok := p.Shards.(backup.Lingerer); ok {
		if s.Linger, s.Cause, err = l.Linger(ctx); err != nil {
			return err
		}
		if s.Linger > a.opts.KeepShards {
			return fmt.Errorf("%w: %s", backup.ErrLingers, s.Cause)
		}
	}
	return nil
}

// Plan is what a restore would do.
type Plan struct {
	Place    string
	Snapshot backup.Snapshot
	Lost     time.Duration // from the snapshot to now, or to the moment that was asked for: what was written then is not in it
	Warnings []string      // what to know before: no personal data

	repo *backup.Repository
	key  *backupkey.Private
}

// Plan chooses: the newest snapshot that was made at a moment or before, the zero time for the newest of all, from the first place that has it with nothing
// missing and, where the key was given, opens with it. Error: backup.ErrNotFound.
func (a *Assessment) Plan(moment time.Time) (*Plan, error) {
	var best *Plan
	var from *State
	for i := range a.States {
		s := &a.States[i]
		if s.Err != nil {
			continue
		}
		for _, snap := range s.Snapshots {
			if !moment.IsZero() && snap.Created.After(moment) || s.damaged(snap.ID) || a.opts.Key != nil && !s.opens[snap.ID] {
				continue
			}
			if best == nil || snap.Head.Number > best.Snapshot.Head.Number {
				best, from = &Plan{Place: s.Name, Snapshot: snap, repo: s.repo, key: a.opts.Key}, s
			}
		}
	}
	if best == nil {
		return nil, fmt.Errorf("recovery: %w: no place has a whole snapshot of then that this key opens", backup.ErrNotFound)
	}
	until := moment
	if until.IsZero() {
		until = a.opts.Now()
	}
	best.Lost = until.Sub(best.Snapshot.Created)
	warn := func(format string, args ...any) { best.Warnings = append(best.Warnings, fmt.Sprintf(format, args...)) }
	if moment.IsZero() && from.Behind {
		warn("%s has not the newest snapshot that is known, number %d", from.Name, a.opts.Head.Number)
	}
	if n := len(best.Snapshot.Anomalies); n > 0 {
		warn("the snapshot has %d anomalies: look whether it holds what was damaged already", n)
	}
	if a.opts.Key != nil && !from.KeysOpen {
		warn("the key does not open the newest key shards of %s: the database of keys must be whole, or they come from another place", from.Name)
	}
	if len(from.Faults) > 0 {
		warn("%s has %d damaged or missing objects, none of which this snapshot needs; heal it from another place", from.Name, len(from.Faults))
	}
	for _, s := range a.States {
		if s.Err != nil {
			warn("%s is of no use: %v", s.Name, s.Err)
		}
	}
	return best, nil
}

func (s *State) damaged(id string) bool {
	for _, f := range s.Faults {
		if f.Snapshot == id {
			return true
		}
	}
	return false
}

// Restore does what the plan says, as backup.Repository.Restore.
func (p *Plan) Restore(ctx context.Context, sink backup.Sink, o *backup.RestoreOptions) (backup.Snapshot, error) {
	if p.key == nil {
		return backup.Snapshot{}, fmt.Errorf("%w: the assessment was made without one", backup.ErrKey)
	}
	return p.repo.Restore(ctx, p.Snapshot.ID, sink, p.key, o)
}
