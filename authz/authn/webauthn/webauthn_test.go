package webauthn_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/authz/authn/webauthn/memstore"
)

var (
	key  = bytes.Repeat([]byte{1}, 32)
	site = webauthn.Site{ID: rpID, Name: "CRM", Origins: []string{origin}}
)

type world struct {
	*webauthn.Passkeys
	t     testing.TB
	store webauthn.Store
	now   time.Time
}

func newWorld(t testing.TB, opts *webauthn.Options) *world {
	t.Helper()
	w := &world{t: t, store: memstore.New(), now: time.Now().Truncate(time.Millisecond)}
	o := webauthn.Options{}
	if opts != nil {
		o = *opts
	}
	o.Now = func() time.Time { return w.now }
	sealer, err := session.NewKeySealer(key)
	if err != nil {
		t.Fatal(err)
	}
	if w.Passkeys, err = webauthn.New(site, w.store, &once.Memory{}, sealer, key, &o); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) enrol(person string, d *device) (*webauthn.Credential, error) {
	w.t.Helper()
	options, secret, err := w.BeginEnrolment(w.t.Context(), "acme", person, webauthn.Names{Account: person, Display: person})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.FinishEnrolment(w.t.Context(), secret, "phone", d.create(options))
}

func (w *world) enrolled(person string, eddsa bool) *device {
	w.t.Helper()
	d := newDevice(w.t, eddsa)
	if _, err := w.enrol(person, d); err != nil {
		w.t.Fatal(authn.Reason(err))
	}
	return d
}

func (w *world) signIn(d *device) (*webauthn.Credential, error) {
	w.t.Helper()
	options, secret, err := w.BeginSignIn(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return w.FinishSignIn(w.t.Context(), secret, d.get(options))
}

func (w *world) check(person string, d *device) (*webauthn.Credential, error) {
	w.t.Helper()
	options, secret, err := w.BeginCheck(w.t.Context(), "acme", person)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.FinishCheck(w.t.Context(), secret, d.get(options))
}

func refused(t testing.TB, what string, c *webauthn.Credential, err, reason error) {
	t.Helper()
	if c != nil || !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error() || !errors.Is(authn.Reason(err), reason) {
		t.Errorf("%s: %+v, %v (%v), want %v inside", what, c, err, authn.Reason(err), reason)
	}
}

func TestPasskeys(t *testing.T) {
	for name, eddsa := range map[string]bool{"ES256": false, "EdDSA": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			d := newDevice(t, eddsa)
			c, err := w.enrol("ann", d)
			if err != nil {
				t.Fatal(authn.Reason(err))
			}
			if c.Person != "ann" || c.Tenant != "acme" || c.Name != "phone" || c.ID != b64(d.id) || !slices.Equal(c.Transports, []string{"internal"}) || !c.LastUsed.IsZero() {
				t.Fatalf("%+v", c)
			}
			w.now = w.now.Add(time.Hour)
			for range 3 {
				c, err = w.signIn(d)
				if err != nil || c.Person != "ann" || !c.LastUsed.Equal(w.now) {
					t.Fatalf("%+v, %v", c, authn.Reason(err))
				}
				c, err = w.check("ann", d)
				if err != nil || c.Person != "ann" {
					t.Fatalf("%+v, %v", c, authn.Reason(err))
				}
			}
		})
	}
}

func TestOptions(t *testing.T) {
	w := newWorld(t, nil)
	d := w.enrolled("ann", false)
	raw, secret, err := w.BeginEnrolment(t.Context(), "acme", "ann", webauthn.Names{Account: "ann@example.com", Display: "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	o := parse(t, raw)
	if o.RP.ID != rpID || o.AuthenticatorSelection.UserVerification != "required" || o.AuthenticatorSelection.ResidentKey != "required" || o.Attestation != "none" && o.Attestation != "" ||
		len(o.ExcludeCredentials) != 1 || o.ExcludeCredentials[0].ID != b64(d.id) || o.User.ID != b64(d.handle) || len(d.handle) != 32 || len(secret) < 43 {
		t.Errorf("%+v", o)
	}
	if raw, _, err = w.BeginSignIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := parse(t, raw); o.UserVerification != "required" || len(o.AllowCredentials) != 0 || o.RPID != rpID {
		t.Errorf("%+v", o)
	}
	if raw, _, err = w.BeginCheck(t.Context(), "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	if o := parse(t, raw); o.UserVerification != "required" || len(o.AllowCredentials) != 1 {
		t.Errorf("%+v", o)
	}
	if _, _, err := w.BeginCheck(t.Context(), "acme", "bob"); !errors.Is(err, webauthn.ErrUnknown) {
		t.Errorf("nobody's credential: %v", err)
	}
	if _, _, err := w.BeginEnrolment(t.Context(), "acme", "", webauthn.Names{Account: "x"}); err == nil {
		t.Error("nobody enrols")
	}
}

// TestAttacks: each of them on an enrolment, a sign-in and a second factor. The same device without the attack is
// accepted.
func TestAttacks(t *testing.T) {
	attacks := map[string]func(*device){
		"another origin":          func(d *device) { d.origin = "https://crm.example.com.evil.test" },
		"a subdomain":             func(d *device) { d.origin = "https://evil.crm.example.com" },
		"another port":            func(d *device) { d.origin = "https://crm.example.com:8443" },
		"without TLS":             func(d *device) { d.origin = "http://crm.example.com" },
		"no origin":               func(d *device) { d.origin = "" },
		"another relying party":   func(d *device) { d.rpID = "evil.test" },
		"the parent domain":       func(d *device) { d.rpID = "example.com" },
		"another challenge":       func(d *device) { d.challenge = b64(make([]byte, 32)) },
		"no challenge":            func(d *device) { d.challenge = "AA" },
		"the user is not there":   func(d *device) { d.flags = verified },
		"not verified":            func(d *device) { d.flags = present },
		"backed up, not eligible": func(d *device) { d.flags |= backedUp },
		"another ceremony":        func(d *device) { d.kind = "webauthn.other" },
		"a payment":               func(d *device) { d.kind = "payment.get" },
		"in a frame":              func(d *device) { d.crossOrigin = true },
	}
	for what, attack := range attacks {
		w := newWorld(t, nil)
		d := newDevice(t, false)
		attack(d)
		c, err := w.enrol("ann", d)
		refused(t, "enrolment: "+what, c, err, webauthn.ErrInvalid)

		d = w.enrolled("ann", false)
		good := *d
		attack(d)
		c, err = w.signIn(d)
		refused(t, "sign-in: "+what, c, err, webauthn.ErrInvalid)
		d.count = good.count
		c, err = w.check("ann", d)
		refused(t, "check: "+what, c, err, webauthn.ErrInvalid)
		if _, err := w.signIn(&good); err != nil {
			t.Errorf("without the attack (%s): %v", what, authn.Reason(err))
		}
	}
}

func TestOfAnother(t *testing.T) {
	w := newWorld(t, nil)
	ann, bob := w.enrolled("ann", false), w.enrolled("bob", true)
	c, err := w.check("ann", bob)
	refused(t, "bob's credential for ann", c, err, webauthn.ErrUnknown)
	// Ann's handle with bob's credential, and the other way round.
	thief := *bob
	thief.handle = ann.handle
	c, err = w.signIn(&thief)
	refused(t, "bob's credential with ann's handle", c, err, webauthn.ErrInvalid)
	thief = *ann
	thief.signer = bob.signer
	c, err = w.signIn(&thief)
	refused(t, "ann's credential signed by bob", c, err, webauthn.ErrInvalid)
	thief = *ann
	thief.noHandle = true
	c, err = w.signIn(&thief)
	refused(t, "no handle", c, err, webauthn.ErrInvalid)
	c, err = w.signIn(newDevice(t, false))
	refused(t, "never enrolled", c, err, webauthn.ErrUnknown)
	thief = *ann
	c, err = w.enrol("mallory", &thief)
	refused(t, "ann's credential enrolled by another", c, err, webauthn.ErrExists)
	if c, err := w.signIn(ann); err != nil || c.Person != "ann" {
		t.Errorf("%+v, %v", c, authn.Reason(err))
	}
}

func TestReplay(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, nil)
	d := w.enrolled("ann", false)
	options, secret, err := w.BeginSignIn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	response := d.get(options)
	if _, err := w.FinishSignIn(ctx, secret, response); err != nil {
		t.Fatal(authn.Reason(err))
	}
	c, err := w.FinishSignIn(ctx, secret, response)
	refused(t, "the same again", c, err, webauthn.ErrCeremony)
	_, other, _ := w.BeginSignIn(ctx)
	c, err = w.FinishSignIn(ctx, other, response)
	refused(t, "in another ceremony", c, err, webauthn.ErrInvalid)
	c, err = w.FinishSignIn(ctx, other, d.get(options))
	refused(t, "after a wrong try", c, err, webauthn.ErrCeremony)

	options, secret, _ = w.BeginSignIn(ctx)
	w.now = w.now.Add(5 * time.Minute)
	c, err = w.FinishSignIn(ctx, secret, d.get(options))
	refused(t, "too late", c, err, webauthn.ErrCeremony)

	options, secret, _ = w.BeginSignIn(ctx)
	c, err = w.FinishCheck(ctx, secret, d.get(options))
	refused(t, "a sign-in as a check", c, err, webauthn.ErrCeremony)
	options, secret, _ = w.BeginCheck(ctx, "acme", "ann")
	c, err = w.FinishSignIn(ctx, secret, d.get(options))
	refused(t, "a check as a sign-in", c, err, webauthn.ErrCeremony)
	options, secret, _ = w.BeginCheck(ctx, "acme", "ann")
	c, err = w.FinishEnrolment(ctx, secret, "", d.get(options))
	refused(t, "a check as an enrolment", c, err, webauthn.ErrCeremony)
	for _, secret := range []string{"", "x", strings.Repeat("x", 1<<16)} {
		c, err = w.FinishSignIn(ctx, secret, response)
		refused(t, "made up", c, err, webauthn.ErrCeremony)
	}
}

func TestMalformed(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, nil)
	d := w.enrolled("ann", false)
	good := d.get(func() json.RawMessage { o, _, _ := w.BeginSignIn(ctx); return o }())
	for _, bad := range [][]byte{nil, {}, []byte("null"), []byte("{}"), []byte("[]"), good[:len(good)-1], bytes.Repeat([]byte{'{'}, 1<<20), append(good, good...), []byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{}}`)} {
		_, secret, _ := w.BeginSignIn(ctx)
		c, err := w.FinishSignIn(ctx, secret, bad)
		refused(t, fmt.Sprintf("%.40q", bad), c, err, webauthn.ErrInvalid)
		_, secret, _ = w.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann"})
		c, err = w.FinishEnrolment(ctx, secret, "", bad)
		refused(t, fmt.Sprintf("enrolment %.40q", bad), c, err, webauthn.ErrInvalid)
	}
}

// TestOversized: a right answer with too much around it.
func TestOversized(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, nil)
	d := newDevice(t, false)
	space := bytes.Repeat([]byte(" "), 64<<10)
	options, secret, err := w.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.FinishEnrolment(ctx, secret, "", append(bytes.Clone(space), d.create(options)...))
	refused(t, "enrolment", c, err, webauthn.ErrInvalid)
	d = w.enrolled("ann", false)
	if options, secret, err = w.BeginSignIn(ctx); err != nil {
		t.Fatal(err)
	}
	c, err = w.FinishSignIn(ctx, secret, append(bytes.Clone(space), d.get(options)...))
	refused(t, "sign-in", c, err, webauthn.ErrInvalid)
	if options, secret, err = w.BeginSignIn(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err = w.FinishSignIn(ctx, secret, append(space[:1000], d.get(options)...)); err != nil {
		t.Errorf("with a little around it: %v", authn.Reason(err))
	}
}

// TestFlippedBytes: each byte of what is signed, and of the signature.
func TestFlippedBytes(t *testing.T) {
	for name, eddsa := range map[string]bool{"ES256": false, "EdDSA": true} {
		w := newWorld(t, nil)
		d := w.enrolled("ann", eddsa)
		flips := 0
		for part := range 3 {
			for i := 0; ; i++ {
				done := false
				try := *d
				try.spoil = func(a, c, s []byte) ([]byte, []byte, []byte) {
					b := [][]byte{bytes.Clone(a), bytes.Clone(c), bytes.Clone(s)}
					if i >= len(b[part]) {
						done = true
						return a, c, s
					}
					b[part][i] ^= 1
					return b[0], b[1], b[2]
				}
				c, err := w.signIn(&try)
				if done {
					if err != nil {
						t.Fatalf("%s, nothing flipped: %v", name, authn.Reason(err))
					}
					d.count = try.count
					break
				}
				flips++
				refused(t, fmt.Sprintf("%s, part %d, byte %d", name, part, i), c, err, webauthn.ErrInvalid)
			}
		}
		if flips < 200 {
			t.Errorf("%d flips", flips)
		}
	}
}

func TestClone(t *testing.T) {
	w := newWorld(t, nil)
	d := w.enrolled("ann", false)
	other := w.enrolled("ann", true)
	for range 3 {
		if _, err := w.signIn(d); err != nil {
			t.Fatal(authn.Reason(err))
		}
	}
	copied := *d
	copied.count = 1
	c, err := w.signIn(&copied)
	var cloned *webauthn.ClonedError
	if c != nil || !errors.Is(err, authn.ErrRefused) || !errors.As(authn.Reason(err), &cloned) || cloned.Person != "ann" || cloned.Tenant != "acme" || cloned.ID != b64(d.id) {
		t.Fatalf("%+v, %v", c, authn.Reason(err))
	}
	for what, dev := range map[string]*device{"the original": d, "the copy, far ahead": {t: t, id: d.id, handle: d.handle, signer: d.signer, count: 1000, origin: origin, rpID: rpID, flags: d.flags, step: 1}} {
		c, err := w.signIn(dev)
		if c != nil || !errors.As(authn.Reason(err), &cloned) {
			t.Errorf("%s: %+v, %v", what, c, authn.Reason(err))
		}
	}
	all, err := w.List(t.Context(), "acme", "ann")
	if err != nil || len(all) != 2 || all[0].Cloned.IsZero() == all[1].Cloned.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := w.signIn(other); err != nil {
		t.Errorf("another credential of ann: %v", authn.Reason(err))
	}
	// Equal counters are a clone as well, and those that never count are none.
	d = w.enrolled("bob", false)
	if _, err := w.signIn(d); err != nil {
		t.Fatal(authn.Reason(err))
	}
	d.step = 0
	if c, err := w.signIn(d); c != nil || !errors.As(authn.Reason(err), &cloned) {
		t.Errorf("%+v, %v", c, authn.Reason(err))
	}
	d = newDevice(t, false)
	d.step, d.flags = 0, d.flags|eligible
	if _, err := w.enrol("bob", d); err != nil {
		t.Fatal(authn.Reason(err))
	}
	d.flags |= backedUp
	for range 2 {
		if c, err := w.signIn(d); err != nil || !c.Synced {
			t.Errorf("%+v, %v", c, authn.Reason(err))
		}
	}
	d.flags &^= eligible | backedUp
	c, err = w.signIn(d)
	refused(t, "no longer eligible", c, err, webauthn.ErrInvalid)
}

func TestModels(t *testing.T) {
	model, another := [16]byte{1, 2, 3}, [16]byte{9}
	a, rogue, b := newAttester(t, model), newAttester(t, model), newAttester(t, another)
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	w := newWorld(t, &webauthn.Options{Models: map[[16]byte]*x509.CertPool{model: pool}})
	raw, _, err := w.BeginEnrolment(t.Context(), "acme", "ann", webauthn.Names{Account: "ann"})
	if o := parse(t, raw); err != nil || o.Attestation != "direct" {
		t.Errorf("%+v, %v", o, err)
	}
	d := newDevice(t, false)
	d.model, d.format, d.attest = model, "packed", a
	if c, err := w.enrol("ann", d); err != nil || c.Model != model {
		t.Fatalf("%+v, %v", c, authn.Reason(err))
	}
	if _, err := w.signIn(d); err != nil {
		t.Error(authn.Reason(err))
	}
	for what, c := range map[string]struct {
		model  [16]byte
		format string
		attest *attester
		want   error
	}{
		"no attestation":                     {model, "none", nil, webauthn.ErrModel},
		"its own word":                       {model, "packed", nil, webauthn.ErrModel},
		"another authority":                  {model, "packed", rogue, webauthn.ErrModel},
		"another model":                      {another, "packed", b, webauthn.ErrModel},
		"a model without name":               {[16]byte{}, "none", nil, webauthn.ErrModel},
		"a certificate of another model":     {model, "packed", b, webauthn.ErrInvalid},
		"the certificate, for another model": {another, "packed", a, webauthn.ErrInvalid},
	} {
		d := newDevice(t, false)
		d.model, d.format, d.attest = c.model, c.format, c.attest
		got, err := w.enrol("ann", d)
		refused(t, what, got, err, c.want)
	}
	d = newDevice(t, false)
	d.model, d.format, d.attest = model, "packed", a
	d.spoil = func(a, c, s []byte) ([]byte, []byte, []byte) { a[len(a)-1] ^= 1; return a, c, s } // the key is not the one that was attested
	c, err := w.enrol("ann", d)
	refused(t, "another key", c, err, webauthn.ErrInvalid)
}

func TestListRenameRemove(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, &webauthn.Options{Most: 3})
	d := w.enrolled("ann", false)
	w.now = w.now.Add(time.Second)
	w.enrolled("ann", true)
	w.now = w.now.Add(time.Second)
	w.enrolled("ann", true)
	if _, _, err := w.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann"}); !errors.Is(err, webauthn.ErrTooMany) {
		t.Errorf("a fourth: %v", err)
	}
	id := b64(d.id)
	if err := w.Rename(ctx, "acme", "ann", id, "手机 📱"); err != nil {
		t.Fatal(err)
	}
	all, err := w.List(ctx, "acme", "ann")
	if err != nil || len(all) != 3 || all[0].Name != "手机 📱" || all[1].Name != "phone" {
		t.Fatalf("%+v, %v", all, err)
	}
	stored, err := w.store.Find(ctx, d.id)
	if err != nil || bytes.Contains(stored.Name, []byte("手机")) {
		t.Errorf("the name is stored in the clear: %v", err)
	}
	for _, name := range []string{"", strings.Repeat("x", 61), "a\nb", "\xff"} {
		if err := w.Rename(ctx, "acme", "ann", id, name); err == nil {
			t.Errorf("%q", name)
		}
	}
	for what, err := range map[string]error{
		"bob renames": w.Rename(ctx, "acme", "bob", id, "x"), "another tenant renames": w.Rename(ctx, "other", "ann", id, "x"), "bob removes": w.Remove(ctx, "acme", "bob", id),
		"no id": w.Remove(ctx, "acme", "ann", ""), "no base64": w.Remove(ctx, "acme", "ann", "!"),
	} {
		if !errors.Is(err, webauthn.ErrUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	options, secret, err := w.BeginCheck(ctx, "acme", "ann")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx, "acme", "ann", id); err != nil {
		t.Fatal(err)
	}
	c, err := w.FinishCheck(ctx, secret, d.get(options))
	refused(t, "removed meanwhile", c, err, webauthn.ErrUnknown)
	c, err = w.signIn(d)
	refused(t, "removed", c, err, webauthn.ErrUnknown)
}

// TestForgedRows: a public key or an owner that was exchanged in the store signs nobody in.
func TestForgedRows(t *testing.T) {
	ctx := t.Context()
	for what, change := range map[string]func(r *webauthn.Record, mallory webauthn.Record){
		"mallory's key in ann's row":  func(r *webauthn.Record, m webauthn.Record) { r.PublicKey = m.PublicKey },
		"mallory's row under ann":     func(r *webauthn.Record, m webauthn.Record) { *r = m; r.Person = "ann" },
		"mallory's row, ann's handle": func(r *webauthn.Record, m webauthn.Record) { h := r.Handle; *r = m; r.Person, r.Handle = "ann", h },
		"another tenant":              func(r *webauthn.Record, _ webauthn.Record) { r.Tenant = "other" },
		"eligible":                    func(r *webauthn.Record, _ webauthn.Record) { r.BackupEligible = true },
		"no MAC":                      func(r *webauthn.Record, _ webauthn.Record) { r.MAC = nil },
	} {
		w := newWorld(t, nil)
		ann, mallory := w.enrolled("ann", false), w.enrolled("mallory", false)
		r, _ := w.store.Find(ctx, ann.id)
		m, _ := w.store.Find(ctx, mallory.id)
		w.store.Remove(ctx, "acme", "ann", ann.id)
		w.store.Remove(ctx, "acme", "mallory", mallory.id)
		change(&r, m)
		if err := w.store.Add(ctx, r, 9); err != nil {
			t.Fatal(err)
		}
		d := *mallory
		d.id, d.handle = r.ID, r.Handle
		if strings.HasPrefix(what, "another") || what == "eligible" || what == "no MAC" {
			d.signer = ann.signer
		}
		c, err := w.signIn(&d)
		refused(t, what, c, err, webauthn.ErrForged)
	}
}

// stopped is a store that has stopped.
type stopped struct{ webauthn.Store }

var errStopped = errors.New("the database has stopped")

func (stopped) Find(context.Context, []byte) (webauthn.Record, error) {
	return webauthn.Record{}, errStopped
}
func (stopped) Add(context.Context, webauthn.Record, int) error { return errStopped }

func TestStoreStops(t *testing.T) {
	store, states := memstore.New(), &once.Memory{}
	sealer, _ := session.NewKeySealer(key)
	good, err := webauthn.New(site, store, states, sealer, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	bad, _ := webauthn.New(site, stopped{store}, states, sealer, key, nil)
	w := &world{Passkeys: good, t: t, store: store}
	d := w.enrolled("ann", false)
	w.Passkeys = bad
	c, err := w.signIn(d)
	refused(t, "sign-in", c, err, errStopped)
	c, err = w.enrol("ann", newDevice(t, false))
	refused(t, "enrolment", c, err, errStopped)
}

func TestNewRefuses(t *testing.T) {
	sealer, _ := session.NewKeySealer(key)
	for what, s := range map[string]webauthn.Site{
		"no origin": {ID: rpID, Name: "x"}, "without TLS": {ID: rpID, Name: "x", Origins: []string{"http://crm.example.com"}}, "a path": {ID: rpID, Name: "x", Origins: []string{origin + "/x"}},
		"no id": {Name: "x", Origins: []string{origin}}, "no host": {ID: rpID, Name: "x", Origins: []string{"https://"}},
	} {
		if p, err := webauthn.New(s, memstore.New(), &once.Memory{}, sealer, key, nil); err == nil {
			t.Errorf("%s: %v", what, p)
		}
	}
	for what, o := range map[string]webauthn.Options{
		"no model": {Models: map[[16]byte]*x509.CertPool{}}, "no authority": {Models: map[[16]byte]*x509.CertPool{{1}: nil}}, "negative": {Most: -1}, "negative expiry": {Expiry: -1},
	} {
		if _, err := webauthn.New(site, memstore.New(), &once.Memory{}, sealer, key, &o); err == nil {
			t.Error(what)
		}
	}
	if _, err := webauthn.New(site, memstore.New(), &once.Memory{}, sealer, key[1:], nil); err == nil {
		t.Error("a short key")
	}
}
