package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/session/memstore"
)

var (
	key     = bytes.Repeat([]byte{1}, 32)
	firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
	newer   = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	phone   = "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)

func visit(addr, agent string) session.Visit {
	return session.Visit{Addr: netip.MustParseAddr(addr), Agent: agent}
}

var york = visit("192.0.2.7", firefox)

// cities locates addresses by their first byte.
type cities struct{}

func (cities) Locate(_ context.Context, a netip.Addr) (string, float64, float64, bool) {
	if a.Is6() {
		return "", 0, 0, false
	}
	switch a.As4()[0] {
	case 192:
		return "York", 53.96, -1.08, true
	case 198:
		return "Sydney", -33.87, 151.21, true
	case 203:
		return "Leeds", 53.80, -1.55, true
	}
	return "", 0, 0, false
}

// world is a manager with a clock of its own.
type world struct {
	*session.Manager
	t     *testing.T
	store session.Store
	now   time.Time
}

func newWorld(t *testing.T, opts *session.Options) *world {
	t.Helper()
	return newWorldOn(t, memstore.New(), opts)
}

func newWorldOn(t *testing.T, store session.Store, opts *session.Options) *world {
	t.Helper()
	w := &world{t: t, store: store, now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	if opts == nil {
		opts = &session.Options{}
	}
	o := *opts
	o.Now = func() time.Time { return w.now }
	sealer, err := session.NewKeySealer(key)
	if err != nil {
		t.Fatal(err)
	}
	if w.Manager, err = session.New(store, sealer, [][]byte{key}, &o); err != nil {
		t.Fatal(err)
	}
	return w
}

func signIn() session.SignIn {
	return session.SignIn{
		Tenant: "acme", Person: "ann", Epoch: 1, Roles: []string{"sales"}, Methods: []authn.Method{authn.Password, authn.TOTP}, Visit: york, KnownDevice: true,
	}
}

func (w *world) start(change func(*session.SignIn)) (*session.Session, session.Token) {
	w.t.Helper()
	in := signIn()
	if change != nil {
		change(&in)
	}
	s, token, err := w.Start(w.t.Context(), in)
	if err != nil {
		w.t.Fatal(authn.Reason(err))
	}
	return s, token
}

func (w *world) live(what string, token session.Token, v session.Visit) *session.Session {
	w.t.Helper()
	s, err := w.Check(w.t.Context(), token, v)
	if err != nil {
		w.t.Fatalf("%s: %v (%v)", what, err, authn.Reason(err))
	}
	return s
}

// dead wants the one public answer, for this reason.
func (w *world) dead(what string, token session.Token, reason error) {
	w.t.Helper()
	s, err := w.Check(w.t.Context(), token, york)
	w.refused(what, s, err, reason)
}

func (w *world) refused(what string, s *session.Session, err, reason error) {
	w.t.Helper()
	if s != nil || !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error() || !errors.Is(authn.Reason(err), reason) {
		w.t.Fatalf("%s: %v, %v (%v), want %v inside", what, s, err, authn.Reason(err), reason)
	}
}

func TestSignIn(t *testing.T) {
	w := newWorld(t, nil)
	s, token := w.start(nil)
	got := w.live("at once", token, york)
	if got.ID != s.ID || got.Person != "ann" || got.Tenant != "acme" || got.Level != authn.AAL2 || !slices.Equal(got.Roles, []string{"sales"}) || len(got.Proofs) != 2 ||
		got.Device != (session.Device{Browser: "Firefox", System: "Linux", Kind: "computer"}) || got.Place.Network != "192.0.2.0/24" || got.Doubted || len(got.Signals) > 0 {
		t.Fatalf("%+v", got)
	}
	w.live("a newer version of the browser", token, visit("192.0.2.200", newer))
	w.dead("no token", session.Token{}, session.ErrNone)
	_, other := newWorld(t, nil).start(nil)
	w.dead("a token of another store", other, session.ErrNone)
	if err := w.SignOut(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	w.dead("signed out", token, session.ErrNone)
	if err := errors.Join(w.SignOut(t.Context(), token), w.SignOut(t.Context(), session.Token{})); err != nil {
		t.Fatal(err)
	}
}

func TestSignInRefused(t *testing.T) {
	w := newWorld(t, nil)
	for what, change := range map[string]func(*session.SignIn){
		"no person":        func(in *session.SignIn) { in.Person = "" },
		"no tenant":        func(in *session.SignIn) { in.Tenant = "" },
		"no method":        func(in *session.SignIn) { in.Methods = nil },
		"only e-mail":      func(in *session.SignIn) { in.Methods = []authn.Method{authn.Email} },
		"unknown methods":  func(in *session.SignIn) { in.Methods = []authn.Method{"smile"} },
		"an epoch to come": func(in *session.SignIn) { in.Epoch = 2 },
		"no epoch":         func(in *session.SignIn) { in.Epoch = 0 },
		"a role too long":  func(in *session.SignIn) { in.Roles = []string{strings.Repeat("x", 256)} },
		"an empty role":    func(in *session.SignIn) { in.Roles = []string{""} },
	} {
		in := signIn()
		change(&in)
		s, token, err := w.Start(t.Context(), in)
		if s != nil || token != (session.Token{}) || !errors.Is(err, authn.ErrRefused) || errors.Is(authn.Reason(err), authn.ErrRefused) {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
	if all, err := w.List(t.Context(), "acme", "ann"); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestFixation: a token that an attacker knows before the sign-in is worth nothing after it.
func TestFixation(t *testing.T) {
	w := newWorld(t, nil)
	_, planted := w.start(func(in *session.SignIn) { in.Person = "mallory" })
	s, token := w.start(func(in *session.SignIn) { in.Before = planted })
	if token.Reveal() == planted.Reveal() {
		t.Fatal("the token that was brought along is used")
	}
	w.dead("the planted one", planted, session.ErrNone)
	if got := w.live("the new one", token, york); got.ID != s.ID || got.Person != "ann" {
		t.Fatalf("%+v", got)
	}
	// Made up, and never a session of anybody.
	made, err := session.ParseToken(strings.Repeat("A", 43))
	if err != nil {
		t.Fatal(err)
	}
	_, token = w.start(func(in *session.SignIn) { in.Before = made })
	w.dead("the made up one", made, session.ErrNone)
	w.live("the new one", token, york)
}

func TestIdleAndAbsolute(t *testing.T) {
	w := newWorld(t, nil)
	_, token := w.start(nil)
	for range 23 { // 29 minutes each: 11 h 7 min
		w.now = w.now.Add(29 * time.Minute)
		w.live("in use", token, york)
	}
	w.now = w.now.Add(29 * time.Minute)
	w.live("in use", token, york)
	w.now = w.now.Add(24 * time.Minute) // exactly 12 h
	w.dead("after twelve hours of use", token, session.ErrExpired)
	_, token = w.start(nil)
	w.now = w.now.Add(30*time.Minute - time.Millisecond)
	if got := w.live("just in time", token, york); !got.Seen.Equal(w.now) {
		t.Errorf("seen %v", got.Seen)
	}
	w.now = w.now.Add(30 * time.Minute)
	w.dead("after half an hour without use", token, session.ErrExpired)
	if n, err := w.Sweep(t.Context()); err != nil || n != 2 {
		t.Errorf("swept %d, %v", n, err)
	}
	w.dead("swept", token, session.ErrNone)
}

func TestClockBehind(t *testing.T) {
	w := newWorld(t, nil)
	s, token := w.start(nil)
	w.now = w.now.Add(-5 * time.Minute)
	if got := w.live("on a machine five minutes behind", token, york); !got.Seen.Equal(s.Seen) || !got.Ends.Equal(s.Ends) {
		t.Errorf("%+v", got)
	}
	if err := w.Fresh(s, session.Reveal); !errors.Is(err, session.ErrStepUp) {
		t.Errorf("a proof of five minutes ahead: %v", err)
	}
	w.now = w.now.Add(-60 * time.Minute)
	w.dead("made an hour from now", token, session.ErrExpired)
}

// counting counts changes to a store.
type counting struct {
	session.Store
	replaced int
}

func (c *counting) Replace(ctx context.Context, r session.Record) error {
	c.replaced++
	return c.Store.Replace(ctx, r)
}

func TestSeenIsWrittenOnceAMinute(t *testing.T) {
	c := &counting{Store: memstore.New()}
	w := newWorldOn(t, c, nil)
	_, token := w.start(nil)
	for range 300 {
		w.now = w.now.Add(time.Second)
		w.live("in use", token, york)
	}
	for i := range 60 { // in turn: one write, for the new network
		w.now = w.now.Add(time.Second)
		w.live("in turn", token, []session.Visit{york, visit("2001:db8::1", firefox)}[i%2])
	}
	c.replaced--
	if c.replaced != 5 {
		t.Errorf("%d writes in five minutes", c.replaced)
	}
}

func TestLimitsOfRoles(t *testing.T) {
	w := newWorld(t, &session.Options{ByRole: map[string]session.Limits{
		"admin":  {Idle: 5 * time.Minute, Absolute: time.Hour, Sessions: 1},
		"kiosk":  {Idle: 10 * time.Hour, Sessions: 9},
		"office": {Sessions: 2},
	}})
	for _, c := range []struct {
		roles          []string
		idle, absolute time.Duration
		most           int
	}{
		{nil, 30 * time.Minute, 12 * time.Hour, 5},
		{[]string{"unknown"}, 30 * time.Minute, 12 * time.Hour, 5},
		{[]string{"office"}, 30 * time.Minute, 12 * time.Hour, 2},
		{[]string{"kiosk"}, 10 * time.Hour, 12 * time.Hour, 9},
		{[]string{"kiosk", "sales"}, 30 * time.Minute, 12 * time.Hour, 5},
		{[]string{"kiosk", "admin", "sales"}, 5 * time.Minute, time.Hour, 1},
	} {
		person := fmt.Sprint(c.roles)
		var first session.Token
		for i := range c.most + 1 {
			w.now = w.now.Add(time.Second)
			s, token := w.start(func(in *session.SignIn) { in.Person, in.Roles = person, c.roles })
			if i == 0 {
				first = token
			}
			if s.Expires.Sub(s.Created) != c.idle || s.Ends.Sub(s.Created) != c.absolute {
				t.Errorf("%v: idle %v, absolute %v", c.roles, s.Expires.Sub(s.Created), s.Ends.Sub(s.Created))
			}
			if (len(s.Ended) == 1) != (i == c.most) {
				t.Errorf("%v: the sign-in %d ended %v", c.roles, i, s.Ended)
			}
		}
		w.dead("the first one", first, session.ErrNone)
		if all, err := w.List(t.Context(), "acme", person); err != nil || len(all) != c.most {
			t.Errorf("%v: %d sessions, %v", c.roles, len(all), err)
		}
	}
}

func TestStepUp(t *testing.T) {
	w := newWorld(t, nil)
	s, token := w.start(nil)
	for _, act := range []session.Act{session.Reveal, session.Export, session.Erasure, session.Keys, session.Roles, session.Restore, session.Factors, "unheard of"} {
		if err := w.Fresh(s, act); err != nil {
			t.Errorf("%s after the sign-in: %v", act, err)
		}
	}
	w.now = w.now.Add(5 * time.Minute)
	s = w.live("later", token, york)
	if err := w.Fresh(s, session.Export); !errors.Is(err, session.ErrStepUp) {
		t.Fatalf("five minutes after the sign-in: %v", err)
	}
	stepped, fresh, err := w.StepUp(t.Context(), token, []authn.Method{authn.Passkey}, york)
	if err != nil {
		t.Fatal(err)
	}
	if stepped.ID != s.ID || fresh.Reveal() == token.Reveal() || !stepped.Ends.Equal(s.Ends) || len(stepped.Proofs) != 3 {
		t.Fatalf("%+v", stepped)
	}
	w.dead("the token before the step-up", token, session.ErrNone)
	s = w.live("the token after it", fresh, york)
	if err := w.Fresh(s, session.Export); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.StepUp(t.Context(), token, []authn.Method{authn.Passkey}, york); !errors.Is(err, authn.ErrRefused) {
		t.Errorf("a step-up with the dead token: %v", err)
	}
	for _, methods := range [][]authn.Method{nil, {authn.Email}, {authn.SMS}, {"smile"}} {
		_, _, err := w.StepUp(t.Context(), fresh, methods, york)
		w.refused(fmt.Sprint(methods), nil, err, session.ErrWeak)
	}
	w.live("the token after refused step-ups", fresh, york)
	if err := w.Fresh(nil, session.Export); !errors.Is(err, session.ErrStepUp) {
		t.Errorf("no session: %v", err)
	}
}

// TestMethodsThatCount: not every proof is one for every act.
func TestMethodsThatCount(t *testing.T) {
	w := newWorld(t, &session.Options{Rules: map[session.Act]session.Rule{
		session.Keys:    {Methods: []authn.Method{authn.Passkey}},
		session.Restore: {Fresh: authn.AAL2},
		session.Reveal:  {Within: time.Minute, Level: authn.AAL1},
	}})
	for _, c := range []struct {
		methods []authn.Method
		act     session.Act
		wait    time.Duration
		ok      bool
	}{
		{[]authn.Method{authn.Password}, session.Export, 0, false}, // AAL1 is not enough
		{[]authn.Method{authn.Password}, session.Reveal, 0, true},
		{[]authn.Method{authn.Password}, session.Reveal, time.Minute, false},
		{[]authn.Method{authn.OIDC}, session.Reveal, 0, false},
		{[]authn.Method{authn.Recovery, authn.SMS}, session.Reveal, 0, false},
		{[]authn.Method{authn.Password, authn.SMS}, session.Export, 0, true}, // the password counts, the level is reached
		{[]authn.Method{authn.Password, authn.TOTP}, session.Keys, 0, false},
		{[]authn.Method{authn.Passkey}, session.Keys, 0, true},
		{[]authn.Method{authn.Passkey}, session.Keys, 5*time.Minute - time.Millisecond, true},
		{[]authn.Method{authn.Passkey}, session.Keys, 5 * time.Minute, false},
		{[]authn.Method{authn.Password, authn.TOTP}, session.Restore, 0, true},
		{[]authn.Method{authn.Password, authn.Recovery}, session.Restore, 0, false},
	} {
		s, _ := w.start(func(in *session.SignIn) { in.Methods = c.methods })
		w.now = w.now.Add(c.wait)
		if err := w.Fresh(s, c.act); (err == nil) != c.ok {
			t.Errorf("%s by %v after %v: %v", c.act, c.methods, c.wait, err)
		}
	}
}

func TestListAndEnd(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, &session.Options{Locator: cities{}})
	a, tokenA := w.start(nil)
	w.now = w.now.Add(time.Minute)
	b, tokenB := w.start(func(in *session.SignIn) { in.Visit, in.KnownDevice = visit("192.0.2.9", phone), false })
	w.now = w.now.Add(time.Minute)
	c, tokenC := w.start(nil)
	_, other := w.start(func(in *session.SignIn) { in.Person = "bob" })
	all, err := w.List(ctx, "acme", "ann")
	if err != nil || len(all) != 3 || all[0].ID != c.ID || all[1].ID != b.ID || all[2].ID != a.ID {
		t.Fatalf("%+v, %v", all, err)
	}
	if l := all[1]; l.Device.String() != "Chrome, Android, phone" || l.Place.Name != "York" || !slices.Equal(l.Signals, []session.Signal{session.NewDevice}) || l.Level != authn.AAL2 ||
		!l.Created.Equal(b.Created) {
		t.Errorf("%+v", l)
	}
	for what, err := range map[string]error{
		"another person's": w.End(ctx, "acme", "bob", a.ID), "another tenant's": w.End(ctx, "other", "ann", a.ID), "none": w.End(ctx, "acme", "ann", ""), "unknown": w.End(ctx, "acme", "ann", "x"),
		"all of nobody": func() error { _, err := w.EndAll(ctx, "acme", ""); return err }(), "all but none": func() error { _, err := w.EndOthers(ctx, "acme", "ann", ""); return err }(),
		"of no provider": func() error { _, err := w.EndExternal(ctx, "acme", ""); return err }(), "rights of nobody": w.RightsChanged(ctx, "acme", ""),
	} {
		if !errors.Is(err, session.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.live("untouched", tokenA, york)
	if err := w.End(ctx, "acme", "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	w.dead("ended", tokenA, session.ErrNone)
	if ended, err := w.EndOthers(ctx, "acme", "ann", c.ID); err != nil || !slices.Equal(ended, []string{b.ID}) {
		t.Fatalf("%v, %v", ended, err)
	}
	w.dead("another one", tokenB, session.ErrNone)
	w.live("the one that is kept", tokenC, york)
	if ended, err := w.EndAll(ctx, "acme", "ann"); err != nil || !slices.Equal(ended, []string{c.ID}) {
		t.Fatalf("%v, %v", ended, err)
	}
	w.dead("all ended", tokenC, session.ErrNone)
	w.live("somebody else's", other, york)
	// A sign-in that began before comes too late.
	_, _, err = w.Start(ctx, signIn())
	w.refused("begun before", nil, err, session.ErrStale)
	epoch, err := w.Epoch(ctx, "acme", "ann")
	if err != nil || epoch != 2 {
		t.Fatalf("%d, %v", epoch, err)
	}
	w.start(func(in *session.SignIn) { in.Epoch = epoch })
}

func TestEndExternal(t *testing.T) {
	w := newWorld(t, nil)
	_, a := w.start(func(in *session.SignIn) { in.External = "https://id.example.com 08a5" })
	_, b := w.start(func(in *session.SignIn) { in.External = "https://id.example.com 08a6" })
	_, c := w.start(nil)
	ended, err := w.EndExternal(t.Context(), "acme", "https://id.example.com 08a5")
	if err != nil || len(ended) != 1 {
		t.Fatalf("%v, %v", ended, err)
	}
	w.dead("ended by its provider", a, session.ErrNone)
	w.live("of another session", b, york)
	w.live("of no provider", c, york)
	if ended, err := w.EndExternal(t.Context(), "other", "https://id.example.com 08a6"); err != nil || len(ended) > 0 {
		t.Fatalf("another tenant: %v, %v", ended, err)
	}
}

// TestRightsChange: with a source of roles a session goes on with the new ones and their limits; without one it is
// dead. In both cases with the very next request, of another Manager too.
func TestRightsChange(t *testing.T) {
	ctx := t.Context()
	roles := map[string][]string{"ann": {"sales"}}
	fault := errors.New("the directory is away")
	opts := &session.Options{
		ByRole: map[string]session.Limits{"admin": {Idle: 5 * time.Minute, Absolute: time.Hour}},
		Roles: func(_ context.Context, tenant, person string, _ []authn.Method) ([]string, error) {
			r := roles[person]
			switch {
			case tenant != "acme" || r == nil:
				return nil, authn.Refuse(errors.New("disabled"))
			case r[0] == "fault":
				return nil, fault
			}
			return r, nil
		},
	}
	store := memstore.New()
	w, other := newWorldOn(t, store, opts), newWorldOn(t, store, opts)
	_, token := w.start(nil)
	roles["ann"] = []string{"admin", "sales"}
	if err := w.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	s := other.live("after the change", token, york)
	if s.Epoch != 2 || !slices.Equal(s.Roles, []string{"admin", "sales"}) || s.Expires.Sub(s.Seen) != 5*time.Minute || s.Ends.Sub(s.Created) != time.Hour {
		t.Fatalf("%+v", s)
	}
	roles["ann"] = []string{"fault"}
	if err := w.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	w.dead("no roles are known", token, fault)
	roles["ann"] = []string{"sales"}
	if s := w.live("the directory is back", token, york); s.Epoch != 3 || !s.Ends.Equal(s.Created.Add(time.Hour)) {
		t.Fatalf("%+v", s) // what was shortened stays short
	}
	delete(roles, "ann")
	w.live("disabled, and nobody told", token, york)
	if err := w.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	w.dead("disabled", token, session.ErrStale)
	w.dead("and gone", token, session.ErrNone)

	w = newWorld(t, nil)
	_, token = w.start(nil)
	if err := w.RightsChanged(ctx, "acme", "bob"); err != nil {
		t.Fatal(err)
	}
	w.live("somebody else's rights", token, york)
	if err := w.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	w.dead("without a source of roles", token, session.ErrStale)
}

func TestSignals(t *testing.T) {
	type step struct {
		after   time.Duration
		visit   session.Visit
		signals []session.Signal
		err     error
	}
	sydney, leeds, unknown := visit("198.51.100.1", firefox), visit("203.0.113.1", firefox), visit("10.0.0.1", firefox)
	for _, c := range []struct {
		what      string
		reactions map[session.Signal]session.Reaction
		steps     []step
	}{
		{"the same network", nil, []step{{time.Second, visit("192.0.2.250", firefox), nil, nil}}},
		{"a move", nil, []step{{time.Second, leeds, nil, nil}, {time.Second, leeds, nil, nil}}},
		{"to and fro, slowly", nil, []step{{time.Second, leeds, nil, nil}, {11 * time.Minute, york, nil, nil}}},
		{"two networks", nil, []step{
			{time.Second, leeds, nil, nil}, {time.Second, york, []session.Signal{session.TwoNetworks}, session.ErrStepUp},
			{time.Hour / 4, york, nil, session.ErrStepUp}, {time.Second, leeds, nil, session.ErrStepUp},
		}},
		{"two networks, told", map[session.Signal]session.Reaction{session.TwoNetworks: session.Notify}, []step{
			{time.Second, leeds, nil, nil}, {time.Second, york, []session.Signal{session.TwoNetworks}, nil}, {time.Second, york, nil, nil},
		}},
		{"two networks, ignored", map[session.Signal]session.Reaction{session.TwoNetworks: session.Ignore}, []step{{time.Second, leeds, nil, nil}, {time.Second, york, nil, nil}}},
		{"IPv4 and IPv6 in turn", nil, []step{
			{time.Second, visit("2001:db8::1", firefox), nil, nil}, {time.Second, york, nil, nil},
			{time.Second, visit("2001:db8::1", firefox), nil, nil}, {time.Minute, york, nil, nil},
		}},
		{"two networks of IPv6", nil, []step{
			{time.Second, visit("2001:db8::1", firefox), nil, nil}, {time.Second, visit("2001:db8:9::1", firefox), nil, nil},
			{time.Second, visit("2001:db8::1", firefox), []session.Signal{session.TwoNetworks}, session.ErrStepUp},
		}},
		{"travel", nil, []step{{20 * time.Minute, sydney, []session.Signal{session.ImpossibleTravel}, session.ErrStepUp}, {time.Second, sydney, nil, session.ErrStepUp}}},
		{"travel, ended", map[session.Signal]session.Reaction{session.ImpossibleTravel: session.EndSession}, []step{
			{20 * time.Minute, sydney, nil, session.ErrRisk}, {time.Second, york, nil, session.ErrNone},
		}},
		{"an unknown place", nil, []step{{time.Second, unknown, nil, nil}, {time.Second, sydney, nil, nil}}},
		{"another agent", nil, []step{{time.Second, visit("192.0.2.7", phone), nil, session.ErrRisk}, {time.Second, york, nil, session.ErrNone}}},
		{"another agent, doubted", map[session.Signal]session.Reaction{session.ChangedAgent: session.DemandStepUp}, []step{
			{time.Second, visit("192.0.2.7", "curl/8"), []session.Signal{session.ChangedAgent}, session.ErrStepUp},
		}},
		{"another agent, told", map[session.Signal]session.Reaction{session.ChangedAgent: session.Notify}, []step{
			{time.Second, visit("192.0.2.7", phone), []session.Signal{session.ChangedAgent}, nil}, {time.Second, visit("192.0.2.7", phone), nil, nil},
		}},
	} {
		w := newWorld(t, &session.Options{Locator: cities{}, Reactions: c.reactions})
		_, token := w.start(nil)
		for i, s := range c.steps {
			w.now = w.now.Add(s.after)
			got, err := w.Check(t.Context(), token, s.visit)
			what := fmt.Sprintf("%s, step %d", c.what, i)
			switch {
			case s.err == nil && err == nil:
			case errors.Is(s.err, session.ErrStepUp) && errors.Is(err, session.ErrStepUp) && got != nil && got.Doubted:
				if w.Fresh(got, session.Reveal) == nil {
					t.Errorf("%s: fresh and doubted", what)
				}
			case s.err != nil && !errors.Is(s.err, session.ErrStepUp):
				w.refused(what, got, err, s.err)
			default:
				t.Fatalf("%s: %v (%v), want %v", what, err, authn.Reason(err), s.err)
			}
			if got != nil && !slices.Equal(got.Signals, s.signals) {
				t.Errorf("%s: signals %v, want %v", what, got.Signals, s.signals)
			}
		}
	}
}

// TestStepUpEndsDoubt: after it the place where it was made is believed.
func TestStepUpEndsDoubt(t *testing.T) {
	w := newWorld(t, &session.Options{Locator: cities{}})
	sydney := visit("198.51.100.1", firefox)
	_, token := w.start(nil)
	if s, err := w.Check(t.Context(), token, sydney); !errors.Is(err, session.ErrStepUp) || s == nil {
		t.Fatalf("%v", err)
	}
	if _, _, err := w.StepUp(t.Context(), token, []authn.Method{authn.SMS}, sydney); !errors.Is(err, authn.ErrRefused) {
		t.Fatalf("by a weak method: %v", err)
	}
	_, fresh, err := w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, sydney)
	if err != nil {
		t.Fatal(err)
	}
	w.dead("the token before", token, session.ErrNone)
	if s := w.live("after the step-up", fresh, sydney); s.Doubted || s.Place.Name != "Sydney" {
		t.Fatalf("%+v", s)
	}
}

func TestSignInSignals(t *testing.T) {
	w := newWorld(t, &session.Options{Locator: cities{}})
	w.start(nil)
	w.now = w.now.Add(time.Minute)
	s, token := w.start(func(in *session.SignIn) { in.Visit, in.KnownDevice = visit("198.51.100.1", phone), false })
	if !slices.Equal(s.Signals, []session.Signal{session.NewDevice, session.ImpossibleTravel}) || !s.Doubted {
		t.Fatalf("%+v", s)
	}
	if _, err := w.Check(t.Context(), token, visit("198.51.100.1", phone)); !errors.Is(err, session.ErrStepUp) {
		t.Fatalf("%v", err)
	}
	w.now = w.now.Add(24 * time.Hour)
	if s, _ := w.start(func(in *session.SignIn) { in.Visit = york }); len(s.Signals) > 0 {
		t.Errorf("a day later: %v", s.Signals)
	}
	w = newWorld(t, &session.Options{Reactions: map[session.Signal]session.Reaction{session.NewDevice: session.EndSession}})
	in := signIn()
	in.KnownDevice = false
	_, _, err := w.Start(t.Context(), in)
	w.refused("new devices are refused", nil, err, session.ErrRisk)
}

// TestForgedRows: whoever writes to the store opens nothing with it.
func TestForgedRows(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, nil)
	mine, token := w.start(func(in *session.SignIn) { in.Person = "mallory" })
	all, err := w.store.List(ctx, "acme", "mallory")
	if err != nil {
		t.Fatal(err)
	}
	put := func(r session.Record) {
		t.Helper()
		if _, err := w.store.End(ctx, session.Ending{Tenant: "acme", Person: "mallory"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.End(ctx, session.Ending{Tenant: r.Tenant, Person: r.Person}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Add(ctx, r, 9); err != nil {
			t.Fatal(err)
		}
	}
	clone := func() session.Record {
		r := all[0]
		r.Body = bytes.Clone(r.Body)
		return r
	}
	put(clone())
	if s := w.live("as it was", token, york); s.ID != mine.ID {
		t.Fatal("another session")
	}
	for what, change := range map[string]func(*session.Record){
		"another person":    func(r *session.Record) { r.Person = "ann" },
		"another tenant":    func(r *session.Record) { r.Tenant = "other" },
		"another id":        func(r *session.Record) { r.ID = "x" },
		"later expiry":      func(r *session.Record) { r.Expires = r.Expires.Add(time.Hour) },
		"seen later":        func(r *session.Record) { r.Seen = r.Seen.Add(time.Minute) },
		"another version":   func(r *session.Record) { r.Version++ },
		"another provider":  func(r *session.Record) { r.External = make([]byte, 32) },
		"no body":           func(r *session.Record) { r.Body = nil },
		"a body cut short":  func(r *session.Record) { r.Body = r.Body[:len(r.Body)-1] },
		"a body grown":      func(r *session.Record) { r.Body = append(r.Body, 0) },
		"a MAC of nothing":  func(r *session.Record) { r.Body = make([]byte, 32) },
		"a body without it": func(r *session.Record) { r.Body = r.Body[:len(r.Body)-32] },
	} {
		r := clone()
		change(&r)
		put(r)
		w.dead(what, token, session.ErrForged)
	}
	for i := range all[0].Body {
		r := clone()
		r.Body[i] ^= 0x10
		put(r)
		w.dead(fmt.Sprintf("byte %d", i), token, session.ErrForged)
	}
}

// TestNothingPersonalInTheClear: the store has neither the token nor the address nor the agent.
func TestNothingPersonalInTheClear(t *testing.T) {
	w := newWorld(t, &session.Options{Locator: cities{}})
	_, token := w.start(func(in *session.SignIn) { in.External = "https://id.example.com sid" })
	all, err := w.store.List(t.Context(), "acme", "ann")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%s %s %s %s %s %s", all[0].Tenant, all[0].Person, all[0].ID, all[0].Hash, all[0].External, all[0].Body)
	for _, secret := range []string{token.Reveal(), "192.0.2", "Firefox", "Linux", "York", "id.example.com"} {
		if strings.Contains(text, secret) {
			t.Errorf("the store has %q", secret)
		}
	}
	if !strings.Contains(text, "sales") { // the search would find it
		t.Error("nothing is found at all")
	}
}

func TestTokenPrintsNothing(t *testing.T) {
	_, token := newWorld(t, nil).start(nil)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token)
	j, _ := json.Marshal(map[string]any{"token": token})
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %q", token, token, token, token, token), log.String(), string(j)} {
		if strings.Contains(text, token.Reveal()) || !strings.Contains(text, "***") {
			t.Errorf("printed as %s", text)
		}
	}
	for _, bad := range []string{"", "***", token.Reveal()[1:], token.Reveal() + "A", token.Reveal()[:42] + "=", token.Reveal()[:42] + "+", token.Reveal()[:42] + "\n", strings.Repeat("A", 42) + "B", strings.Repeat("A", 1<<16)} {
		if _, err := session.ParseToken(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%.50q: %v", bad, err)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	store, next := memstore.New(), bytes.Repeat([]byte{2}, 32)
	sealer, err := session.NewKeySealer(key)
	if err != nil {
		t.Fatal(err)
	}
	manager := func(keys ...[]byte) *session.Manager {
		m, err := session.New(store, sealer, keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	_, token, err := manager(key).Start(t.Context(), signIn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager(next).Check(t.Context(), token, york); !errors.Is(err, authn.ErrRefused) {
		t.Errorf("without the old key: %v", err)
	}
	both := manager(next, key)
	if _, err := both.Check(t.Context(), token, york); err != nil {
		t.Error(authn.Reason(err))
	}
	_, token, err = both.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, york)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager(next).Check(t.Context(), token, york); err != nil {
		t.Errorf("after a rotation under the new key: %v", authn.Reason(err))
	}
}

func TestNewRefuses(t *testing.T) {
	sealer, _ := session.NewKeySealer(key)
	for what, call := range map[string]func() (*session.Manager, error){
		"no store":  func() (*session.Manager, error) { return session.New(nil, sealer, [][]byte{key}, nil) },
		"no sealer": func() (*session.Manager, error) { return session.New(memstore.New(), nil, [][]byte{key}, nil) },
		"no key":    func() (*session.Manager, error) { return session.New(memstore.New(), sealer, nil, nil) },
		"a short key": func() (*session.Manager, error) {
			return session.New(memstore.New(), sealer, [][]byte{key, key[1:]}, nil)
		},
	} {
		if m, err := call(); err == nil || m != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, o := range map[string]session.Options{
		"idle of a second":   {Limits: session.Limits{Idle: time.Second}},
		"absolute of a year": {ByRole: map[string]session.Limits{"x": {Absolute: 365 * 24 * time.Hour}}},
		"negative sessions":  {Limits: session.Limits{Sessions: -1}},
		"fresh for a day":    {Rules: map[session.Act]session.Rule{session.Export: {Within: 24 * time.Hour}}},
		"SMS counts":         {Rules: map[session.Act]session.Rule{session.Export: {Methods: []authn.Method{authn.SMS}}}},
		"unknown method":     {Rules: map[session.Act]session.Rule{session.Export: {Methods: []authn.Method{"smile"}}}},
		"AAL3":               {Rules: map[session.Act]session.Rule{session.Export: {Level: 3}}},
		"unknown signal":     {Reactions: map[session.Signal]session.Reaction{"rain": session.Notify}},
		"unknown reaction":   {Reactions: map[session.Signal]session.Reaction{session.NewDevice: 9}},
	} {
		if _, err := session.New(memstore.New(), sealer, [][]byte{key}, &o); err == nil {
			t.Errorf("%s", what)
		}
	}
	if _, err := session.NewKeySealer(key[1:]); err == nil {
		t.Error("a short key of a sealer")
	}
}

func TestKeySealer(t *testing.T) {
	ctx := t.Context()
	s, err := session.NewKeySealer(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(ctx, "acme", "ann", []byte("secret"), []byte("here"))
	if err != nil || bytes.Contains(sealed, []byte("secret")) {
		t.Fatal(err)
	}
	if plain, err := s.Open(ctx, "acme", "ann", sealed, []byte("here")); err != nil || string(plain) != "secret" {
		t.Fatalf("%q, %v", plain, err)
	}
	for what, call := range map[string]func() ([]byte, error){
		"another tenant":  func() ([]byte, error) { return s.Open(ctx, "other", "ann", sealed, []byte("here")) },
		"another person":  func() ([]byte, error) { return s.Open(ctx, "acme", "bob", sealed, []byte("here")) },
		"another context": func() ([]byte, error) { return s.Open(ctx, "acme", "ann", sealed, []byte("there")) },
		"shifted":         func() ([]byte, error) { return s.Open(ctx, "acm", "eann", sealed, []byte("here")) },
		"cut short":       func() ([]byte, error) { return s.Open(ctx, "acme", "ann", sealed[:10], []byte("here")) },
		"nothing":         func() ([]byte, error) { return s.Open(ctx, "acme", "ann", nil, []byte("here")) },
	} {
		if plain, err := call(); err == nil || plain != nil {
			t.Errorf("%s: %q", what, plain)
		}
	}
}

// failing is a store that stops after so many calls.
type failing struct {
	session.Store
	left int
}

var errStopped = errors.New("the database has stopped")

func (f *failing) ok() error {
	if f.left--; f.left < 0 {
		return errStopped
	}
	return nil
}

func (f *failing) Find(ctx context.Context, h ...[]byte) (session.Record, uint64, error) {
	if err := f.ok(); err != nil {
		return session.Record{}, 0, err
	}
	return f.Store.Find(ctx, h...)
}

func (f *failing) Add(ctx context.Context, r session.Record, keep int) ([]string, error) {
	if err := f.ok(); err != nil {
		return nil, err
	}
	return f.Store.Add(ctx, r, keep)
}

func (f *failing) Replace(ctx context.Context, r session.Record) error {
	if err := f.ok(); err != nil {
		return err
	}
	return f.Store.Replace(ctx, r)
}

func (f *failing) End(ctx context.Context, e session.Ending) ([]string, error) {
	if err := f.ok(); err != nil {
		return nil, err
	}
	return f.Store.End(ctx, e)
}

// TestStoreStops: wherever the store stops, the answer is the one answer and the reason is the true one.
func TestStoreStops(t *testing.T) {
	ctx := t.Context()
	for left := range 3 {
		f := &failing{memstore.New(), 1000}
		w := newWorldOn(t, f, nil)
		_, token := w.start(nil)
		w.now = w.now.Add(2 * time.Minute)
		f.left = left
		in := signIn()
		in.Before = token
		if s, _, err := w.Start(ctx, in); left < 3 {
			w.refused(fmt.Sprintf("a sign-in after %d calls", left), s, err, errStopped)
		}
		f.left = 1000
		_, token = w.start(nil)
		w.now = w.now.Add(2 * time.Minute)
		if f.left = left; left < 2 {
			s, err := w.Check(ctx, token, york)
			w.refused(fmt.Sprintf("a check after %d calls", left), s, err, errStopped)
			f.left = left
			s, _, err = w.StepUp(ctx, token, []authn.Method{authn.TOTP}, york)
			w.refused(fmt.Sprintf("a step-up after %d calls", left), s, err, errStopped)
			f.left = 1000
			w.live("after all that", token, york)
		}
	}
	f := &failing{memstore.New(), 1000}
	w := newWorldOn(t, f, nil)
	_, token := w.start(nil)
	f.left = 0
	s, err := w.Check(ctx, token, visit("192.0.2.7", phone))
	w.refused("stopped while a risk was to end it", s, err, errStopped)
}

// touching is a store in which another request changes a session before each of the next changes.
type touching struct {
	session.Store
	t      *testing.T
	before func()
	times  int
}

func (s *touching) Replace(ctx context.Context, r session.Record) error {
	if s.times > 0 {
		s.times--
		s.before()
	}
	return s.Store.Replace(ctx, r)
}

// TestChangedMeanwhile: who comes second reads again; a step-up that comes second each time is refused in the end.
func TestChangedMeanwhile(t *testing.T) {
	ctx := t.Context()
	for _, times := range []int{1, 4, 5} {
		store := &touching{Store: memstore.New(), t: t}
		calm := &session.Options{Reactions: map[session.Signal]session.Reaction{session.TwoNetworks: session.Ignore}}
		w, other := newWorldOn(t, store, calm), newWorldOn(t, store.Store, calm)
		_, token := w.start(nil)
		w.now = w.now.Add(2 * time.Minute)
		other.now = w.now
		n := byte(0)
		store.before = func() { // from a new network each time, so that it writes
			n++
			if _, err := other.Check(ctx, token, session.Visit{Addr: netip.AddrFrom4([4]byte{10, 0, n, 1}), Agent: firefox}); err != nil {
				t.Error(authn.Reason(err))
			}
		}
		store.times = times
		if _, err := w.Check(ctx, token, york); err != nil { // after the first one there is nothing left to write
			t.Errorf("a check after %d changes: %v", times, authn.Reason(err))
		}
		store.times = times
		_, _, err := w.StepUp(ctx, token, []authn.Method{authn.TOTP}, york)
		if (err == nil) != (times < 5) {
			t.Errorf("a step-up after %d changes: %v (%v)", times, err, authn.Reason(err))
		}
	}
}

// TestSeenNeverGoesBack: not by a machine whose clock is behind either.
func TestSeenNeverGoesBack(t *testing.T) {
	w := newWorld(t, nil)
	s, token := w.start(nil)
	w.now = w.now.Add(-5 * time.Minute)
	if got := w.live("from another network", token, visit("203.0.113.1", firefox)); !got.Seen.Equal(s.Seen) || got.Expires.Before(s.Expires) {
		t.Errorf("%+v", got)
	}
	got, token, err := w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, york)
	if err != nil || !got.Seen.Equal(s.Seen) {
		t.Errorf("%+v, %v", got, authn.Reason(err))
	}
	w.now = s.Seen.Add(time.Minute)
	if got, _, err = w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, york); err != nil || !got.Seen.Equal(w.now) {
		t.Errorf("%+v, %v", got, authn.Reason(err))
	}
}

// TestStepUpByAnotherAgent: a stolen token steps nobody up.
func TestStepUpByAnotherAgent(t *testing.T) {
	w := newWorld(t, nil)
	_, token := w.start(nil)
	s, _, err := w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, visit("192.0.2.7", phone))
	w.refused("another agent", s, err, session.ErrRisk)
	var risk *session.RiskError
	if !errors.As(authn.Reason(err), &risk) || risk.Person == "" || risk.Session == "" || !slices.Equal(risk.Signals, []session.Signal{session.ChangedAgent}) {
		t.Errorf("whose session it was: %+v", risk)
	}
	if strings.Contains(err.Error(), risk.Person) || strings.Contains(authn.Reason(err).Error(), risk.Session) {
		t.Error("an error names somebody")
	}
	w.dead("and the session is gone", token, session.ErrNone)
	w = newWorld(t, &session.Options{Reactions: map[session.Signal]session.Reaction{session.ChangedAgent: session.DemandStepUp}})
	_, token = w.start(nil)
	s, fresh, err := w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, visit("192.0.2.7", phone))
	if err != nil || s.Device.System != "Android" {
		t.Fatalf("%+v, %v", s, authn.Reason(err))
	}
	w.live("believed from here on", fresh, visit("192.0.2.7", phone))
}

// TestListShowsTheLiving: what has expired is not listed, and signals are, once each.
func TestListShowsTheLiving(t *testing.T) {
	w := newWorld(t, &session.Options{Reactions: map[session.Signal]session.Reaction{session.TwoNetworks: session.Notify}})
	w.start(nil)
	w.now = w.now.Add(20 * time.Minute)
	s, token := w.start(nil)
	for i := range 6 {
		w.now = w.now.Add(time.Second)
		w.live("to and fro", token, []session.Visit{visit("203.0.113.1", firefox), york}[i%2])
	}
	w.now = w.now.Add(20 * time.Minute)
	all, err := w.List(t.Context(), "acme", "ann")
	if err != nil || len(all) != 1 || all[0].ID != s.ID || !slices.Equal(all[0].Signals, []session.Signal{session.TwoNetworks}) {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestShorterLimits: a session that the limits of new roles have ended does not serve once more.
func TestShorterLimits(t *testing.T) {
	w := newWorld(t, &session.Options{
		ByRole: map[string]session.Limits{"admin": {Idle: 5 * time.Minute}},
		Roles:  func(context.Context, string, string, []authn.Method) ([]string, error) { return []string{"admin"}, nil },
	})
	_, token := w.start(nil)
	if err := w.RightsChanged(t.Context(), "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(6 * time.Minute)
	w.dead("six minutes without use", token, session.ErrExpired)
	w.dead("again", token, session.ErrExpired)
}

// TestParallel: many requests of one session with a step-up among them: the session serves on under one token.
func TestParallel(t *testing.T) {
	w := newWorld(t, nil)
	_, token := w.start(nil)
	w.now = w.now.Add(2 * time.Minute)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var fresh []session.Token
	for i := range 20 {
		wg.Go(func() {
			if i%5 != 0 {
				_, err := w.Check(t.Context(), token, york)
				if err != nil && !errors.Is(authn.Reason(err), session.ErrNone) {
					t.Errorf("%v", authn.Reason(err))
				}
				return
			}
			if _, n, err := w.StepUp(t.Context(), token, []authn.Method{authn.TOTP}, york); err == nil {
				mu.Lock()
				fresh = append(fresh, n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(fresh) != 1 {
		t.Fatalf("%d step-ups of one token", len(fresh))
	}
	w.dead("the token before", token, session.ErrNone)
	w.live("the token after", fresh[0], york)
}

func TestCookie(t *testing.T) {
	_, token := newWorld(t, nil).start(nil)
	for _, c := range []struct {
		cookie session.Cookie
		want   string
	}{
		{session.Cookie{}, "__Host-session=" + token.Reveal() + "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{session.Cookie{Name: "crm", Strict: true}, "__Host-crm=" + token.Reveal() + "; Path=/; HttpOnly; Secure; SameSite=Strict"},
		{session.Cookie{InsecureHTTP: true}, "session=" + token.Reveal() + "; Path=/; HttpOnly; SameSite=Lax"},
	} {
		w := httptest.NewRecorder()
		if err := c.cookie.Write(w, token); err != nil {
			t.Fatal(err)
		}
		if got := w.Header().Get("Set-Cookie"); got != c.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s", got)
		}
		r := httptest.NewRequest(http.MethodGet, "https://crm.example.com/", nil)
		for _, set := range w.Result().Cookies() {
			r.AddCookie(set)
		}
		if c.cookie.Read(r) != token {
			t.Error("not read back")
		}
		r.AddCookie(w.Result().Cookies()[0])
		if got := c.cookie.Read(r); got != (session.Token{}) {
			t.Error("one of two is taken")
		}
		w = httptest.NewRecorder()
		c.cookie.Clear(w)
		if h := w.Header(); !strings.Contains(h.Get("Set-Cookie"), "Max-Age=0") || h.Get("Clear-Site-Data") != `"cache", "cookies", "storage"` {
			t.Errorf("%v", h)
		}
	}
	if err := (session.Cookie{}).Write(httptest.NewRecorder(), session.Token{}); err == nil {
		t.Error("a cookie of no token")
	}
	for what, header := range map[string]string{
		"none": "", "another": "session=" + token.Reveal(), "empty": "__Host-session=", "malformed": "__Host-session=x", "long": "__Host-session=" + strings.Repeat("A", 5000),
		"quoted": `__Host-session="` + token.Reveal()[:41] + `"`,
	} {
		r := httptest.NewRequest(http.MethodGet, "https://crm.example.com/?session="+token.Reveal()+"&__Host-session="+token.Reveal(), nil)
		r.Header.Set("Cookie", header)
		if got := (session.Cookie{}).Read(r); got != (session.Token{}) {
			t.Errorf("%s is a token", what)
		}
	}
}

func TestDevices(t *testing.T) {
	for agent, want := range map[string]string{
		firefox: "Firefox, Linux, computer",
		phone:   "Chrome, Android, phone",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0":                                                   "Edge, Windows, computer",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15":                                                       "Safari, macOS, computer",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x18003237) NetType/WIFI Language/zh_CN": "WeChat, iOS, phone",
		"Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36":                                                              "Chrome, Android, tablet",
		"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.0.0 Mobile/15E148 Safari/604.1":                                           "Chrome, iOS, tablet",
		"curl/8.14.1":                    "other, other, program",
		"":                               "other, other, program",
		"Mozilla/5.0":                    "other, other, computer",
		strings.Repeat("x", 1<<20):       "other, other, program",
		"<script>alert(1)</script>\x00é": "other, other, program",
	} {
		if got := session.ParseDevice(agent).String(); got != want {
			t.Errorf("%.60q: %s, want %s", agent, got, want)
		}
	}
	for addr, want := range map[string]string{"192.0.2.77": "192.0.2.0/24", "::ffff:192.0.2.77": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48"} {
		if got := session.NetworkOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := session.NetworkOf(netip.Addr{}); got != "" {
		t.Errorf("no address: %s", got)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "[2001:db8::1]:443"
	if v := session.VisitOf(r); v.Addr.String() != "2001:db8::1" {
		t.Errorf("%v", v)
	}
	r.RemoteAddr = "@"
	if v := session.VisitOf(r); v.Addr.IsValid() {
		t.Errorf("%v", v)
	}
}

// TestShownElsewhere: what was shown to a provider counts for the level, and as fresh no longer than it was.
func TestShownElsewhere(t *testing.T) {
	rule := session.Rule{Methods: []authn.Method{authn.OIDC, authn.TOTP}, Level: authn.AAL1}
	w := newWorld(t, &session.Options{Rules: map[session.Act]session.Rule{session.Reveal: rule, session.Factors: {Methods: rule.Methods}}})
	proofs := func(age time.Duration) []session.Proof {
		return []session.Proof{{Method: authn.OIDC, At: w.now.Add(-age)}, {Method: authn.Password, At: w.now.Add(-age)}}
	}
	for age, fresh := range map[time.Duration]bool{time.Minute: true, 5 * time.Minute: false, 9 * time.Hour: false} {
		s, token := w.start(func(in *session.SignIn) { in.Methods, in.Shown = nil, proofs(age) })
		if s.Level != authn.AAL1 || (w.Fresh(s, session.Reveal) == nil) != fresh || w.Fresh(s, session.Factors) == nil {
			t.Errorf("%s ago: %s, fresh is %v", age, s.Level, w.Fresh(s, session.Reveal))
		}
		w.live("shown elsewhere", token, york)
	}
	s, _ := w.start(func(in *session.SignIn) { in.Methods, in.Shown = []authn.Method{authn.TOTP}, proofs(time.Hour) })
	if s.Level != authn.AAL2 || w.Fresh(s, session.Reveal) != nil {
		t.Errorf("with a code now: %s", s.Level)
	}
	for what, change := range map[string]func(*session.SignIn){
		"a proof of no time":  func(in *session.SignIn) { in.Shown = []session.Proof{{Method: authn.OIDC}} },
		"a proof of tomorrow": func(in *session.SignIn) { in.Shown = proofs(-24 * time.Hour) },
		"what reaches no level": func(in *session.SignIn) {
			in.Methods, in.Shown = nil, []session.Proof{{Method: authn.Email, At: w.now}}
		},
		"nothing, now or before": func(in *session.SignIn) { in.Methods = nil },
	} {
		in := signIn()
		change(&in)
		if s, _, err := w.Start(t.Context(), in); s != nil || !errors.Is(err, authn.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
