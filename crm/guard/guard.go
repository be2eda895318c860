package guard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Errors that callers branch on.
var (
	// ErrForged: a row or the answer of the store does not authenticate. Somebody wrote past the guard.
	ErrForged = errors.New("guard: row does not authenticate")
	// ErrQuota: the actor has searched masked fields or checked for duplicates too often; the quota refills with time.
	ErrQuota = errors.New("guard: search quota is used up")
)

// Log is what guard needs of an audit.Log.
type Log interface {
	Append(ctx context.Context, e audit.Event) (audit.Receipt, error)
	Query(ctx context.Context, f audit.Filter, before uint64, limit int) ([]audit.Entry, error)
	Reveal(ctx context.Context, e audit.Entry) ([]audit.Detail, error)
}

// Action is what a caller wants to do; see authz.
type Action = authz.Action

// Denied tells whether an error is a denial by the policy.
func Denied(err error) bool {
	var d *authz.DeniedError
	return errors.As(err, &d)
}

// Deny is a denial by a control of a program that composes acts.
func Deny(control string) error { return &authz.DeniedError{Controls: []string{control}} }

// Caller is who asks, and why.
type Caller struct {
	Subject     authz.Subject
	Environment authz.Environment
	Reason      string // for actions that oblige to give one; a reveal keeps it in the log under the record's person

	// Met are obligations that the composing program has met or verified itself: it asked for the password again, it
	// found the approval of somebody else. Numbers of rows are counted by Export and not believed.
	Met []authz.Obligation
	// Under is the id of the record that permits the request, such as an approved export. Events note it.
	Under string
	// Scope narrows what the policy allows, as for the token of a program: actions by type, or function. What it does not name is denied by
	// the control "scope". nil narrows nothing.
	Scope map[string][]authz.Action

	counted bool // Environment.Rows was counted here
}

// Options of New. Nil means the zero value of each field.
type Options struct {
	LogName       string           // names the log in the store's list of applied events; "": "log"
	Clock         func() time.Time // nil: time.Now
	SearchPerHour int              // searches of masked fields an actor may make in an hour; 0: 120
	ChecksPerHour int              // checks for duplicates, likewise; 0: 120
	Region        string           // of phone numbers typed without one, ISO 3166; "": "CN"
	SmallestGroup int              // records of a group whose numbers are shown to who may not see records; 0: 5
	// Identifying names the normalisers whose terms tell who somebody is, alone and for certain: Erase marks them, Erased asks for them. nil: phone, email, idnumber, uscc, bankcard
	// and plate. One of names, addresses or places does not belong here: it would be everybody's who has it.
	Identifying []string
	Written     func(typ string) // called after records of a type were written; nil: nobody hears it
}

// Guard holds the parts that every operation passes. It is safe for concurrent use.
type Guard struct {
	store  crm.Store
	keeper *encrypt.Keeper
	policy authz.Authorizer
	log    Log
	name   string
	now    func() time.Time
	quota  quota // of searches
	checks quota
	// imports are checks by who may import.
	imports quota
	region  string
	open    unsettled
	heard   func(typ string)

	smallest int // see Options.SmallestGroup
	numbers  keptNumbers

	mu    sync.Mutex
	types map[string]typeOf // that have a door here

	identifying []string // normalisers, see Options.Identifying
}

// typeOf is a type and its door.
type typeOf struct {
	schema crm.Schema
	door   interface {
		// marks returns the marks of persons in rows.
		marks(ctx context.Context, persons []crm.UUID, rows []crm.Row) ([]Mark, error)
		// identifying lists the fields that have them.
		identifying() []string
		upward() (column int, ok bool)
		load(ctx context.Context, c Caller, id crm.UUID) (*crm.Row, error)
		seal(ctx context.Context, row crm.Row, expect int64) (pending, error)
	}
}

// unsettled are the writes that the log has announced and whose outcome is not known yet. Each announcement
// says up to which event all earlier ones are settled, so that after a crash only the last few can be
// unmade: who deletes an older row, or puts an older state back, cannot pass it off as a crash.
type unsettled struct {
	mu   sync.Mutex
	all  map[*announcement]bool // outcome unknown
	last uint64                 // the newest announcement
}

// announcement is one write from before it is announced until its outcome is known.
type announcement struct{ after uint64 } // its event's index is above this

// begin is called before the announcement is appended: its index will be above all that are known now.
func (u *unsettled) begin() *announcement {
	u.mu.Lock()
	defer u.mu.Unlock()
	a := &announcement{after: u.last}
	u.all[a] = true
	return a
}

// announced notes the index.
func (u *unsettled) announced(a *announcement, index uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	a.after = index - 1
	u.last = max(u.last, index)
}

// settle notes that the outcome is known.
func (u *unsettled) settle(a *announcement) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, a)
}

// mark returns the event up to which every announcement is settled; ok is false when there is none.
func (u *unsettled) mark() (index uint64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	index = u.last
	for a := range u.all {
		index = min(index, a.after)
	}
	return index, index > 0
}

// New composes a guard and settles what a crash left open: each write that the log announced and the
// store does not have gets an event that says so. It returns how many there were.
func New(ctx context.Context, store crm.Store, keeper *encrypt.Keeper, policy authz.Authorizer, log Log, opts *Options) (g *Guard, aborted int, err error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.LogName == "" {
		o.LogName = "log"
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.SearchPerHour == 0 {
		o.SearchPerHour = 120
	}
	if o.ChecksPerHour == 0 {
		o.ChecksPerHour = 120
	}
	if o.SmallestGroup == 0 {
		o.SmallestGroup = 5
	}
	if o.Identifying == nil {
		o.Identifying = []string{"phone", "email", "idnumber", "uscc", "bankcard", "plate"}
	}
	if o.Region == "" {
		o.Region = "CN"
	}
	if o.Written == nil {
		o.Written = func(string) {}
	}
	if store == nil || keeper == nil || policy == nil || log == nil {
		return nil, 0, errors.New("guard: store, keeper, policy and log are required")
	}
	g = &Guard{
		store: store, keeper: keeper, policy: policy, log: log, name: o.LogName, now: o.Clock,
		types: map[string]typeOf{}, identifying: o.Identifying, region: o.Region, heard: o.Written, smallest: o.SmallestGroup, numbers: keptNumbers{all: map[string]*kept{}}, open: unsettled{all: map[*announcement]bool{}}, quota: quota{perHour: o.SearchPerHour, used: map[string]*bucket{}},
		checks: quota{perHour: o.ChecksPerHour, used: map[string]*bucket{}}, imports: quota{perHour: min(o.ChecksPerHour, 1<<24) * importChecks, used: map[string]*bucket{}},
	}
	aborted, err = g.reconcile(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("guard: comparing log and store: %w", err)
	}
	return g, aborted, nil
}

// Actions of the guard's own events.
const (
	actionReconciled = "guard.reconciled"
	actionRestored   = "backup.restored" // a restore puts the store behind the log; older intents are settled
	actionAborted    = "guard.aborted"
	actionSettled    = "guard.settled" // every write announced before is made or aborted
)

// MarkRestored says in the log that the store was replaced by a backup, so that writes which the log
// announced before are not taken for aborted ones. snapshot names the backup; size is how many events the
// log had when it was made: what they wrote is expected in the store.
func MarkRestored(ctx context.Context, log Log, tenant, actor, snapshot string, size uint64) error {
	_, err := log.Append(ctx, audit.Event{
		Action: actionRestored, Activity: audit.Restore, Outcome: audit.Allowed,
		Tenant: tenant, Actor: actor, Note: snapshot, Count: int64(size),
	})
	return err
}

// Settle says in the log that every announced write is made or aborted, if there was one. Call it when
// the program ends in order.
func (g *Guard) Settle(ctx context.Context) error {
	index, ok := g.open.mark()
	if !ok {
		return nil
	}
	_, err := g.log.Append(ctx, audit.Event{Action: actionSettled, Outcome: audit.Allowed, Ref: index, HasRef: true})
	return err
}

// reconcile looks at every intent since the last reconciliation or restore.
func (g *Guard) reconcile(ctx context.Context) (int, error) {
	var from uint64
	for _, action := range []string{actionReconciled, actionRestored} {
		last, err := g.log.Query(ctx, audit.Filter{Action: action}, math.MaxUint64, 1)
		if err != nil {
			return 0, err
		}
		if len(last) == 1 {
			from = max(from, last[0].Index+1)
		}
	}
	var intents []audit.Entry
	settled := map[uint64]bool{}
	var mark uint64 // announcements up to here were settled while the program that made them ran
	for before := uint64(math.MaxUint64); ; {
		page, err := g.log.Query(ctx, audit.Filter{}, before, 1000)
		if err != nil {
			return 0, err
		}
		for _, e := range page {
			if e.Index < from {
				page = nil
				break
			}
			before = e.Index
			if e.Event.HasRef && (e.Event.Outcome == audit.Intended || e.Event.Action == actionSettled) {
				mark = max(mark, e.Event.Ref)
			}
			switch {
			case e.Event.Outcome == audit.Intended:
				intents = append(intents, e)
			case e.Event.Outcome == audit.Aborted && e.Event.HasRef:
				settled[e.Event.Ref] = true
			}
		}
		if len(page) == 0 {
			break
		}
	}
	if len(intents) == 0 {
		return 0, nil
	}
	applied, err := g.store.Applied(ctx, g.name, from)
	if err != nil {
		return 0, err
	}
	slices.Reverse(intents)
	aborted := 0
	for _, e := range intents {
		if _, ok := slices.BinarySearch(applied, e.Index); ok || settled[e.Index] || e.Index <= mark {
			continue
		}
		if err := g.abort(ctx, e.Event.Tenant, e.Event.Actor, e.Index); err != nil {
			return 0, err
		}
		aborted++
	}
	r, err := g.log.Append(ctx, audit.Event{
		Action: actionReconciled, Outcome: audit.Allowed, Count: int64(aborted),
		Ref: intents[len(intents)-1].Index, HasRef: true,
	})
	if err != nil {
		return 0, err
	}
	return aborted, g.store.Prune(ctx, g.name, r.Index)
}

// abort logs that the write announced by event index did not happen.
func (g *Guard) abort(ctx context.Context, tenant, actor string, index uint64) error {
	_, err := g.log.Append(ctx, audit.Event{
		Action: actionAborted, Outcome: audit.Aborted, Tenant: tenant, Actor: actor, Ref: index, HasRef: true,
	})
	return err
}

// Authorize decides on a function that is no record, such as "backup" or "log", and logs the answer
// before it returns: nil, or an *authz.DeniedError.
func (g *Guard) Authorize(ctx context.Context, c Caller, action authz.Action, function string) error {
	_, err := g.authorize(ctx, c, action, function)
	return err
}

// authorize is Authorize for whom the decision matters beyond its answer.
func (g *Guard) authorize(ctx context.Context, c Caller, action authz.Action, function string) (authz.Decision, error) {
	d, err := g.of(c).Decide(ctx, authz.Request{
		Subject: c.Subject, Action: action, Environment: c.Environment,
		Resource: authz.Resource{Tenant: c.Subject.Tenant, Type: function},
	})
	if err != nil {
		return d, fmt.Errorf("guard: %w", err)
	}
	denial := d.Proceed(c.met()...)
	e := c.event(function, action, d)
	if denial != nil {
		e.Outcome = audit.Denied
	}
	if _, err := g.log.Append(ctx, e); err != nil {
		return d, fmt.Errorf("guard: no log, no data: %w", err)
	}
	return d, denial
}

// Events returns events of the log to who may read it, newest first, below index before. The reading
// is an event too.
func (g *Guard) Events(ctx context.Context, c Caller, f audit.Filter, before uint64, limit int) ([]audit.Entry, error) {
	if err := g.Authorize(ctx, c, authz.Read, "log"); err != nil {
		return nil, err
	}
	f.Tenant = c.Subject.Tenant
	return g.log.Query(ctx, f, before, limit)
}

// Record logs an act of the composing program that touches no record, such as a sign-in. Detail values
// go through audit.Personal; nothing else in e may be personal.
func (g *Guard) Record(ctx context.Context, e audit.Event) (audit.Receipt, error) {
	return g.log.Append(ctx, e)
}

// met lists the obligations that the caller has met.
func (c Caller) met() []authz.Obligation {
	var met []authz.Obligation
	if c.Reason != "" {
		met = append(met, authz.NeedReason)
	}
	for _, o := range c.Met {
		if _, rows := o.Rows(); !rows {
			met = append(met, o)
		}
	}
	if c.counted {
		met = append(met, authz.AtMost(c.Environment.Rows))
	}
	return met
}

// activities says which class of the log an action belongs to.
var activities = map[authz.Action]audit.Activity{
	authz.List: audit.List, authz.Read: audit.Read, authz.Search: audit.Search, authz.Create: audit.Create,
	authz.Update: audit.Update, authz.Delete: audit.Delete, authz.Restore: audit.Restore,
	authz.Reveal: audit.Decrypt, authz.Import: audit.Import, authz.Export: audit.Export, authz.Manage: audit.Configure,
	authz.Approve: audit.Update, authz.Certify: audit.Update, authz.Share: audit.Update,
	reseal: audit.Update, authz.Browse: audit.List, authz.Aggregate: audit.List, authz.Purge: audit.Delete, authz.Erase: audit.Erase,
	authz.Claim: audit.Update, authz.Assign: audit.Update, authz.Transfer: audit.Update, authz.Release: audit.Update, authz.Recycle: audit.Update,
	authz.Handover: audit.Update, authz.Enter: audit.Update, authz.Lock: audit.Update, authz.Check: audit.Search, authz.Merge: audit.Update,
	changes: audit.List,
}

// event begins an event about an action of the caller.
func (c Caller) event(typ string, action authz.Action, d authz.Decision) audit.Event {
	return audit.Event{
		Action: typ + "." + string(action), Activity: activities[action], Outcome: audit.Allowed,
		Actor: c.Subject.ID, Session: c.Subject.Session, Tenant: c.Subject.Tenant,
		Purpose: c.Environment.Purpose, Policy: d.Revision, Controls: d.Controls, Note: c.Under,
	}
}

// May tells whether the caller may do a to a function that is no record. It does nothing and logs
// nothing; it is for pages that offer only what will be allowed.
func (g *Guard) May(ctx context.Context, c Caller, a authz.Action, function string) (bool, error) {
	d, err := g.of(c).Decide(ctx, authz.Request{
		Subject: c.Subject, Action: a, Environment: c.Environment,
		Resource: authz.Resource{Tenant: c.Subject.Tenant, Type: function},
	})
	return d.Allowed, err
}
