package outbox_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// rig is an outbox over everything that it stands on.
type rig struct {
	*outbox.Outbox
	outbox.Records
	store     crm.Store
	guard     *guard.Guard
	keeper    *encrypt.Keeper
	slow      *encrypt.Keeper // of the same keys, whose erasures have a grace
	log       *audit.Log
	customers *guard.Records[*crm.Customer]
	contracts *guard.Records[*crm.Contract]

	mu   sync.Mutex
	now  time.Time
	left map[string]bool // employees who are not there any more

	admin, sales, system guard.Caller
}

type sealer struct{ k *encrypt.Keeper }

func (s sealer) SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plain []byte) ([]byte, error) {
	return s.k.SealFor(ctx, tenant, person, "log", ad, plain)
}

func (s sealer) OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	return s.k.OpenFor(ctx, tenant, person, "log", ad, sealed)
}

func as(role string, n byte, team string) guard.Caller {
	id := crm.UUID{6: 0x70, 8: 0x80, 15: n}
	return guard.Caller{Subject: authz.Subject{ID: id.String(), Tenant: "default", Roles: []string{role}, Team: team, Active: true}}
}

func newRig(t testing.TB, opts *outbox.Options) *rig {
	t.Helper()
	return newRigOn(t, memstore.New(), keys.NewMemory(), auditmem.New(), t.TempDir(), opts)
}

func newRigOn(t testing.TB, store crm.Store, keyStore keys.Store, events driver.Store, dir string, opts *outbox.Options) *rig {
	t.Helper()
	ctx := t.Context()
	r := &rig{store: store, now: time.Now().UTC().Truncate(time.Second), left: map[string]bool{}}
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	require.NoError(t, err)
	r.keeper, err = encrypt.NewKeeper(kek, keyStore, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	r.slow, err = encrypt.NewKeeper(kek, keyStore, nil)
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	r.log, err = audit.Open(ctx, events, signer, &audit.Options{Sealer: sealer{r.keeper}})
	require.NoError(t, err)
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	r.guard, _, err = guard.New(ctx, store, r.keeper, policy, r.log, &guard.Options{Clock: r.clock})
	require.NoError(t, err)
	r.customers, err = guard.For[*crm.Customer](ctx, r.guard, nil)
	require.NoError(t, err)
	r.contracts, err = guard.For[*crm.Contract](ctx, r.guard, nil)
	require.NoError(t, err)
	r.Endpoints, err = guard.For[*outbox.Endpoint](ctx, r.guard, nil)
	require.NoError(t, err)
	r.Deliveries, err = guard.For[*outbox.Delivery](ctx, r.guard, nil)
	require.NoError(t, err)
	r.Cursors, err = guard.For[*outbox.Cursor](ctx, r.guard, nil)
	require.NoError(t, err)
	r.system = guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	r.admin, r.sales = as("admin", 1, "/hq/"), as("sales", 2, "/east/1/")
	o := outbox.Options{}
	if opts != nil {
		o = *opts
	}
	o.Clock = r.clock
	o.Caller = func(_ context.Context, id crm.ID[crm.Employee]) (guard.Caller, bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.admin, id.String() == r.admin.Subject.ID && !r.left[id.String()], nil
	}
	r.Outbox = outbox.New(r.guard, r.Records, r.system, &o, outbox.From(r.customers), outbox.From(r.contracts))
	return r
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// each runs a test on every store.
func each(t *testing.T, test func(t *testing.T, store crm.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, memstore.New()) })
	t.Run("SQLite", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the race detector makes SQLite very slow")
		}
		w, rd, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { rd.Close(); w.Close() })
		s, err := sqlstore.Open(t.Context(), w, rd, dialect.SQLite)
		require.NoError(t, err)
		test(t, s)
	})
	t.Run("Postgres", func(t *testing.T) {
		p := realtest.Postgres(t)
		s, err := sqlstore.Open(t.Context(), p.DB, p.DB, dialect.Postgres)
		require.NoError(t, err)
		test(t, s)
	})
}

// message is what a receiver got.
type message struct {
	id   string
	head http.Header
	body []byte
	Type string `json:"type"`
	Data struct {
		RecordType string         `json:"record_type"`
		ID         string         `json:"id"`
		Version    int64          `json:"version"`
		Deleted    bool           `json:"deleted"`
		Fields     map[string]any `json:"fields"`
		Masked     []string       `json:"masked"`
		Erased     []string       `json:"erased"`
	} `json:"data"`
}

// receiver is a real HTTPS server that keeps what it got and answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []message
	answer func(w http.ResponseWriter, r *http.Request)
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	v := &receiver{}
	v.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m := message{id: r.Header.Get("webhook-id"), head: r.Header.Clone(), body: body}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Errorf("a body that is not JSON: %v", err)
		}
		v.mu.Lock()
		v.got = append(v.got, m)
		answer := v.answer
		v.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	v.Config.ErrorLog = nil
	t.Cleanup(v.Close)
	return v
}

func (v *receiver) options() *outbox.Options {
	pool := x509.NewCertPool()
	pool.AddCert(v.Certificate())
	return &outbox.Options{TLS: &tls.Config{RootCAs: pool}, InsecureLocal: true, Timeout: 2 * time.Second}
}

func (v *receiver) says(f func(w http.ResponseWriter, r *http.Request)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer = f
}

func status(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
}

// taken returns what came since it was asked last.
func (v *receiver) taken() []message {
	v.mu.Lock()
	defer v.mu.Unlock()
	got := v.got
	v.got = nil
	return got
}

// token is what must be in no error, log or clear column.
const token = "SECRET-TOKEN"

func (r *rig) endpoint(t testing.TB, url string, types ...string) (*outbox.Endpoint, outbox.Secret) {
	t.Helper()
	if types == nil {
		types = []string{crm.TypeCustomer}
	}
	e := &outbox.Endpoint{Name: "shop", URL: crm.NewText(url + "/hook?key=" + token), Types: types, Acts: []string{"changed", "deleted"}}
	s, err := r.Create(t.Context(), r.admin, e)
	require.NoError(t, err)
	return e, s
}

func (r *rig) customer(t testing.TB, name string) *crm.Customer {
	t.Helper()
	v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(name), Phone: crm.NewText("13800135678"), City: "York", Note: crm.NewText("likes tea")}
	_, err := r.customers.Create(t.Context(), r.admin, v)
	require.NoError(t, err)
	return v
}

// round collects and delivers.
func (r *rig) round(t testing.TB) (made, sent int) {
	t.Helper()
	made, err := r.Collect(t.Context())
	require.NoError(t, err)
	sent, err = r.Deliver(t.Context())
	require.NoError(t, err)
	return made, sent
}

func (r *rig) deliveries(t testing.TB, bin bool) []outbox.Delivery {
	t.Helper()
	var list []outbox.Delivery
	for q := (guard.Query{Limit: 200, Bin: bin}); ; {
		page, err := r.Deliveries.List(t.Context(), r.system, q)
		require.NoError(t, err)
		for _, v := range page.Items {
			list = append(list, *v.Value)
		}
		if q.After = page.Next; page.Next == "" {
			return list
		}
	}
}

func (r *rig) state(t testing.TB, e *outbox.Endpoint) *outbox.Endpoint {
	t.Helper()
	v, err := r.Endpoints.Get(t.Context(), r.admin, e.ID.UUID())
	require.NoError(t, err)
	return v.Value
}

// TestChangesArrive: what is made, changed and deleted behind an endpoint's beginning comes to its receiver once, signed, with the fields as its owner sees them in lists.
//
//crm:item 59 partly
func TestChangesArrive(t *testing.T) {
	each(t, func(t *testing.T, store crm.Store) {
		v := newReceiver(t)
		r := newRigOn(t, store, keys.NewMemory(), auditmem.New(), t.TempDir(), v.options())
		ctx := t.Context()
		r.customer(t, "Before")
		e, secret := r.endpoint(t, v.URL)
		made, _ := r.round(t)
		require.Zero(t, made, "what was before is not told")

		a, b := r.customer(t, "Ann Lee"), r.customer(t, "Bob Ray")
		made, sent := r.round(t)
		require.Equal(t, 2, made)
		require.Equal(t, 2, sent)
		got := v.taken()
		require.Len(t, got, 2)
		for _, m := range got {
			require.NoError(t, outbox.Verify(m.head, m.body, r.clock(), 0, secret))
			require.ErrorIs(t, outbox.Verify(m.head, append(m.body, ' '), r.clock(), 0, secret), outbox.ErrSignature)
			assert.Equal(t, "customer.changed", m.Type)
			assert.EqualValues(t, 1, m.Data.Version)
			assert.Equal(t, "York", m.Data.Fields["city"])
			assert.Equal(t, "138****5678", m.Data.Fields["phone"], "masked for the owner in lists")
			assert.Contains(t, m.Data.Masked, "phone")
			assert.NotContains(t, m.Data.Fields, "note", "hidden for the owner in lists")
			assert.NotContains(t, string(m.body), "likes")
		}
		made, sent = r.round(t)
		require.Zero(t, made+sent)
		size := r.log.Size()
		r.round(t)
		require.Equal(t, size, r.log.Size(), "nothing due leaves nothing in the log")

		view, err := r.customers.Get(ctx, r.admin, a.ID.UUID())
		require.NoError(t, err)
		for _, city := range []string{"Leeds", "Bath"} {
			view.Value.City = city
			view, err = r.customers.Update(ctx, r.admin, view.Value)
			require.NoError(t, err)
		}
		require.NoError(t, r.customers.Delete(ctx, r.admin, b.ID.UUID(), 1))
		made, _ = r.round(t)
		require.Equal(t, 2, made)
		got = v.taken()
		require.Len(t, got, 2)
		for _, m := range got {
			if m.Type == "customer.changed" {
				assert.Equal(t, a.ID.String(), m.Data.ID)
				assert.Equal(t, "Bath", m.Data.Fields["city"])
				assert.EqualValues(t, 3, m.Data.Version, "the newest, once")
				continue
			}
			assert.Equal(t, "customer.deleted", m.Type)
			assert.True(t, m.Data.Deleted)
			assert.Empty(t, m.Data.Fields)
			assert.NotContains(t, string(m.body), "Bob")
		}
		require.NoError(t, r.customers.Purge(ctx, r.admin, b.ID.UUID(), 2))
		r.round(t)
		got = v.taken()
		require.Len(t, got, 1, "a purge is told: the receiver's copy must go")
		assert.EqualValues(t, 3, got[0].Data.Version)

		// Paused: nothing. Resumed: what came meanwhile.
		require.NoError(t, r.Pause(ctx, r.admin, e.ID.UUID()))
		r.customer(t, "Meanwhile")
		made, sent = r.round(t)
		require.Zero(t, made+sent)
		require.NoError(t, r.Resume(ctx, r.admin, e.ID.UUID()))
		_, sent = r.round(t)
		require.Equal(t, 1, sent)

		// What was taken goes after a day, rows and all.
		r.pass(25 * time.Hour)
		gone, err := r.Sweep(ctx)
		require.NoError(t, err)
		require.Equal(t, 6, gone)
		require.Empty(t, r.deliveries(t, false))
		require.Empty(t, r.deliveries(t, true))
		r.secret(t)
	})
}

// secret checks that no clear column of the store, and no event, has the token of the URL, the secret of the endpoint or what is in messages.
func (r *rig) secret(t testing.TB) {
	t.Helper()
	for _, typ := range []string{crm.TypeEndpoint, crm.TypeDelivery, crm.TypeCursor} {
		p, err := r.store.List(t.Context(), crm.Query{Tenant: "default", Type: typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000})
		require.NoError(t, err)
		for _, row := range p.Rows {
			text := fmt.Sprintf("%v", row)
			for _, v := range row.Clear {
				text += v.Str() + "\n"
			}
			for _, f := range row.Sealed {
				text += string(f.Data)
			}
			for _, word := range []string{token, "whsec_", "Ann Lee", "1380013"} {
				require.False(t, strings.Contains(text, word), "%s has %s in the clear", typ, word)
			}
		}
	}
	list, err := r.log.Query(t.Context(), audit.Filter{}, math.MaxUint64, 1000)
	require.NoError(t, err)
	text := fmt.Sprintf("%+v", list)
	for _, word := range []string{token, "whsec_", "Ann Lee", "1380013"} {
		require.False(t, strings.Contains(text, word), "the log has %s", word)
	}
}

// TestRetries: a message that is not taken comes again later and later, under one id, as Retry-After asks, ends as dead, and is replayed.
func TestRetries(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	ctx := t.Context()
	e, _ := r.endpoint(t, v.URL)
	r.customer(t, "Ann Lee")
	v.says(status(500))
	ids := map[string]bool{}
	start := r.clock()
	for try := 1; try <= outbox.MaxTries; try++ {
		_, sent := r.round(t)
		require.Zero(t, sent)
		got := v.taken()
		require.Len(t, got, 1, "try %d", try)
		ids[got[0].id] = true
		d := r.deliveries(t, false)[0]
		require.EqualValues(t, try, d.Tries)
		require.EqualValues(t, 500, d.Status)
		if try == outbox.MaxTries {
			require.Equal(t, outbox.Dead, d.State)
			break
		}
		require.Equal(t, outbox.Waiting, d.State)
		wait := d.NextAt.Sub(r.clock())
		require.Greater(t, wait, 3*time.Second)
		require.Less(t, wait, 13*time.Hour)
		r.pass(wait - time.Second)
		r.round(t)
		require.Empty(t, v.taken(), "not before its time")
		r.pass(time.Second)
	}
	require.Len(t, ids, 1)
	assert.Less(t, r.clock().Sub(start), 26*time.Hour)
	assert.Greater(t, r.clock().Sub(start), 12*time.Hour)
	assert.Equal(t, outbox.Failing, r.state(t, e).State)
	r.pass(100 * time.Hour)
	r.round(t)
	require.Empty(t, v.taken(), "what is dead stays dead")

	d := r.deliveries(t, false)[0]
	require.True(t, guard.Denied(r.Replay(ctx, r.sales, d.ID.UUID())) || errors.Is(r.Replay(ctx, r.sales, d.ID.UUID()), crm.ErrNotFound))
	v.says(nil)
	require.NoError(t, r.Replay(ctx, r.admin, d.ID.UUID()))
	require.ErrorIs(t, r.Replay(ctx, r.admin, d.ID.UUID()), crm.ErrConflict)
	_, sent := r.round(t)
	require.Equal(t, 1, sent)
	require.True(t, ids[v.taken()[0].id], "under the same id")
	require.Equal(t, outbox.Active, r.state(t, e).State, "a success says that it works again")
	require.ErrorIs(t, r.Replay(ctx, r.admin, d.ID.UUID()), crm.ErrConflict, "what was taken is not sent again")

	// Retry-After, within bounds.
	for say, least := range map[string]time.Duration{"3600": time.Hour, "99999999": 24 * time.Hour, "-1": 4 * time.Second, "nonsense": 4 * time.Second, "0": 4 * time.Second} {
		v.says(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", say)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		c := r.customer(t, "Cay")
		r.round(t)
		for _, d := range r.deliveries(t, false) {
			if d.Record == c.ID.UUID() {
				wait := d.NextAt.Sub(r.clock())
				assert.GreaterOrEqual(t, wait, least, say)
				assert.LessOrEqual(t, wait, max(least, 6*time.Second), say)
			}
		}
	}
	v.says(status(http.StatusGone))
	r.customer(t, "Dan")
	r.round(t)
	at := r.state(t, e)
	require.Equal(t, outbox.Paused, at.State)
	require.Equal(t, outbox.ReasonGone, at.Reason)
	v.taken()
	r.pass(30 * time.Hour)
	r.customer(t, "Eve")
	made, _ := r.round(t)
	require.Zero(t, made)
	require.Empty(t, v.taken())
	v.says(nil)
	require.NoError(t, r.Resume(ctx, r.admin, e.ID.UUID()))
	n, err := r.ReplayAll(ctx, r.admin, e.ID.UUID())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, sent = r.round(t)
	require.Equal(t, 7, sent)
}

// TestErasedWhileItWaits: a message about an erased person is not sent, nor is a field of an erased signatory; the messages of others are.
//
//crm:item 54 partly
func TestErasedWhileItWaits(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	ctx := t.Context()
	r.endpoint(t, v.URL, crm.TypeCustomer, crm.TypeContract)
	ann, bob := r.customer(t, "Ann Lee"), r.customer(t, "Bob Ray")
	k := &crm.Contract{
		Number: "C-1", Customer: bob.ID, SignatoryPerson: crm.NewID[crm.Person](), Signatory: crm.NewText("Sig Natory"), Currency: "EUR", Amount: 100,
		Starts: r.clock().Truncate(24 * time.Hour), Ends: r.clock().Truncate(24*time.Hour).AddDate(1, 0, 0), State: crm.ContractDraft,
	}
	k.Person = bob.Person
	_, err := r.contracts.Create(ctx, r.admin, k)
	require.NoError(t, err)
	made, err := r.Collect(ctx)
	require.NoError(t, err)
	require.Equal(t, 3, made)
	erase := func(p crm.ID[crm.Person]) {
		_, err := r.keeper.Erase(ctx, "default", p, nil)
		require.NoError(t, err)
	}
	erase(ann.Person)
	erase(k.SignatoryPerson)
	_, err = r.Deliver(ctx)
	require.NoError(t, err)
	got := v.taken()
	require.Len(t, got, 2)
	for _, m := range got {
		require.NotContains(t, string(m.body), "Lee")
		require.NotContains(t, string(m.body), "Natory")
		require.NotEqual(t, ann.ID.String(), m.Data.ID)
	}
	dead := 0
	for _, d := range r.deliveries(t, false) {
		if d.State == outbox.Dead {
			dead++
			assert.Equal(t, ann.ID.UUID(), d.Record)
			assert.Equal(t, outbox.ReasonErased, d.Reason)
			assert.Equal(t, crm.Erased, d.Payload.State())
		}
	}
	require.Equal(t, 1, dead)

	// A change of the record of an erased person goes on, without the person, and makes no key for them.
	require.NoError(t, r.customers.Act(ctx, r.admin, "update", ann.ID.UUID(), 0, func(c *crm.Customer) error { c.City = "Bath"; return nil }))
	_, sent := r.round(t)
	require.Equal(t, 1, sent)
	m := v.taken()[0]
	assert.Equal(t, "Bath", m.Data.Fields["city"])
	assert.Contains(t, m.Data.Erased, "name")
	assert.NotContains(t, m.Data.Fields, "name")
	_, err = r.keeper.SealFor(ctx, "default", ann.Person, "x", nil, []byte("y")) // makes a key again, so there was none before
	require.NoError(t, err)
}

// TestBlocked: while an erasure has its grace, what waits about the person stays here, and the endpoint goes on with others.
func TestBlocked(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	ctx := t.Context()
	r.endpoint(t, v.URL)
	ann := r.customer(t, "Ann Lee")
	_, err := r.Collect(ctx)
	require.NoError(t, err)
	_, err = r.slow.Erase(ctx, "default", ann.Person, nil)
	require.NoError(t, err)
	r.customer(t, "Bob Ray")
	_, sent := r.round(t)
	require.Equal(t, 1, sent)
	require.NotContains(t, string(v.taken()[0].body), "Lee")
	require.NoError(t, r.customers.Act(ctx, r.admin, "update", ann.ID.UUID(), 0, func(c *crm.Customer) error { c.City = "Bath"; return nil }))
	_, sent = r.round(t)
	require.Equal(t, 1, sent, "what is nobody's is told")
	m := v.taken()[0]
	assert.Equal(t, "Bath", m.Data.Fields["city"])
	assert.NotContains(t, m.Data.Fields, "name")
	require.NoError(t, r.slow.Spare(ctx, "default", ann.Person))
	r.pass(time.Hour)
	_, sent = r.round(t)
	require.Equal(t, 1, sent, "it waited")
	require.Contains(t, string(v.taken()[0].body), "Ann Lee")
}

// TestSecrets: the secret is shown once, a new one signs beside the old one for the overlap only, and nobody but the program reads it.
func TestSecrets(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	ctx := t.Context()
	e, old := r.endpoint(t, v.URL)
	for _, c := range []guard.Caller{r.admin, r.sales, as("auditor", 9, "/hq/")} {
		got, err := r.Endpoints.Get(ctx, c, e.ID.UUID())
		if err == nil {
			assert.NotEqual(t, crm.Clear, got.Value.Secret.State())
			assert.Empty(t, got.Value.Secret.Expose()+got.Value.URL.Expose())
		}
		page, err := r.Endpoints.List(ctx, c, guard.Query{})
		for i := range page.Items {
			assert.NoError(t, err)
			assert.Empty(t, page.Items[i].Value.Secret.Expose()+page.Items[i].Value.URL.Expose())
		}
	}
	// No field of it is set by an update either.
	got, err := r.Endpoints.Get(ctx, r.admin, e.ID.UUID())
	require.NoError(t, err)
	forged := *got.Value
	forged.Secret = crm.NewText(outbox.NewSecret().Expose())
	_, err = r.Endpoints.Update(ctx, r.admin, &forged)
	require.True(t, guard.Denied(err), "%v", err)
	stolen := *got.Value
	stolen.Owner = crm.NewID[crm.Employee]()
	_, err = r.Endpoints.Update(ctx, r.admin, &stolen)
	require.Error(t, err, "it keeps the eyes that it reads with")
	_, err = r.Endpoints.Create(ctx, r.admin, &outbox.Endpoint{Name: "x", URL: crm.NewText(v.URL), Types: []string{"customer"}, Acts: []string{"changed"}, State: outbox.Active})
	require.True(t, guard.Denied(err), "made by Create of the outbox only")
	_, err = r.Create(ctx, r.sales, &outbox.Endpoint{Name: "x", URL: crm.NewText(v.URL), Types: []string{"customer"}, Acts: []string{"changed"}})
	require.True(t, guard.Denied(err))

	_, err = r.Rotate(ctx, r.sales, e.ID.UUID(), time.Hour)
	require.Error(t, err)
	fresh, err := r.Rotate(ctx, r.admin, e.ID.UUID(), time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, old.Expose(), fresh.Expose())
	check := func(oldRight bool) {
		t.Helper()
		require.NoError(t, r.Test(ctx, r.admin, e.ID.UUID()))
		r.round(t)
		got := v.taken()
		require.Len(t, got, 1)
		assert.Equal(t, "endpoint.test", got[0].Type)
		require.NoError(t, outbox.Verify(got[0].head, got[0].body, r.clock(), 0, fresh))
		err := outbox.Verify(got[0].head, got[0].body, r.clock(), 0, old)
		assert.Equal(t, oldRight, err == nil, "%v", err)
	}
	check(true)
	r.pass(time.Hour)
	check(false)
	r.secret(t)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s", fresh, fresh, fresh, fresh), fresh.Expose()[6:])
}

// TestOwnerLeaves: who is not there any more reads nothing, and the endpoint says so.
func TestOwnerLeaves(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	e, _ := r.endpoint(t, v.URL)
	r.left[r.admin.Subject.ID] = true
	r.customer(t, "Ann Lee")
	made, _ := r.round(t)
	require.Zero(t, made)
	at := r.state(t, e)
	require.Equal(t, outbox.Failing, at.State)
	require.Equal(t, outbox.ReasonSubject, at.Reason)
	require.True(t, guard.Denied(r.Resume(t.Context(), r.admin, e.ID.UUID())))
	delete(r.left, r.admin.Subject.ID)
	require.NoError(t, r.Resume(t.Context(), r.admin, e.ID.UUID()))
	_, sent := r.round(t)
	require.Equal(t, 1, sent, "and nothing was lost")
}

// TestEndpointsRefused: what is no URL to send to, and types that there are not.
func TestEndpointsRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, url := range []string{
		"", "shop.example", "http://shop.example/", "ftp://shop.example/", "https://", "https:///x", "https://user:pass@shop.example/", "https://shop.example/#x", "https://shop.example/#",
		"https://shop.example/a b", "https://shop.example/\r\nX: y", "https://shop.example/\x00", "https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://[fe80::1]/",
		"https://[fe80::1%25eth0]/", "https://169.254.169.254/latest/", "https://[::ffff:127.0.0.1]/", "https://100.64.0.1/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/",
		"https://224.0.0.1/", "http://localhost/", "https://shop.example:/", "javascript:alert(1)", "https://shop.example/" + strings.Repeat("a", 2000), "//shop.example/", "https://sh\u00f6p.example/", "https:shop.example",
		"https://shop.example\\@127.0.0.1/", "https://[::]/", "https://[fc00::1]/", "https://[2002:7f00:1::]/",
	} {
		e := &outbox.Endpoint{Name: "x", URL: crm.NewText(url), Types: []string{"customer"}, Acts: []string{"changed"}}
		_, err := r.Create(t.Context(), r.admin, e)
		var bad *crm.InvalidError
		require.ErrorAs(t, err, &bad, url)
		if url != "" {
			require.NotContains(t, err.Error(), url)
		}
	}
	for _, e := range []*outbox.Endpoint{
		{Types: nil, Acts: []string{"changed"}}, {Types: []string{"customer", "customer"}, Acts: []string{"changed"}}, {Types: []string{"customer"}}, {Types: []string{"customer"}, Acts: []string{"created"}},
		{Types: []string{"account"}, Acts: []string{"changed"}}, {Types: []string{"delivery"}, Acts: []string{"changed"}},
	} {
		e.Name, e.URL = "x", crm.NewText("https://shop.example/")
		_, err := r.Create(t.Context(), r.admin, e)
		require.Error(t, err)
	}
	e := &outbox.Endpoint{Name: "x", URL: crm.NewText("https://shop.example:8443/in?k=" + token), Types: []string{"customer"}, Acts: []string{"changed"}}
	_, err := r.Create(t.Context(), r.admin, e)
	require.NoError(t, err)
	require.Equal(t, "shop.example:8443", e.Host)
}

// TestDeliveriesAreNotChanged: no person makes, reads the payload of, or changes a delivery.
func TestDeliveriesAreNotChanged(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, v.options())
	ctx := t.Context()
	r.endpoint(t, v.URL)
	r.customer(t, "Ann Lee")
	_, err := r.Collect(ctx)
	require.NoError(t, err)
	d := r.deliveries(t, false)[0]
	got, err := r.Deliveries.Get(ctx, r.admin, d.ID.UUID())
	require.NoError(t, err)
	assert.Empty(t, got.Value.Payload.Expose())
	assert.NotEqual(t, crm.Clear, got.Value.Payload.State())
	_, err = r.Deliveries.Get(ctx, r.sales, d.ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)
	for what, edit := range map[string]func(d *outbox.Delivery){
		"payload": func(d *outbox.Delivery) { d.Payload = crm.NewText("{}") },
		"state":   func(d *outbox.Delivery) { d.State, d.DoneAt = outbox.Delivered, r.clock() },
		"where":   func(d *outbox.Delivery) { d.Endpoint = crm.NewID[outbox.Endpoint]() },
	} {
		x := *got.Value
		edit(&x)
		_, err := r.Deliveries.Update(ctx, r.admin, &x)
		require.Error(t, err, what)
	}
	_, err = r.Deliveries.Create(ctx, r.system, &d)
	require.True(t, guard.Denied(err))
}
