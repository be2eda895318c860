package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/schedule"
)

// Events of backups that were not made, or that are not as the plan wants them.
const (
	actionBackupFailed = "backup.failed"
	actionBackupMissed = "backup.missed"
)

// BackupStatus says how the backups do.
type BackupStatus struct {
	Facts    policy.Facts
	Findings []policy.Finding // by the plan; only anomalies and damage without one
}

// OK tells whether every objective is met and every place answers.
func (s BackupStatus) OK() bool {
	for _, p := range s.Facts.Places {
		if p.Fault != "" {
			return false
		}
	}
	return !slices.ContainsFunc(s.Findings, func(f policy.Finding) bool { return !f.Met })
}

// Status looks at every place of the backups and holds them against the plan. verified is when each snapshot was verified; nil = as the log's folder says.
func Status(ctx context.Context, c Config, verified map[string]time.Time) (out BackupStatus, err error) {
	if err := c.complete(); err != nil {
		return out, err
	}
	var objectives policy.Objectives
	plan, err := c.plan()
	if err != nil {
		return out, err
	}
	if plan != nil {
		objectives = plan.Objectives
	}
	f := policy.Facts{Now: time.Now(), Medium: "disk"}
	defer func() {
		out = BackupStatus{Facts: f, Findings: objectives.Check(f)}
	}()
	repo, err := c.repository(ctx, false, nil)
	if err != nil {
		if _, serr := os.Stat(c.path(manifestPin)); (errors.Is(err, backup.ErrNotFound) || serr != nil) && c.knownHead(ctx).Number == 0 {
			return out, nil // no backup was made yet
		}
		return out, err
	}
	defer repo.close()
	if verified == nil {
		verified = map[string]time.Time{}
		c.logged(ctx, actionVerified, func(e audit.Event) { verified[e.Note] = e.Time })
	}
	all, serr := repo.Snapshots(ctx)
	for _, s := range all {
		if s.Created.After(f.Newest) && s.Repeats == 0 {
			f.Newest = s.Created
		}
		if at := verified[s.ID]; at.After(f.Verified) {
			f.Verified = at
		}
		if s.Condemned.IsZero() {
			f.Anomalies += len(s.Anomalies)
		}
	}
	if accepted, err := repo.Accepted(ctx); err == nil {
		for _, s := range all {
			if slices.Contains(accepted, s.ID) {
				f.Anomalies -= len(s.Anomalies)
			}
		}
	}
	if serr != nil {
		f.Unreadable++
	}
	last, err := c.lastDrill()
	if err != nil {
		return out, err
	}
	if last != nil {
		f.Drilled, f.DrillOK, f.DrillTook = last.Started, last.Passed, time.Duration(last.Restored*float64(time.Second))
	}
	for i, p := range repo.places {
		_, locks := p.bucket.(backup.Locker)
		place := policy.Place{Name: p.name, Medium: medium(p.name), OffSite: medium(p.name) != "disk", Locks: locks && plan != nil && plan.Lock}
		if i > 0 {
			for _, lag := range repo.data.Status(ctx) {
				if lag.Target != p.name {
					continue
				}
				place.Behind = lag.Oldest
				if lag.Err != nil {
					place.Fault = "it cannot be asked, or was left behind"
				}
			}
		}
		f.Places = append(f.Places, place)
	}
	for name := range repo.missing {
		f.Places = append(f.Places, policy.Place{Name: name, Medium: medium(name), OffSite: medium(name) != "disk", Fault: "it does not answer"})
	}
	return out, nil
}

// WatchBackups puts snapshots, drills and sandboxes of other processes into the log, each minute, until ctx ends.
func (a *App) WatchBackups(ctx context.Context, tell func(string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
		all, err := Snapshots(ctx, a.Config)
		if err == nil {
			err = a.NoteBackups(ctx, all)
		}
		if err == nil {
			err = a.NoteDrills(ctx)
		}
		if err == nil {
			err = a.NoteSandboxes(ctx)
		}
		if err != nil && ctx.Err() == nil {
			tell("backup: " + err.Error())
		}
	}
}

// Heal mends every place of the backups from the others, and says what it did by place.
func Heal(ctx context.Context, c Config) (map[string]*backup.Healed, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	pin, err := c.pin()
	if err != nil {
		return nil, err
	}
	out := map[string]*backup.Healed{}
	for _, urls := range [][]string{append([]string{c.Backup}, c.BackupCopies...), append([]string{c.BackupKeys}, c.BackupKeysCopies...)} {
		if len(urls) < 2 {
			continue
		}
		all, missing, err := openPlaces(ctx, urls[0], urls[1:])
		if err != nil {
			return out, err
		}
		for i, p := range all {
			for k, from := range all {
				if i == k {
					continue
				}
				if out[p.name] == nil {
					out[p.name] = &backup.Healed{}
				}
				sum := out[p.name]
				h, err := backup.Heal(ctx, p.bucket, from.bucket, pin)
				if ctx.Err() != nil {
					return out, errors.Join(ctx.Err(), closePlaces(all))
				}
				if errors.Is(err, backup.ErrNotFound) || errors.Is(err, backup.ErrTampered) {
					continue // that one is empty or damaged itself, and is healed in its turn
				}
				if err != nil {
					sum.Faults = append(sum.Faults, &backup.ObjectError{Object: "from " + from.name, Err: err})
					continue
				}
				sum.Objects, sum.Bytes, sum.Faults = append(sum.Objects, h.Objects...), sum.Bytes+h.Bytes, h.Faults
			}
		}
		for name, err := range missing {
			out[name] = &backup.Healed{Faults: []*backup.ObjectError{{Object: "the place itself", Err: err}}}
		}
		if err := closePlaces(all); err != nil {
			return out, err
		}
	}
	return out, nil
}

// ScheduleBackups makes backups as the plan says until ctx ends, prunes what it does not keep, and tells what was missed and what is not as it should be. Without a
// plan it returns at once.
func (a *App) ScheduleBackups(ctx context.Context, tell func(string)) error {
	plan, err := a.Config.plan()
	if err != nil || plan == nil {
		return err
	}
	note := func(action string, n int64, note string) {
		_, err := a.Log.Append(ctx, audit.Event{
			Action: action, Activity: audit.Backup, Outcome: audit.Failed, Tenant: Tenant, Actor: "system", Count: n, Note: note,
		})
		if err != nil && ctx.Err() == nil {
			tell("the log does not take " + action)
		}
	}
	job := &schedule.Job{
		Name: Tenant, Schedule: plan.Schedule,
		Last: func(ctx context.Context) (time.Time, error) {
			all, err := Snapshots(ctx, a.Config)
			if err != nil || len(all) == 0 {
				return time.Time{}, err
			}
			return all[len(all)-1].Created, nil
		},
		Run: func(ctx context.Context) error {
			_, err := a.Backup(ctx, nil)
			if errors.Is(err, backup.ErrAnomaly) {
				tell("backup: " + err.Error()) // it is made, and nothing is pruned until somebody accepts it
				return nil
			}
			if err != nil {
				return err
			}
			_, err = PruneBackups(ctx, a.Config, plan.Retention)
			return err
		},
		Told: func(missed int, err error) {
			if missed > 0 {
				note(actionBackupMissed, int64(missed), "")
				tell(fmt.Sprintf("backup: %d backups were missed", missed))
			}
			if err != nil {
				note(actionBackupFailed, 0, "")
				tell("backup: " + err.Error())
				return
			}
			verified, err := a.VerifiedBackups(ctx)
			if err != nil {
				return
			}
			status, err := Status(ctx, a.Config, verified)
			if err != nil {
				return
			}
			for _, f := range status.Findings {
				if !f.Met {
					tell(fmt.Sprintf("backup: %s: want %s, have %s", f.Rule, f.Want, f.Have))
				}
			}
		},
	}
	if err := job.Loop(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// AcceptBackup says that the anomalies of a snapshot are right.
func AcceptBackup(ctx context.Context, c Config, id string) error {
	if err := c.complete(); err != nil {
		return err
	}
	repo, err := c.repository(ctx, true, nil)
	if err != nil {
		return err
	}
	defer repo.close()
	return repo.Accept(ctx, id)
}

// SnapshotAt returns the id of the newest snapshot that was made at a moment or before; older as of Restore.
func SnapshotAt(ctx context.Context, c Config, moment time.Time, older bool) (string, error) {
	if err := c.complete(); err != nil {
		return "", err
	}
	repo, err := c.repositoryAt(ctx, false, older, nil)
	if err != nil {
		return "", err
	}
	defer repo.close()
	all, err := repo.Snapshots(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range slices.Backward(all) {
		if !s.Created.After(moment) {
			return s.ID, nil
		}
	}
	return "", fmt.Errorf("%w: no snapshot of then", backup.ErrNotFound)
}

// SplitKey returns shares of the key that opens backups.
func SplitKey(c Config, recovery string, needed, n int) ([]string, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if recovery == "" {
		recovery = c.path(recoveryKey)
	}
	key, err := backupkey.Read(recovery)
	if err != nil {
		return nil, err
	}
	return key.Split(needed, n)
}

// Replaced is what [ReplaceKey] did.
type Replaced struct {
	Key, Old string // ids
	File     string // of the new key
	Added    int    // headers
	Opens    int    // snapshots that the old key goes on opening
}

// ReplaceKey makes a new key that opens all backups, to which later ones are sealed only.
func ReplaceKey(ctx context.Context, c Config, recovery string) (r Replaced, err error) {
	if err := c.complete(); err != nil {
		return r, err
	}
	if recovery == "" {
		recovery = c.path(recoveryKey)
	}
	old, err := backupkey.Read(recovery)
	if err != nil {
		return r, err
	}
	repo, err := c.repository(ctx, true, nil)
	if err != nil {
		return r, err
	}
	defer repo.close()
	key, err := backupkey.Generate()
	if err != nil {
		return r, err
	}
	r.Key, r.Old, r.File = key.Public().ID(), old.Public().ID(), c.path("recovery-"+key.Public().ID()[:8]+".key")
	if err := key.WriteFile(r.File); err != nil {
		return r, err
	}
	if r.Added, err = repo.AddKey(ctx, old, key.Public()); err != nil {
		if r.Added == 0 {
			err = errors.Join(err, os.Remove(r.File))
		}
		return r, err
	}
	opens, err := repo.Opens(ctx, r.Old)
	if err != nil {
		return r, err
	}
	r.Opens = len(opens)
	next := c.path(recoveryPub + ".new")
	if err := os.WriteFile(next, []byte(key.Public().String()+"\n"), 0o600); err != nil {
		return r, fmt.Errorf("crm: data folder: %w", err)
	}
	if err := os.Rename(next, c.path(recoveryPub)); err != nil {
		return r, fmt.Errorf("crm: data folder: %w", err)
	}
	if recovery != c.path(recoveryKey) {
		return r, nil
	}
	// The key of this folder is the new one from now on; the old one stays beside it.
	if err := os.Rename(recovery, c.path("recovery-"+r.Old[:8]+".key")); err != nil {
		return r, fmt.Errorf("crm: data folder: %w", err)
	}
	err = os.Rename(r.File, recovery)
	r.File = recovery
	return r, err
}
