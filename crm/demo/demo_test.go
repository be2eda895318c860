package demo_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/demo"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// write puts a value into a digest, personal fields by their values.
func write(h hash.Hash, v reflect.Value) {
	str := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s)))
		h.Write([]byte(s))
	}
	switch x := v.Interface().(type) {
	case crm.Text:
		str(x.Expose())
		return
	case time.Time:
		str(x.UTC().Format(time.RFC3339Nano))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				write(h, v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		str(fmt.Sprint(v.Len()))
		for i := range v.Len() {
			write(h, v.Index(i))
		}
	case reflect.Pointer:
		if v.IsNil() {
			str("nil")
			return
		}
		write(h, v.Elem())
	default:
		str(fmt.Sprint(v.Interface()))
	}
}

func pipeline() *sales.Pipeline {
	p := &sales.Pipeline{Name: "Standard", Stages: []sales.Stage{{Name: "First talk", Probability: 1000}, {Name: "Offer made", Probability: 5000}}}
	p.ID = crm.ID[sales.Pipeline]{6: 0x70, 8: 0x80, 15: 1}
	return p
}

func digest(g *demo.Generator, n int) string {
	h := sha256.New()
	for i := range n {
		write(h, reflect.ValueOf(g.Set(i)))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// golden is the digest of the first 2,000 sets of seed 1. It changes only with the demo world, which is then another one for everybody.
const golden = "ea844558a4be1241f751ddee60830d470dee09684e35de718cebfcfa56d76dc7"

// TestGolden: the same seed and size make the same data, byte for byte, on every platform; another seed makes others.
func TestGolden(t *testing.T) {
	g := demo.New(&demo.Options{Seed: 1, Pipeline: pipeline()})
	require.Equal(t, golden, digest(g, 2000))
	require.NotEqual(t, digest(g, 20), digest(demo.New(&demo.Options{Seed: 2, Pipeline: pipeline()}), 20))
	for _, i := range []int{1_999, 3, 777} { // in any order
		a, b := sha256.New(), sha256.New()
		write(a, reflect.ValueOf(g.Set(i).Customer))
		write(b, reflect.ValueOf(g.Customer(i)))
		require.Equal(t, a.Sum(nil), b.Sum(nil))
	}
}

var (
	fiction = regexp.MustCompile(`^\+1 \d{3} 555 01\d\d$|^\+44 (20 7946 0\d{3}|7700 900\d{3}|1\d1 496 0\d{3}|1\d{2} 496 0\d{3}|29 2018 0\d{3})$|^\+61 \d (5550|7010) \d{4}$`)
	free    = regexp.MustCompile(`^(\+86 )?1(54|6[013489])[0-9 -]{8,10}$`)
	mail    = regexp.MustCompile(`^[A-Za-z0-9.-]+@([a-z]+\.)?example(\.com|\.net|\.org)?$`)
)

// TestNobody: mail, telephone and identity numbers are of nobody, every record is valid, and the world is as varied as it should be.
func TestNobody(t *testing.T) {
	g := demo.New(&demo.Options{Seed: 7, Pipeline: pipeline()})
	const n = 4000
	phone := func(x crm.Text, was bool) {
		if s := x.Expose(); s != "" && !fiction.MatchString(s) && !free.MatchString(s) && !was {
			t.Errorf("a number that may be somebody's: %s", s)
		}
	}
	post := func(x crm.Text) {
		if s := x.Expose(); s != "" && !mail.MatchString(s) {
			t.Errorf("mail that may be somebody's: %s", s)
		}
	}
	chinese, companies, records, twins, ids := 0, 0, 0, 0, map[crm.UUID]bool{}
	owners, stages := map[crm.ID[crm.Employee]]int{}, map[crm.CustomerStage]int{}
	check := func(v interface {
		Validate() error
		Header() crm.Header
	}) {
		records++
		require.NoError(t, v.Validate())
		h := v.Header()
		require.False(t, h.CreatedAt.After(demo.Base), "made on %v", h.CreatedAt)
		require.False(t, ids[h.ID], "an id twice")
		ids[h.ID] = true
		require.False(t, h.CreatedAt.After(demo.Base))
		require.NotZero(t, h.Owner)
	}
	for i := range n {
		s := g.Set(i)
		check(s.Customer)
		twin, isTwin := g.Twin(i)
		if isTwin {
			twins++
			require.Less(t, twin.Of, i)
			require.NotEmpty(t, twin.Errors)
			_, again := g.Twin(twin.Of)
			require.False(t, again, "a twin of a twin")
			require.NotEqual(t, g.Customer(twin.Of).ID, s.Customer.ID)
		}
		phone(s.Customer.Phone, isTwin)
		phone(s.Customer.Phone2, isTwin)
		post(s.Customer.Email)
		if id := s.Customer.IDNumber.Expose(); id != "" {
			require.True(t, strings.HasPrefix(id, "999901"))
		}
		if s.Customer.Country == "CN" {
			chinese++
		}
		if s.Customer.Kind == crm.CompanyCustomer {
			companies++
		}
		owners[s.Customer.Owner]++
		stages[s.Customer.Stage]++
		for _, v := range s.Contacts {
			check(v)
			phone(v.Phone, false)
			post(v.Email)
		}
		for _, v := range s.Leads {
			check(v)
			phone(v.Phone, false)
			post(v.Email)
		}
		for _, v := range s.FollowUps {
			check(v)
		}
		for _, v := range s.Opportunities {
			check(v)
		}
		for _, v := range s.Quotes {
			check(v)
		}
		for _, v := range s.Contracts {
			check(v)
		}
		for _, v := range s.Tickets {
			check(v)
		}
	}
	assert.InDelta(t, 0.65, float64(chinese)/n, 0.05)
	assert.InDelta(t, 0.7, float64(companies)/n, 0.05)
	assert.InDelta(t, 0.02, float64(twins)/n, 0.01)
	assert.Len(t, owners, 40)
	assert.Len(t, stages, 8)
	assert.Greater(t, records, 3*n)
}

// load stores through a guard in memory.
func load(t *testing.T, to *memstore.Store, k keys.Store, kek string, g *demo.Generator, n int, fail func(int) bool) (demo.Progress, demo.Doors, guard.Caller, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	key, err := localkek.Open(kek, nil)
	require.NoError(t, err)
	keeper, err := encrypt.NewKeeper(key, k, nil)
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	log, err := audit.Open(ctx, auditmem.New(), signer, nil)
	require.NoError(t, err)
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	gd, _, err := guard.New(ctx, to, keeper, policy, log, nil)
	require.NoError(t, err)
	d := demo.Doors{
		Customers: must(guard.For[*crm.Customer](ctx, gd, nil)), Contacts: must(guard.For[*crm.Contact](ctx, gd, nil)), Leads: must(guard.For[*crm.Lead](ctx, gd, nil)),
		FollowUps: must(guard.For[*crm.FollowUp](ctx, gd, nil)), Opportunities: must(guard.For[*sales.Opportunity](ctx, gd, nil)), Quotes: must(guard.For[*crm.Quote](ctx, gd, nil)),
		Contracts: must(guard.For[*crm.Contract](ctx, gd, nil)), Tickets: must(guard.For[*crm.Ticket](ctx, gd, nil)),
	}
	c := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"admin"}, Active: true}}
	p, err := demo.Load(ctx, g, d, c, n, func(p demo.Progress) {
		if fail != nil && fail(p.Customers) {
			cancel()
		}
	})
	return p, d, c, err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestLoad: what was cut off goes on where it was, and ends as if it had not been; a smaller world is the beginning of a larger one.
func TestLoad(t *testing.T) {
	g := demo.New(&demo.Options{Seed: 1, Pipeline: pipeline()})
	st, k, kek := memstore.New(), keys.NewMemory(), filepath.Join(t.TempDir(), "kek")
	const n = 1200
	cut, _, _, err := load(t, st, k, kek, g, n, func(done int) bool { return done >= 1000 })
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1000, cut.Customers)
	p, doors, c, err := load(t, st, k, kek, g, n, nil)
	require.NoError(t, err)
	require.Equal(t, n, p.Customers)
	require.Equal(t, cut.Records, p.There)
	want := 0
	for i := range n {
		s := g.Set(i)
		want += 1 + len(s.Contacts) + len(s.Leads) + len(s.FollowUps) + len(s.Opportunities) + len(s.Quotes) + len(s.Contracts) + len(s.Tickets)
	}
	require.Equal(t, want, p.Records+p.There)
	count, err := doors.Customers.Count(t.Context(), c, guard.Query{})
	require.NoError(t, err)
	require.EqualValues(t, n, count)
	again, _, _, err := load(t, st, k, kek, g, n, nil)
	require.NoError(t, err)
	require.Zero(t, again.Records)
	v, err := doors.Customers.Get(t.Context(), c, g.Customer(n-1).ID.UUID())
	require.NoError(t, err)
	require.Equal(t, g.Customer(n-1).Name.Expose(), v.Value.Name.Expose())
}

// A program makes customers on demand, and knows which of them are duplicates.
func ExampleGenerator_Twin() {
	g := demo.New(&demo.Options{Seed: 1})
	for i := range 200 {
		if t, ok := g.Twin(i); ok {
			fmt.Println(i, "is", t.Of, "again:", strings.Join(t.Errors, ", "))
			break
		}
	}
	// Output:
	// 2 is 1 again: name: a letter twice, phone: in the other field, address: missing
}

func BenchmarkSet(b *testing.B) {
	g := demo.New(&demo.Options{Seed: 1, Pipeline: pipeline()})
	for i := range b.N {
		_ = g.Set(i)
	}
}
