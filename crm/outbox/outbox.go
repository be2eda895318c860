package outbox

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

var (
	errEncoding = errors.New("outbox: a record cannot be written as JSON")
	// ErrNoSource says that an endpoint names a type that the outbox was given no source of.
	ErrNoSource = errors.New("outbox: no source of a type that the endpoint names")
)

// Records are the doors to the outbox's own types.
type Records struct {
	Endpoints  *guard.Records[*Endpoint]
	Deliveries *guard.Records[*Delivery]
	Cursors    *guard.Records[*Cursor]
}

// Options of New. Nil means the zero value of each field.
type Options struct {
	// Caller is an employee as a caller of now, with the roles that they have now; ok is false for who is not there any more. nil: nobody is known, so nothing
	// is read.
	Caller func(ctx context.Context, id crm.ID[crm.Employee]) (c guard.Caller, ok bool, err error)

	Clock    func() time.Time // nil: time.Now
	TLS      *tls.Config      // roots and client certificates; nil: those of the system
	Resolver *net.Resolver    // nil: that of the system
	Timeout  time.Duration    // of one try, all in all; 0: 15 s
	Keep     time.Duration    // how long a delivery stays after it was taken; 0: 24 h
	KeepDead time.Duration    // and after it was given up; 0: 30 days

	// InsecureLocal lets messages go to loopback addresses, also by plain http: for tests.
	InsecureLocal bool
}

// Outbox sends the changes of records to endpoints. It is safe for concurrent use.
type Outbox struct {
	g       *guard.Guard
	r       Records
	program guard.Caller
	o       Options
	sources map[string]Source
	client  *http.Client

	run  sync.Mutex // one Collect, Deliver or Sweep at a time
	mu   sync.Mutex
	wake chan struct{}

	known   []*Endpoint // as the store had them at knownAt
	knownAt int64
	places  map[crm.UUID]*Cursor // by id
	idleAt  int64                // the newest change of a delivery when nothing was due
	idleOf  int64                // and of an endpoint
	nextDue time.Time            // and when something is; zero: not known
	swept   time.Time
}

// New makes an outbox. program is who makes, sends and purges deliveries and reads secrets; what is in messages is read by the owners of endpoints.
func New(g *guard.Guard, r Records, program guard.Caller, opts *Options, sources ...Source) *Outbox {
	b := &Outbox{g: g, r: r, program: program, sources: map[string]Source{}, places: map[crm.UUID]*Cursor{}, wake: make(chan struct{}, 1), knownAt: -1, idleAt: -1}
	if opts != nil {
		b.o = *opts
	}
	if b.o.Caller == nil {
		b.o.Caller = func(context.Context, crm.ID[crm.Employee]) (guard.Caller, bool, error) {
			return guard.Caller{}, false, nil
		}
	}
	if b.o.Clock == nil {
		b.o.Clock = time.Now
	}
	if b.o.Timeout == 0 {
		b.o.Timeout = 15 * time.Second
	}
	if b.o.Keep == 0 {
		b.o.Keep = 24 * time.Hour
	}
	if b.o.KeepDead == 0 {
		b.o.KeepDead = 30 * 24 * time.Hour
	}
	for _, s := range sources {
		b.sources[s.Type()] = s
	}
	b.client = newClient(&b.o)
	return b
}

// Types returns the types that endpoints may name, in ascending order.
func (b *Outbox) Types() []string {
	var list []string
	for t := range b.sources {
		list = append(list, t)
	}
	slices.Sort(list)
	return list
}

// now is the time, cut to what is stored.
func (b *Outbox) now() time.Time { return b.o.Clock().UTC().Truncate(time.Microsecond) }

// check says what is wrong with an endpoint beyond its own rules.
func (b *Outbox) check(e *Endpoint) error {
	v := crm.Checks{Type: crm.TypeEndpoint}
	if e.URL.State() == crm.Clear {
		if u, ok := parseURL(e.URL.Expose()); !ok || !dialled(u, b.o.InsecureLocal) {
			v.Add("url", "unknown_value")
		}
	}
	if err := v.Err(); err != nil {
		return err
	}
	for _, t := range e.Types {
		if b.sources[t] == nil {
			return ErrNoSource
		}
	}
	return nil
}

// Create makes an endpoint in the name of the caller, whose eyes read for it, and returns its secret, which nobody is shown again. It tells of what changes from now
// on, and has the zero time of creation set by guard. Errors: *crm.InvalidError, ErrNoSource, *authz.DeniedError.
func (b *Outbox) Create(ctx context.Context, c guard.Caller, e *Endpoint) (Secret, error) {
	owner, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return Secret{}, guard.Deny("endpoint.owner") // a service has no eyes of its own
	}
	e.Owner, e.Team, e.State, e.Secret, e.OldSecret = crm.ID[crm.Employee](owner), c.Subject.Team, Paused, crm.Text{}, crm.Text{}
	if err := b.check(e); err != nil {
		return Secret{}, err
	}
	tx := b.g.Begin(c, "endpoint.create")
	if err := b.r.Endpoints.CreateIn(ctx, tx, e); err != nil {
		return Secret{}, err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return Secret{}, err
	}
	// From here on the program acts: the secret is nobody's to set. Should this be cut off, the endpoint is paused, and Rotate and Resume go on.
	s, err := b.Rotate(ctx, c, e.ID.UUID(), 0)
	if err != nil {
		return Secret{}, err
	}
	return s, b.Resume(ctx, c, e.ID.UUID())
}

// Rotate gives an endpoint a new secret and returns it; nobody is shown it again. The one before signs beside it for the overlap, at most 30 days; after it, or
// without one, messages have one signature. It is for who may update the endpoint. Errors: crm.ErrNotFound, crm.ErrConflict, *authz.DeniedError.
func (b *Outbox) Rotate(ctx context.Context, c guard.Caller, id crm.UUID, overlap time.Duration) (Secret, error) {
	if _, err := b.r.Endpoints.Authorize(ctx, c, "update", id); err != nil {
		return Secret{}, err
	}
	v, err := b.r.Endpoints.Get(ctx, b.program, id)
	if err != nil {
		return Secret{}, err
	}
	e, fresh := v.Value, NewSecret()
	e.OldSecret = e.Secret
	e.Secret = crm.NewText(fresh.Expose())
	if _, err := b.r.Endpoints.Update(ctx, b.program, e); err != nil {
		return Secret{}, err
	}
	until := time.Time{}
	if overlap > 0 && !e.OldSecret.IsEmpty() {
		until = b.now().Add(min(overlap, 30*24*time.Hour))
	}
	return fresh, b.r.Endpoints.Act(ctx, b.program, "update", id, 0, func(e *Endpoint) error { e.OldUntil = until; return nil })
}

// Pause stops an endpoint: nothing is read for it and nothing sent. Errors: crm.ErrNotFound, *authz.DeniedError.
func (b *Outbox) Pause(ctx context.Context, c guard.Caller, id crm.UUID) error {
	return b.set(ctx, c, id, Paused)
}

// Resume lets an endpoint go on where it was; an endpoint that is new, or a type that is new to it, begins now. It is for who may update it, and only its owner's eyes
// read. Errors: crm.ErrNotFound, ErrNoSource, *authz.DeniedError, also where its owner may not list a type.
func (b *Outbox) Resume(ctx context.Context, c guard.Caller, id crm.UUID) error {
	if _, err := b.r.Endpoints.Authorize(ctx, c, "update", id); err != nil {
		return err
	}
	v, err := b.r.Endpoints.Get(ctx, b.program, id)
	if err != nil {
		return err
	}
	if err := b.check(v.Value); err != nil {
		return err
	}
	if err := b.begin(ctx, v.Value); err != nil {
		return err
	}
	return b.set(ctx, c, id, Active)
}

// Edit changes name, URL, types, acts and fields of an endpoint, by the rules of guard's Update. A type that is new to it begins now.
func (b *Outbox) Edit(ctx context.Context, c guard.Caller, e *Endpoint) error {
	if err := b.check(e); err != nil {
		return err
	}
	if _, err := b.r.Endpoints.Update(ctx, c, e); err != nil {
		return err
	}
	if e.State == Paused {
		return nil // it begins with Resume
	}
	return b.begin(ctx, e)
}

func (b *Outbox) set(ctx context.Context, c guard.Caller, id crm.UUID, s State) error {
	return b.r.Endpoints.Act(ctx, c, "update", id, 0, func(e *Endpoint) error {
		e.State, e.Reason, e.LastAt = s, "", b.now()
		return nil
	})
}

// Test puts a message without any record into the queue of an endpoint, for who may update it.
func (b *Outbox) Test(ctx context.Context, c guard.Caller, id crm.UUID) error {
	if _, err := b.r.Endpoints.Authorize(ctx, c, "update", id); err != nil {
		return err
	}
	v, err := b.r.Endpoints.Get(ctx, b.program, id)
	if err != nil {
		return err
	}
	tx := b.g.Begin(b.program, "outbox.test")
	d := b.delivery(v.Value, crm.TypeEndpoint, told{id: id, person: v.Value.Person.UUID(), version: v.Value.Version, own: `{"fields":{}}`})
	d.ID, d.Act = crm.NewID[Delivery](), ActTest
	if err := b.r.Deliveries.CreateIn(ctx, tx, d); err != nil {
		return err
	}
	if _, err = tx.Commit(ctx); err == nil {
		b.Wake()
	}
	return err
}

// Replay sends a dead delivery again, from its first try on, for who may update deliveries. Errors: crm.ErrNotFound, crm.ErrConflict for one that is not dead.
func (b *Outbox) Replay(ctx context.Context, c guard.Caller, id crm.UUID) error {
	defer b.Wake()
	return b.r.Deliveries.Act(ctx, c, "update", id, 0, b.again)
}

// again makes a dead delivery wait.
func (b *Outbox) again(d *Delivery) error {
	if d.State != Dead {
		return crm.ErrConflict
	}
	d.State, d.Tries, d.NextAt, d.DoneAt = Waiting, 0, b.now(), time.Time{}
	return nil
}

// ReplayAll sends all dead deliveries of an endpoint again, and returns how many; it goes in steps of 200, each of which is whole.
func (b *Outbox) ReplayAll(ctx context.Context, c guard.Caller, endpoint crm.UUID) (n int, err error) {
	defer b.Wake()
	for {
		page, err := b.r.Deliveries.List(ctx, c, guard.Query{Limit: 200, Clauses: []crm.Clause{is("endpoint", endpoint.String()), is("state", string(Dead))}})
		if err != nil || len(page.Items) == 0 {
			return n, err
		}
		tx := b.g.Begin(c, "outbox.replay")
		for i := range page.Items {
			if err := b.r.Deliveries.ActIn(ctx, tx, "update", page.Items[i].Value.ID.UUID(), 0, b.again); err != nil {
				return n, err
			}
		}
		if _, err := tx.Commit(ctx); err != nil {
			return n, err
		}
		n += len(page.Items)
	}
}

// is is a clause: the column has this text.
func is(column, text string) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(text)}}
}

// Wake lets Run look at once.
func (b *Outbox) Wake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// lookEvery is how long Run waits between two looks.
const lookEvery = 2 * time.Second

// Run collects, delivers and sweeps until ctx ends. What goes wrong is logged, without anything of a record, and tried again.
func (b *Outbox) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for _, job := range []struct {
			name string
			do   func(context.Context) (int, error)
		}{{"collect", b.Collect}, {"deliver", b.Deliver}, {"sweep", b.sweepSometimes}} {
			if ctx.Err() != nil {
				return
			}
			if _, err := job.do(ctx); err != nil && ctx.Err() == nil {
				slog.Error("the outbox failed", "job", job.name, "err", err) // names types, ids and rules, never values
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.wake:
		}
	}
}

func (b *Outbox) sweepSometimes(ctx context.Context) (int, error) {
	if now := b.now(); now.Sub(b.swept) < time.Hour {
		return 0, nil
	} else {
		b.swept = now
	}
	return b.Sweep(ctx)
}
