package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
)

// Options of New.
type Options struct {
	Limits    Limits              // of roles that ByRole does not name
	ByRole    map[string]Limits   // by the name of a role; zero fields are those of Limits
	Rules     map[Act]Rule        // zero fields are the defaults; an act that is not named has the default rule
	Reactions map[Signal]Reaction // nil = NewDevice notifies, ChangedAgent ends, the others demand a step-up
	Locator   Locator             // nil: places are networks, and travel is not judged
	// Roles returns the roles that a person has now, for sessions whose epoch has moved; shown are the methods of that
	// session. An error that is authn.ErrRefused ends the session, any other one refuses the request. nil: such a
	// session is dead.
	Roles func(ctx context.Context, tenant, person string, shown []authn.Method) ([]string, error)
	Now   func() time.Time // nil = time.Now
}

// Manager makes, checks and ends sessions.
type Manager struct {
	store  Store
	sealer Sealer
	keys   []keyring
	opts   Options
}

// New returns a Manager. keys are secrets of at least 32 bytes: the first one makes new hashes and MACs, the others
// are still accepted, so that a key is replaced by putting a new one before it and leaving the old one for as long as
// a session lasts. sealer keeps what is personal: see [NewKeySealer] for a simple one.
func New(store Store, sealer Sealer, keys [][]byte, opts *Options) (*Manager, error) {
	m := &Manager{store: store, sealer: sealer}
	if opts != nil {
		m.opts = *opts
	}
	if m.opts.Now == nil {
		m.opts.Now = time.Now
	}
	if store == nil || sealer == nil || len(keys) == 0 {
		return nil, errors.New("session: no store, sealer or key")
	}
	for _, k := range keys {
		ring, err := newKeyring(k)
		if err != nil {
			return nil, err
		}
		m.keys = append(m.keys, ring)
	}
	if err := m.opts.Limits.check(); err != nil {
		return nil, err
	}
	for _, l := range m.opts.ByRole {
		if err := l.check(); err != nil {
			return nil, err
		}
	}
	for act, r := range m.opts.Rules {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, act)
		}
	}
	for s, r := range m.opts.Reactions {
		if _, known := defaultReactions[s]; !known || r > EndSession {
			return nil, errors.New("session: an unknown signal or reaction")
		}
	}
	return m, nil
}

// Session is one signed-in browser.
type Session struct {
	Tenant, Person string
	ID             string   // for lists and the log
	Epoch          uint64   // of the person: what was cached of their rights under another one is old
	Roles          []string // of the person, as of Epoch
	Proofs         []Proof
	Level          authn.Level // that the proofs reach together

	Created, Seen time.Time
	Expires       time.Time // if it is not used before
	Ends          time.Time // at the latest

	Device  Device
	Place   Place    // where it was used last
	Signals []Signal // that were noticed by this very call; of List, those of its whole life
	Doubted bool     // nothing but a step-up is served
	Ended   []string // by Start: ids of the sessions that had to make room
}

// SignIn says who signs in, and how they have shown it.
type SignIn struct {
	Tenant, Person string
	Epoch          uint64         // what Epoch answered before the account was looked at
	Roles          []string       // that the person has
	Methods        []authn.Method // that were verified just now
	Shown          []Proof        // what was shown earlier, as to a provider: it counts for the level, and as fresh from its own time
	Visit          Visit
	KnownDevice    bool   // the device is known by its own cookie; false is NewDevice
	Before         Token  // what the browser sent with the sign-in: it ends
	External       string // name of the session at a provider, with the provider's own name; "" for none
}

// ErrWeak: the methods shown are not enough for a session.
var ErrWeak = errors.New("session: the methods reach no level")

// ErrExpired: the session was not used for too long, or is too old.
var ErrExpired = errors.New("session: expired")

// Epoch returns the person's epoch, for [SignIn].
func (m *Manager) Epoch(ctx context.Context, tenant, person string) (uint64, error) {
	return m.store.Epoch(ctx, tenant, person)
}

func (m *Manager) now() time.Time { return m.opts.Now().Truncate(time.Millisecond).UTC() }

// touchEvery is how often Seen is written at most.
func touchEvery(idle time.Duration) time.Duration { return min(time.Minute, idle/4) }

func (m *Manager) hashes(t Token) [][]byte {
	out := make([][]byte, len(m.keys))
	for i, k := range m.keys {
		out[i] = mac(k.token, []byte(t.text))
	}
	return out
}

func (m *Manager) external(name string) []byte {
	if name == "" {
		return nil
	}
	return mac(m.keys[0].external, []byte(name))
}

// Start makes a session after the factors were verified, and the token for its cookie. The session that the browser
// had before ends, whoever's it was. Signals that end are a refusal here; those that demand a step-up make a session
// that is doubted from its start.
func (m *Manager) Start(ctx context.Context, in SignIn) (*Session, Token, error) {
	s, t, err := m.start(ctx, in)
	if err != nil {
		return nil, Token{}, authn.Refuse(err)
	}
	return s, t, nil
}

func (m *Manager) start(ctx context.Context, in SignIn) (*Session, Token, error) {
	if in.Tenant == "" || in.Person == "" {
		return nil, Token{}, errors.New("session: nobody signs in")
	}
	now := m.now()
	for _, p := range in.Shown {
		if p.At.IsZero() || p.At.After(now.Add(time.Hour)) {
			return nil, Token{}, errors.New("session: a proof of no time, or of one to come")
		}
	}
	if authn.LevelOf(append(methodsOf(in.Shown), in.Methods...)...) == authn.NoLevel {
		return nil, Token{}, ErrWeak
	}
	if in.Before.text != "" {
		if err := m.endToken(ctx, in.Before); err != nil {
			return nil, Token{}, err
		}
	}
	limits := m.opts.limitsOf(in.Roles)
	here := m.place(ctx, in.Visit.Addr)
	d := details{Device: ParseDevice(in.Visit.Agent), Stays: []stay{{here, now.UnixMilli()}}}
	if !in.KnownDevice {
		d.Risks = append(d.Risks, NewDevice)
	}
	if far, err := m.farFromOthers(ctx, in, here, now); err != nil {
		return nil, Token{}, err
	} else if far {
		d.Risks = append(d.Risks, ImpossibleTravel)
	}
	b := body{created: now, ends: now.Add(limits.Absolute), idle: limits.Idle, roles: slices.Clone(in.Roles)}
	for _, p := range in.Shown {
		b.prove([]authn.Method{p.Method}, p.At.Truncate(time.Millisecond).UTC())
	}
	b.prove(in.Methods, now)
	signals, worst := m.judge(d.Risks)
	if worst == EndSession {
		return nil, Token{}, ErrRisk
	}
	if worst == DemandStepUp {
		b.doubted = now
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	t := newToken()
	r := Record{
		Tenant: in.Tenant, Person: in.Person, ID: hex.EncodeToString(id[:]), Hash: m.hashes(t)[0], External: m.external(in.External),
		Epoch: in.Epoch, Version: 1, Seen: now,
	}
	if err := m.seal(ctx, &r, &b, d); err != nil {
		return nil, Token{}, err
	}
	if err := b.write(m.keys[0], &r); err != nil {
		return nil, Token{}, err
	}
	ended, err := m.store.Add(ctx, r, limits.Sessions)
	if err != nil {
		return nil, Token{}, err
	}
	s := sessionOf(&r, &b, d)
	s.Signals, s.Ended = signals, ended
	return s, t, nil
}

// farFromOthers tells whether another session of the person was used so lately and so far away that they cannot be
// here.
func (m *Manager) farFromOthers(ctx context.Context, in SignIn, here Place, now time.Time) (bool, error) {
	if here.Latitude == nil {
		return false, nil
	}
	all, err := m.store.List(ctx, in.Tenant, in.Person)
	if err != nil || len(all) == 0 {
		return false, err
	}
	b, err := read(m.keys, &all[0]) // the one used last
	if err != nil {
		return false, nil // a damaged row must not keep its owner out; nobody can use it
	}
	d, err := m.open(ctx, &all[0], &b)
	if err != nil {
		return false, nil
	}
	return travelled(d.Stays[len(d.Stays)-1], here, now), nil
}

// judge returns the signals that are not ignored and the worst reaction.
func (m *Manager) judge(signals []Signal) (told []Signal, worst Reaction) {
	for _, s := range signals {
		r := m.opts.reaction(s)
		worst = max(worst, r)
		if r > Ignore {
			told = append(told, s)
		}
	}
	return told, worst
}

// prove notes methods as shown at a time.
func (b *body) prove(methods []authn.Method, now time.Time) {
	for _, method := range methods {
		if !method.Valid() {
			continue
		}
		b.proofs = slices.DeleteFunc(b.proofs, func(p Proof) bool { return p.Method == method })
		b.proofs = append(b.proofs, Proof{method, now})
	}
}

func sessionOf(r *Record, b *body, d details) *Session {
	s := &Session{
		Tenant: r.Tenant, Person: r.Person, ID: r.ID, Epoch: r.Epoch, Roles: b.roles, Proofs: b.proofs, Created: b.created, Seen: r.Seen, Expires: r.Expires, Ends: b.ends,
		Device: d.Device, Place: d.Stays[len(d.Stays)-1].Place, Doubted: !b.doubted.IsZero(),
	}
	s.Level = authn.LevelOf(methodsOf(b.proofs)...)
	return s
}

func methodsOf(proofs []Proof) []authn.Method {
	out := make([]authn.Method, len(proofs))
	for i, p := range proofs {
		out[i] = p.Method
	}
	return out
}

// found is a living session with what was read of it.
type found struct {
	Record
	body
	details
}

// find returns the living session of a token.
func (m *Manager) find(ctx context.Context, t Token, now time.Time) (*found, error) {
	if t.text == "" {
		return nil, ErrNone
	}
	r, epoch, err := m.store.Find(ctx, m.hashes(t)...)
	if err != nil {
		return nil, err
	}
	f := &found{Record: r}
	if f.body, err = read(m.keys, &r); err != nil {
		return nil, err
	}
	if !now.Before(r.Expires) || now.Before(f.created.Add(-time.Hour)) { // or this machine's clock is far off
		return nil, ErrExpired
	}
	if f.Epoch != epoch {
		if err := m.refresh(ctx, f, epoch, now); err != nil {
			return nil, err
		}
	}
	f.details, err = m.open(ctx, &f.Record, &f.body)
	return f, err
}

// refresh gives a session of an older epoch the roles and limits that its person has now.
func (m *Manager) refresh(ctx context.Context, f *found, epoch uint64, now time.Time) error {
	if m.opts.Roles == nil || epoch < f.Epoch {
		return ErrStale
	}
	roles, err := m.opts.Roles(ctx, f.Tenant, f.Person, methodsOf(f.proofs))
	if err != nil {
		if errors.Is(err, authn.ErrRefused) {
			_, endErr := m.store.End(ctx, Ending{Tenant: f.Tenant, Person: f.Person, ID: f.ID})
			return errors.Join(ErrStale, endErr)
		}
		return err
	}
	limits := m.opts.limitsOf(roles)
	f.roles, f.idle, f.ends = slices.Clone(roles), limits.Idle, earlier(f.ends, f.created.Add(limits.Absolute))
	f.Epoch = epoch
	if err := m.save(ctx, f, nil); err != nil {
		return err
	}
	if !now.Before(f.Expires) {
		return ErrExpired
	}
	return nil
}

// save writes f as its next version. MAC and hash are made anew under the first key: of the token when one is given,
// which is what rotation needs.
func (m *Manager) save(ctx context.Context, f *found, t *Token) error {
	if t != nil {
		f.Hash = m.hashes(*t)[0]
	}
	f.Version++
	if err := f.write(m.keys[0], &f.Record); err != nil {
		return err
	}
	err := m.store.Replace(ctx, f.Record)
	if errors.Is(err, ErrNone) {
		return errConflict // changed or gone: reading again tells
	}
	return err
}

// Check returns the session of a token, on every request. With ErrStepUp the session is returned too: it may do
// nothing but step up or sign out. Any other error is authn.ErrRefused.
func (m *Manager) Check(ctx context.Context, t Token, v Visit) (*Session, error) {
	// Two requests of one session at once may both want to write: who comes second reads again.
	for try := 0; ; try++ {
		s, err := m.check(ctx, t, v)
		switch {
		case err == nil && s.Doubted:
			return s, ErrStepUp
		case err == nil:
			return s, nil
		case errors.Is(err, errConflict) && try < 4:
			continue
		}
		return nil, authn.Refuse(err)
	}
}

// errConflict: another request has changed the session meanwhile.
var errConflict = errors.New("session: changed meanwhile")

func (m *Manager) check(ctx context.Context, t Token, v Visit) (*Session, error) {
	now := m.now()
	f, err := m.find(ctx, t, now)
	if err != nil {
		return nil, err
	}
	var seen []Signal
	last := f.Stays[len(f.Stays)-1]
	changed := ParseDevice(v.Agent) != f.Device
	if changed {
		seen = append(seen, ChangedAgent)
		f.Device = ParseDevice(v.Agent)
	}
	moved, here := false, last.Place
	network := NetworkOf(v.Addr)
	switch before := known(f.Stays, network); {
	case before == nil:
		moved, here = true, m.place(ctx, v.Addr)
		if travelled(last, here, now) {
			seen = append(seen, ImpossibleTravel)
		}
	case network != last.Place.Network:
		here = before.Place
		if returned(f.Stays, network, now) {
			seen = append(seen, TwoNetworks)
		}
	}
	signals, worst := m.judge(seen)
	if worst == EndSession {
		_, err := m.store.End(ctx, Ending{Tenant: f.Tenant, Person: f.Person, ID: f.ID})
		return nil, errors.Join(&RiskError{Person: f.Person, Session: f.ID, Signals: signals}, err)
	}
	doubt := worst == DemandStepUp && f.doubted.IsZero()
	if moved || changed || doubt || len(signals) > 0 || now.Sub(f.Seen) >= touchEvery(f.idle) {
		if now.After(f.Seen) {
			f.Seen = now
		}
		if doubt {
			f.doubted = now
		}
		for _, s := range signals {
			if !slices.Contains(f.Risks, s) {
				f.Risks = append(f.Risks, s)
			}
		}
		f.Stays = move(f.Stays, here, now)
		if err := m.seal(ctx, &f.Record, &f.body, f.details); err != nil {
			return nil, err
		}
		if err := m.save(ctx, f, nil); err != nil {
			return nil, err
		}
	}
	s := sessionOf(&f.Record, &f.body, f.details)
	s.Signals = signals
	return s, nil
}

// StepUp notes methods that were verified just now, ends every doubt, and returns a new token: the one before is dead
// at once. Methods that reach no level are refused, and weak ones (codes that are sent) do not end a doubt.
func (m *Manager) StepUp(ctx context.Context, t Token, methods []authn.Method, v Visit) (*Session, Token, error) {
	s, fresh, err := m.stepUp(ctx, t, methods, v)
	if err != nil {
		return nil, Token{}, authn.Refuse(err)
	}
	return s, fresh, nil
}

func (m *Manager) stepUp(ctx context.Context, t Token, methods []authn.Method, v Visit) (*Session, Token, error) {
	if authn.LevelOf(slices.DeleteFunc(slices.Clone(methods), authn.Method.Weak)...) == authn.NoLevel {
		return nil, Token{}, ErrWeak
	}
	for try := 0; ; try++ {
		s, fresh, err := m.rotate(ctx, t, methods, v)
		if errors.Is(err, errConflict) && try < 4 { // a touch came between; of two step-ups the second finds its token dead
			continue
		}
		return s, fresh, err
	}
}

func (m *Manager) rotate(ctx context.Context, t Token, methods []authn.Method, v Visit) (*Session, Token, error) {
	now := m.now()
	f, err := m.find(ctx, t, now)
	if err != nil {
		return nil, Token{}, err
	}
	device := ParseDevice(v.Agent)
	if device != f.Device && m.opts.reaction(ChangedAgent) == EndSession {
		_, err := m.store.End(ctx, Ending{Tenant: f.Tenant, Person: f.Person, ID: f.ID})
		return nil, Token{}, errors.Join(&RiskError{Person: f.Person, Session: f.ID, Signals: []Signal{ChangedAgent}}, err)
	}
	f.prove(methods, now)
	// What was doubted is believed from here on: this device, this place; the networks before are forgotten.
	f.doubted, f.Device = time.Time{}, device
	f.Stays = []stay{{m.place(ctx, v.Addr), now.UnixMilli()}}
	if now.After(f.Seen) {
		f.Seen = now
	}
	if err := m.seal(ctx, &f.Record, &f.body, f.details); err != nil {
		return nil, Token{}, err
	}
	fresh := newToken()
	if err := m.save(ctx, f, &fresh); err != nil {
		return nil, Token{}, err
	}
	return sessionOf(&f.Record, &f.body, f.details), fresh, nil
}

// Fresh returns nil when the session may do an act that wants a fresh proof, else ErrStepUp.
func (m *Manager) Fresh(s *Session, act Act) error {
	if s == nil || s.Doubted || !m.opts.Rules[act].or().meets(s.Proofs, m.now()) {
		return ErrStepUp
	}
	return nil
}

// List returns the living sessions of a person, the ones used last first, for their own page or an administrator's.
func (m *Manager) List(ctx context.Context, tenant, person string) ([]Session, error) {
	all, err := m.store.List(ctx, tenant, person)
	if err != nil {
		return nil, err
	}
	now, out := m.now(), make([]Session, 0, len(all))
	for i := range all {
		r := &all[i]
		if !now.Before(r.Expires) {
			continue
		}
		b, err := read(m.keys, r)
		if err != nil {
			return nil, err
		}
		d, err := m.open(ctx, r, &b)
		if err != nil {
			return nil, err
		}
		s := sessionOf(r, &b, d)
		s.Signals = d.Risks
		out = append(out, *s)
	}
	return out, nil
}

// End ends one session of a person by its id. Errors: ErrNone when they have none of that id.
func (m *Manager) End(ctx context.Context, tenant, person, id string) error {
	if id == "" {
		return ErrNone
	}
	ended, err := m.store.End(ctx, Ending{Tenant: tenant, Person: person, ID: id})
	if err == nil && len(ended) == 0 {
		return ErrNone
	}
	return err
}

// EndOthers ends all sessions of a person but one, as after a change of a password. It returns the ids of those that
// it ended.
func (m *Manager) EndOthers(ctx context.Context, tenant, person, keep string) ([]string, error) {
	if keep == "" {
		return nil, ErrNone
	}
	return m.store.End(ctx, Ending{Tenant: tenant, Person: person, Except: keep})
}

// EndAll ends all sessions of a person, as when an account is disabled, and refuses sign-ins that have begun already.
// It returns the ids of those that it ended.
func (m *Manager) EndAll(ctx context.Context, tenant, person string) ([]string, error) {
	if person == "" {
		return nil, ErrNone
	}
	return m.store.End(ctx, Ending{Tenant: tenant, Person: person, Raise: true})
}

// EndExternal ends the sessions that came from a session of a provider, by the name that SignIn.External had.
func (m *Manager) EndExternal(ctx context.Context, tenant, name string) ([]string, error) {
	if name == "" {
		return nil, ErrNone
	}
	var all []string
	for _, k := range m.keys {
		ended, err := m.store.End(ctx, Ending{Tenant: tenant, External: mac(k.external, []byte(name))})
		if err != nil {
			return all, err
		}
		all = append(all, ended...)
	}
	return all, nil
}

// RightsChanged raises the person's epoch: with their next request, in every process, their sessions get the roles
// that Options.Roles returns, or are dead without it.
func (m *Manager) RightsChanged(ctx context.Context, tenant, person string) error {
	if person == "" {
		return ErrNone
	}
	_, err := m.store.End(ctx, Ending{Tenant: tenant, Person: person, ID: noSession, Raise: true})
	return err
}

// noSession is an id that no session has.
const noSession = "-"

// SignOut ends the session of a token. That there is none any more is no error.
func (m *Manager) SignOut(ctx context.Context, t Token) error {
	if t.text == "" {
		return nil
	}
	return m.endToken(ctx, t)
}

func (m *Manager) endToken(ctx context.Context, t Token) error {
	r, _, err := m.store.Find(ctx, m.hashes(t)...)
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = m.store.End(ctx, Ending{Tenant: r.Tenant, Person: r.Person, ID: r.ID})
	return err
}

// Sweep removes what is dead, and returns how many sessions that were. Run it now and then; a dead session never
// serves, swept or not.
func (m *Manager) Sweep(ctx context.Context) (int, error) { return m.store.Sweep(ctx, m.now()) }
