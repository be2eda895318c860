package vault_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

// clock is a clock that goes when it is told to.
type clock struct{ seconds atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(1_750_000_000+c.seconds.Load(), 0).UTC() }

func (c *clock) pass(d time.Duration) { c.seconds.Add(int64(d / time.Second)) }

// answers is a KEK that counts how often it has unwrapped.
type answers struct {
	keys.KEK
	n atomic.Int64
}

func (a *answers) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	out, err := a.KEK.Unwrap(ctx, wrapped, ad)
	if err == nil {
		a.n.Add(1)
	}
	return out, err
}

// A Keeper outlives a Vault that is killed, sealed or paused: it reads and writes within its bounds, says
// what is the matter past them, never waits longer than the timeout, and goes on when Vault is back.
func TestOutagesOfAKeeper(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "10m")
	var real *vault.KEK
	eventually(t, func() (err error) {
		real, err = vault.Open(ctx, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret, Timeout: timeout})
		return err
	})
	defer real.Close()
	var c clock
	const refresh, reads, writes = time.Minute, 10 * time.Minute, 3 * time.Minute
	kek := &answers{KEK: real}
	k, err := encrypt.NewKeeper(kek, keys.NewMemory(), &encrypt.Options{
		Refresh: refresh, StaleReads: reads, StaleWrites: writes, CacheAge: time.Hour, Now: c.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	person := [16]byte{1}
	// seal begins with a pause of two seconds, as a Vault that failed is left alone for one.
	seal := func(tenant string) (sealed []byte) {
		t.Helper()
		eventually(t, func() (err error) {
			c.pass(2 * time.Second)
			sealed, err = k.SealFor(ctx, tenant, person, "log", nil, []byte("secret"))
			return err
		})
		return sealed
	}
	sealed := seal("acme")
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"killed", s.Kill, func() { s.Restart(); s.Unseal() }},
		{"sealed", s.Seal, s.Unseal},
		{"paused", s.Pause, s.Resume},
	} {
		t.Run(outage.name, func(t *testing.T) {
			// at does a read and a write and checks how they end.
			at := func(when string, readErr, writeErr error) {
				t.Helper()
				start := time.Now()
				got, err := k.OpenFor(ctx, "acme", person, "log", nil, sealed)
				if !errors.Is(err, readErr) || readErr == nil && (err != nil || string(got) != "secret") {
					t.Errorf("%s: read: got %v, want %v", when, err, readErr)
				}
				if took := time.Since(start); took > timeout+slack {
					t.Errorf("%s: read: took %v, more than the timeout of %v", when, took, timeout)
				}
				start = time.Now()
				_, err = k.SealFor(ctx, "acme", person, "log", nil, []byte("more"))
				if !errors.Is(err, writeErr) || writeErr == nil && err != nil {
					t.Errorf("%s: write: got %v, want %v", when, err, writeErr)
				}
				if took := time.Since(start); took > timeout+slack {
					t.Errorf("%s: write: took %v, more than the timeout of %v", when, took, timeout)
				}
			}
			asked := kek.n.Load()
			eventually(t, func() error { // Vault is asked just before the outage
				c.pass(refresh)
				at("before", nil, nil)
				if kek.n.Load() == asked {
					return errors.New("Vault was not asked")
				}
				return nil
			})
			outage.begin()
			c.pass(refresh - time.Second)
			at("while fresh", nil, nil)
			c.pass(writes)
			at("within the bound of writes", nil, nil)
			c.pass(2 * time.Second)
			at("past the bound of writes", nil, encrypt.ErrKMSUnavailable)
			c.pass(reads - writes - 3*time.Second)
			at("within the bound of reads", nil, encrypt.ErrKMSUnavailable)
			c.pass(4 * time.Second)
			at("past the bound of reads", encrypt.ErrKMSUnavailable, encrypt.ErrKMSUnavailable)
			if _, err := k.MAC(ctx, "acme", "row", nil); !errors.Is(err, encrypt.ErrKMSUnavailable) {
				t.Errorf("row MAC: got %v, want ErrKMSUnavailable", err)
			}
			if _, err := k.SealFor(ctx, "new-"+outage.name, person, "log", nil, nil); !errors.Is(err, encrypt.ErrKMSUnavailable) {
				t.Errorf("a new tenant: got %v, want ErrKMSUnavailable", err)
			}
			outage.end()
			seal("acme")
			at("after", nil, nil)
			seal("new-" + outage.name)
		})
	}
}

// form is a record of ten personal fields.
type form struct {
	A, B, C, D, E, F, G, H, I, J string `protect:"personal"`
}

// Fields are sealed without Vault: it is asked once for a tenant, whatever the number of persons.
func TestCallsOfAKeeper(t *testing.T) {
	t.Parallel()
	const batch = 1_000
	persons := 100_000
	if testing.Short() {
		persons = batch
	}
	s := realtest.Vault(t)
	s.Key("crm")
	r := record(t, s)
	kek := encrypttest.NewFaultKEK(open(t, vault.Config{Key: "crm", Address: r.URL, Token: s.Root}))
	requests := func() int { return r.count("/v1/transit/encrypt/crm") + r.count("/v1/transit/decrypt/crm") }
	atStart := requests()
	store := keys.NewMemory()
	k, err := encrypt.NewKeeper(kek, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	forms, err := encrypt.NewCodec[*form](nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]encrypt.Record, batch)
	values := make([]*form, batch)
	for i := range values {
		values[i] = &form{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	}
	var sealed []encrypt.Sealed
	for first := 1; first <= persons; first += batch {
		for i := range rows {
			var id [16]byte
			binary.BigEndian.PutUint32(id[:], uint32(first+i))
			rows[i] = encrypt.Record{Tenant: "acme", ID: id, Person: id}
		}
		if sealed, err = forms.SealAll(ctx, k, rows, values); err != nil {
			t.Fatal(err)
		}
	}
	n := requests() - atStart
	t.Logf("%d requests for %d fields of %d new persons", n, 10*persons, persons)
	if n > 2 || kek.Calls() > 2 {
		t.Errorf("%d calls of the KEK and %d requests, want at most 2", kek.Calls(), n)
	}
	another, err := encrypt.NewKeeper(kek, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := kek.Calls()
	var got form
	if _, err := forms.Open(ctx, another, rows[7], sealed[7].Fields, &got, "a"); err != nil || got.A != "a" {
		t.Fatal(err)
	}
	if n := kek.Calls() - before; n != 1 {
		t.Errorf("%d calls for a second process, want 1", n)
	}
}
