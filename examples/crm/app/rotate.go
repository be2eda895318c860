package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
)

// Acts on keys, as the log has them: each is announced, and then said to be over.
const (
	actionRotate, actionRotated  = "keys.rotate", "keys.rotated" // Count of the second: keys that were rewrapped
	actionRenew, actionRenewed   = "keys.renew", "keys.renewed"  // the generation that began
	actionReopen, actionReopened = "log.renew", "log.renewed"    // openings of the log
	actionRetire, actionRetired  = "keys.retire", "keys.retired" // keys that ended
)

// act does something with the keys between two events.
func (a *App) act(ctx context.Context, before, after string, do func() (count int, err error)) error {
	e := audit.Event{
		Action: before, Activity: audit.Configure, Outcome: audit.Allowed, Actor: "system", Tenant: Tenant,
		Note: a.Keeper.KEKID(),
	}
	if _, err := a.Log.Append(ctx, e); err != nil {
		return err
	}
	n, err := do()
	e.Action, e.Count = after, int64(n)
	if err != nil {
		e.Outcome = audit.Failed
	}
	if _, logged := a.Log.Append(context.WithoutCancel(ctx), e); logged != nil && err == nil {
		err = logged
	}
	return err
}

// Rotate begins a new key epoch, and ends the older versions of the KEK. It may be interrupted and run again.
// Key shards of before open nothing afterwards, so where there are backups one more is written.
func (a *App) Rotate(ctx context.Context, progress func(done, total int)) error {
	err := a.act(ctx, actionRotate, actionRotated, func() (total int, err error) {
		err = a.Keeper.Rotate(ctx, Tenant, func(done, n int) {
			total = n
			if progress != nil {
				progress(done, n)
			}
		})
		return total, err
	})
	switch {
	case errors.Is(err, encrypt.ErrAuth):
		return fmt.Errorf("%w; does the policy of the login allow rotate, config and trim of the key?", err)
	case err != nil:
		return err
	}
	snapshots, err := Snapshots(ctx, a.Config)
	if err == nil && len(snapshots) > 0 {
		var s backup.Snapshot
		if s, err = a.Backup(ctx, nil); errors.Is(err, backup.ErrAnomaly) { // what is sealed anew has changed: that is why
			err = AcceptBackup(ctx, a.Config, s.ID)
		}
	}
	if err != nil {
		return fmt.Errorf("crm: the keys are rotated, but no backup opens until another one is made, and that went wrong now: %w", err)
	}
	return nil
}

// operator is the caller of what is done on the host: an administrator without an account.
func operator() guard.Caller {
	return guard.Caller{
		Subject:     authz.Subject{ID: "system", Tenant: Tenant, Roles: []string{"admin"}, Active: true},
		Environment: authz.Environment{Purpose: "keys"},
	}
}

// resealer is the part of the records of a type that a renewal needs.
type resealer interface {
	Type() string
	Reseal(ctx context.Context, c guard.Caller, progress func(done int)) (changed int, err error)
}

func (a *App) resealers() []resealer {
	return []resealer{
		a.Customers, a.Contacts, a.Leads, a.FollowUps, a.Quotes, a.Contracts, a.Tickets, a.Employees, a.Accounts,
		a.Emergencies, a.Delegations, a.Sharings, a.Certifications, a.Campaigns, a.Exports, a.Imports, a.Kept, a.Merges,
		a.Pools, a.Ownerships, a.Series, a.Pipelines, a.Opportunities, a.Products, a.Periods, a.Receipts, a.Instalments, a.Warehouses, a.Movements,
		a.Endpoints, a.Deliveries, a.Cursors,
	}
}

// RotateAll renews the keys of all persons and of the indexes, seals every record and every opening of the log
// under the new ones, ends the old ones, and rotates; only the tenant's keys for MACs and secrets stay. progress, which
// may be nil, hears what is being done and how far it is; total is 0 where it is not known.
//
// After an interruption it goes on where it was. It ends no key while something that the key sealed could not be
// sealed anew: a record that does not authenticate, a person whose erasure has been asked for and not
// happened (encrypt.ErrBlocked), the log of another instance that has not done the same. Snapshots from before
// do not open afterwards; a new one is written where there are any.
func (a *App) RotateAll(ctx context.Context, progress func(what string, done, total int)) error {
	if progress == nil {
		progress = func(string, int, int) {}
	}
	ended, err := a.oldKeysEnded(ctx)
	if err != nil {
		return err
	}
	if !ended {
		if err := a.renew(ctx, progress); err != nil {
			return err
		}
	}
	err = a.act(ctx, actionRetire, actionRetired, func() (ended int, err error) {
		err = a.Keeper.Retire(ctx, Tenant, func(n int) {
			ended = n
			progress("old key ended", n, 0)
		})
		return ended, err
	})
	if errors.Is(err, encrypt.ErrBlocked) {
		return fmt.Errorf("%w; no key is ended before", err)
	}
	if err != nil {
		return err
	}
	// The tokens of the old index keys go.
	if err := a.reseal(ctx, progress); err != nil {
		return err
	}
	return a.Rotate(ctx, func(done, total int) { progress("key", done, total) })
}

// renew begins a new generation and seals everything under it, up to where the old one can end.
func (a *App) renew(ctx context.Context, progress func(what string, done, total int)) error {
	var generation uint32
	err := a.act(ctx, actionRenew, actionRenewed, func() (_ int, err error) {
		generation, err = a.Keeper.Renew(ctx, Tenant)
		return int(generation), err
	})
	if err != nil {
		return err
	}
	if err := a.reseal(ctx, progress); err != nil {
		return err
	}
	err = a.act(ctx, actionReopen, actionReopened, func() (int, error) {
		return a.renewOpenings(ctx, generation, func(done int) { progress("reason in the log", done, 0) })
	})
	if err != nil {
		return err
	}
	return a.othersRenewed(ctx, generation)
}

// oldKeysEnded tells whether an interrupted RotateAll has ended the old keys already: the generation that
// the log says was begun last is the only one, and no rotation followed.
func (a *App) oldKeysEnded(ctx context.Context) (bool, error) {
	renewed, ok, err := a.newest(ctx, actionRenewed)
	if err != nil || !ok || renewed.Event.Outcome != audit.Allowed {
		return false, err
	}
	rotated, ok, err := a.newest(ctx, actionRotated)
	if err != nil || ok && rotated.Index > renewed.Index {
		return false, err
	}
	h := a.Keeper.Health(Tenant)
	return h.Loaded && !h.Renewing && int64(h.Generation) == renewed.Event.Count, nil
}

// newest returns the newest event of an action; ok is false when there is none.
func (a *App) newest(ctx context.Context, action string) (e audit.Entry, ok bool, err error) {
	found, err := a.Log.Query(ctx, audit.Filter{Action: action}, math.MaxUint64, 1)
	if err != nil || len(found) == 0 {
		return audit.Entry{}, false, err
	}
	return found[0], true, nil
}

// opens refuses a snapshot from before the keys that its records are sealed under were ended.
func (a *App) opens(ctx context.Context, s backup.Snapshot) error {
	retired, ok, err := a.newest(ctx, actionRetired)
	if err != nil || !ok || retired.Event.Outcome != audit.Allowed || retired.Index < anchorSize(s.Anchor) {
		return err
	}
	return errors.New("crm: the snapshot is from before rotate --all: the keys that its records are sealed under have ended")
}

// reseal passes over all records until a whole pass changes nothing.
func (a *App) reseal(ctx context.Context, progress func(what string, done, total int)) error {
	for {
		changed := 0
		var failed []error
		for _, r := range a.resealers() {
			total, err := a.store.Count(ctx, crm.Query{
				Tenant: Tenant, Type: r.Type(), Where: crm.Everything{}, Deletion: crm.LivingAndBin,
			})
			if err != nil {
				return err
			}
			n, err := r.Reseal(ctx, operator(), func(done int) {
				progress(strings.ReplaceAll(r.Type(), "_", "-"), done, max(done, int(total)))
			})
			if ctx.Err() != nil {
				return err
			}
			changed += n
			failed = append(failed, err) // the other types are resealed all the same
		}
		if err := errors.Join(failed...); err != nil {
			return fmt.Errorf("crm: not everything could be sealed under the new keys, so the old ones are not ended: %w", err)
		}
		if changed == 0 {
			return nil
		}
	}
}

// renewOpenings seals what the log's events commit to under the new keys, while it verifies the log.
func (a *App) renewOpenings(ctx context.Context, generation uint32, progress func(done int)) (int, error) {
	n := &renewer{
		sealer: sealer{a.Keeper, a.openings}, generation: generation, progress: progress, fresh: map[[32]byte][]byte{},
	}
	v, err := verifyLog(ctx, &a.Config, a.db, n, nil)
	if err == nil {
		err = n.failed
	}
	if err == nil {
		err = n.store(ctx)
	}
	switch {
	case err != nil:
		return n.done, err
	case !v.OK() && v.State != audit.Unanchored:
		return n.done, fmt.Errorf("crm: the log does not verify (%s), so the old keys are not ended", v.State)
	case v.Unchecked > 0:
		return n.done, fmt.Errorf("%w: %d reasons in the log do not open now; erase or spare the persons first, for the old keys are not ended before",
			encrypt.ErrBlocked, v.Unchecked)
	}
	_, err = a.db.w.ExecContext(ctx, a.db.dialect.Rebind(`INSERT INTO app_renewed (instance, generation) VALUES (?, ?)
		ON CONFLICT (instance) DO UPDATE SET generation = excluded.generation`), a.Config.Instance, int64(generation))
	if err != nil {
		return n.done, fmt.Errorf("crm: noting how far the keys are renewed (%s)", code(err))
	}
	return n.done, nil
}

// othersRenewed refuses to go on while the log of another instance needs the old keys.
func (a *App) othersRenewed(ctx context.Context, generation uint32) error {
	rows, err := a.db.r.QueryContext(ctx, a.db.dialect.Rebind(`SELECT i.instance
		FROM (SELECT instance FROM app_renewed UNION SELECT instance FROM app_head) i
		LEFT JOIN app_renewed n ON n.instance = i.instance
		WHERE i.instance <> ? AND COALESCE(n.generation, 0) < ? ORDER BY i.instance`), a.Config.Instance, int64(generation))
	if err != nil {
		return fmt.Errorf("crm: reading how far the keys are renewed (%s)", code(err))
	}
	defer rows.Close()
	var others []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("crm: reading how far the keys are renewed (%s)", code(err))
		}
		others = append(others, name)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("crm: reading how far the keys are renewed (%s)", code(err))
	}
	if len(others) > 0 {
		return fmt.Errorf("crm: the records are under new keys, but the old ones are not ended: the logs of other instances (%s) need them; "+
			"run rotate --all with each of them", strings.Join(others, ", "))
	}
	return nil
}
