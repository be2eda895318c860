package guard_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// TestOracle asks two databases the same. They differ only in values that the asker may not see, and every answer, error texts and cursors and
// the numbers of events among them, must be the same to the byte. What the asker may see is asked of the policy, record by record and action by action; all
// else is random in each of the two. CRMGUARD_SOAK=1 asks a hundred thousand times.
func TestOracle(t *testing.T) {
	askers := map[string]guard.Caller{
		"sales": sales, "other": other, "manager": manager, "admin": admin, "auditor": auditor, "support": support,
		"finance": as("finance", crm.NewUUID().String(), "/east/"), "marketing": as("marketing", crm.NewUUID().String(), "/east/"),
		"analyst": as("analyst", crm.NewUUID().String(), "/east/"), "nobody": as("nothing", crm.NewUUID().String(), ""),
		"member": as("sales", crm.NewUUID().String(), "/south/"),
	}
	for _, name := range []string{"member", "manager"} {
		c := askers[name]
		c.Subject.Pools = []string{eastPool.String()}
		askers[name] = c
	}
	n := 1000
	if os.Getenv("CRMGUARD_SOAK") != "" {
		n = 100_000 / len(askers)
	}
	if testing.Short() {
		n = 30
	}
	run := func(name string, asker guard.Caller, n int, checks bool) {
		t.Run(name, func(t *testing.T) {
			const seed = 7
			kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
			require.NoError(t, err)
			store := keys.NewMemory() // of both: which other records an index finds beside the right ones depends on its key
			o := [2]*oracle{newOracle(t, asker, kek, store, seed, 1, checks), newOracle(t, asker, kek, store, seed, 2, checks)}
			if o[0].varied == 0 {
				t.Log("the asker sees everything")
			}
			var took [2]time.Duration
			asked := map[string]int{}
			told := 0
			for i := range n {
				var said [2]string
				var what string
				for k := range o {
					begun := time.Now()
					what, said[k] = o[k].ask(t, rand.New(rand.NewPCG(seed, uint64(i))))
					took[k] += time.Since(begun)
				}
				asked[what]++
				if !strings.HasPrefix(said[0], "error") {
					told++
				}
				if said[0] != said[1] {
					t.Fatalf("request %d, %s:\n%s\n%s", i, what, said[0], said[1])
				}
			}
			t.Logf("%d requests, %d answered, over %d values that differ: %v; %v and %v each", n, told, o[0].varied, asked,
				(took[0] / time.Duration(n)).Round(time.Microsecond), (took[1] / time.Duration(n)).Round(time.Microsecond))
		})
	}
	for name, asker := range askers {
		run(name, asker, n, false)
	}
	// A check tells that a record exists, so what it compares is the same in both here, and everything else differs.
	for name, asker := range askers {
		run(name+" checks", asker, n/4, true)
	}
}

// eastPool is a pool in which some records are free.
var eastPool = crm.NewUUID()

var west = as("manager", crm.NewUUID().String(), "/west/")

var fixed = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) // a Monday

// oracle is one of the two.
type oracle struct {
	asker     guard.Caller
	log       *audit.Log
	tx        func(guard.Caller) *guard.Tx
	customers *guard.Records[*crm.Customer]
	ids       []crm.UUID
	early     []crm.Row // as they were made, with their bodies
	bodies    [][]byte
	words     []string // values of both, seen or not
	varied    int
	checks    bool // duplicates are asked for, and nothing else
}

// kinds of values, so that what is random is still right
var sealedKinds = map[string]func(r *rand.Rand) string{
	"name": func(r *rand.Rand) string {
		return pick(r, "张伟", "王芳", "李娜", "赵敏", "Ann Lee", "Bob Ray") + strconv.Itoa(r.IntN(100))
	},
	"contact": func(r *rand.Rand) string {
		return pick(r, "孙丽", "周杰", "Eve Fox", "Dan Poe") + strconv.Itoa(r.IntN(100))
	},
	"phone":     func(r *rand.Rand) string { return fmt.Sprintf("138%08d", r.IntN(1e8)) },
	"phone2":    func(r *rand.Rand) string { return fmt.Sprintf("139%08d", r.IntN(1e8)) },
	"email":     func(r *rand.Rand) string { return fmt.Sprintf("p%d@example.com", r.IntN(1e6)) },
	"address":   func(r *rand.Rand) string { return fmt.Sprintf("%d Main Street", r.IntN(1000)) },
	"website":   func(r *rand.Rand) string { return fmt.Sprintf("https://w%d.example", r.IntN(1000)) },
	"id_number": func(r *rand.Rand) string { return fmt.Sprintf("ID%07d", r.IntN(1e7)) },
	"note":      func(r *rand.Rand) string { return fmt.Sprintf("note %d", r.IntN(1000)) },
}

var clearKinds = map[string]func(c *crm.Customer, r *rand.Rand){
	"city":         func(c *crm.Customer, r *rand.Rand) { c.City = pick(r, "Shanghai", "Beijing", "Paris", "") },
	"country":      func(c *crm.Customer, r *rand.Rand) { c.Country = pick(r, "CN", "FR", "") },
	"industry":     func(c *crm.Customer, r *rand.Rand) { c.Industry = pick(r, "steel", "retail", "") },
	"source":       func(c *crm.Customer, r *rand.Rand) { c.Source = pick(r, "fair", "web", "") },
	"open_value":   func(c *crm.Customer, r *rand.Rand) { c.OpenValue = r.Int64N(1000) },
	"credit_limit": func(c *crm.Customer, r *rand.Rand) { c.CreditLimit = r.Int64N(1000) },
	"last_follow_up": func(c *crm.Customer, r *rand.Rand) {
		c.LastFollowUp = fixed.Add(-time.Duration(r.IntN(1000)) * time.Hour)
	},
}

func pick(r *rand.Rand, all ...string) string { return all[r.IntN(len(all))] }

// newOracle fills a database: seed rules what the asker may see, variant what not.
func newOracle(t *testing.T, asker guard.Caller, kek keys.KEK, keyStore keys.Store, seed, variant uint64, checks bool) *oracle {
	ctx := t.Context()
	keeper, err := encrypt.NewKeeper(kek, keyStore, nil)
	require.NoError(t, err)
	signer, err := audit.NewEd25519Signer("test/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	require.NoError(t, err)
	clock := func() time.Time { return fixed }
	log, err := audit.Open(ctx, auditmem.New(), signer, &audit.Options{Sealer: sealer{keeper}, Clock: clock})
	require.NoError(t, err)
	policy, err := rego.New(ctx, nil)
	require.NoError(t, err)
	store := memstore.New()
	g, _, err := guard.New(ctx, store, keeper, policy, log, &guard.Options{Clock: clock, SearchPerHour: math.MaxInt32, ChecksPerHour: math.MaxInt32})
	require.NoError(t, err)
	o := &oracle{asker: asker, log: log, checks: checks, tx: func(c guard.Caller) *guard.Tx { return g.Begin(c, "test") }}
	o.customers, err = guard.For[*crm.Customer](ctx, g, &guard.TypeOptions{Type: crm.TypeCustomer})
	require.NoError(t, err)

	same, differs := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, variant))
	both := [2]*rand.Rand{rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))}
	for i := range 40 {
		owner := sales
		if i%3 == 1 {
			owner = other
		}
		v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY"}
		v.ID = crm.IDAt[crm.Customer](fixed.Add(time.Duration(i)*time.Second), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 16)))
		v.Person = crm.ID[crm.Person](v.ID)
		id, err := crm.ParseUUID(owner.Subject.ID)
		require.NoError(t, err)
		v.Owner, v.Team = crm.ID[crm.Employee](id), owner.Subject.Team
		free := *v
		if i%4 == 2 {
			free.Owner, free.Pool, free.FreeIn = crm.ID[crm.Employee]{}, eastPool, eastPool
		}
		visible := o.visible(t, &free)
		fill := func(v *crm.Customer) {
			for _, f := range o.customers.Fields() {
				from := same
				seen := visible[f.Name]
				if fill, ok := sealedKinds[f.Name]; ok {
					value := fill(from)
					for _, r := range both { // the words of both databases are asked of both
						if word := fill(r); !seen {
							o.words = append(o.words, word)
						}
					}
					if !seen {
						value = fill(differs)
						o.varied++
					} else {
						o.words = append(o.words, value)
					}
					reflect.ValueOf(v).Elem().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, strings.ReplaceAll(f.Name, "_", "")) }).Set(reflect.ValueOf(crm.NewText(value)))
				}
				if fill, ok := clearKinds[f.Name]; ok {
					fill(v, from)
					if !seen {
						fill(v, differs)
						o.varied++
					}
				}
			}
		}
		fill(v)
		boss := manager
		if i%3 == 1 {
			boss = west
		}
		_, err = o.customers.Create(ctx, admin, v)
		require.NoError(t, err)
		o.ids = append(o.ids, v.ID.UUID())
		rows, err := store.Load(ctx, admin.Subject.Tenant, crm.TypeCustomer, []crm.UUID{v.ID.UUID()})
		require.NoError(t, err)
		o.early, o.bodies = append(o.early, rows[0]), append(o.bodies, rowformat.Append(nil, &rows[0]))
		if i%4 == 2 {
			require.NoError(t, o.customers.Act(ctx, admin, authz.Enter, v.ID.UUID(), 1, func(c *crm.Customer) error {
				c.Owner, c.Pool, c.FreeIn = free.Owner, free.Pool, free.FreeIn
				return nil
			}))
		} else if i%7 == 3 {
			require.NoError(t, o.customers.Delete(ctx, boss, v.ID.UUID(), 1))
		} else if i%5 == 4 {
			last := v.LastFollowUp
			fill(v)
			v.LastFollowUp = last
			_, err := o.customers.Update(ctx, admin, v)
			require.NoError(t, err)
		}
	}
	o.ids = append(o.ids, crm.UUID(crm.IDAt[crm.Customer](fixed, bytes.NewReader(make([]byte, 16)))))
	return o
}

var readings = []authz.Action{authz.Read, authz.List, authz.Search, authz.Export, authz.Reveal, authz.History, authz.Update, authz.Delete, authz.Restore,
	authz.Browse, authz.Aggregate, authz.Claim, authz.Release, authz.Purge}

// visible are the fields of a record of which some action shows the asker something.
func (o *oracle) visible(t *testing.T, v *crm.Customer) map[string]bool {
	seen := map[string]bool{}
	all := readings
	if o.checks {
		all = append(slices.Clone(readings), authz.Check)
	}
	for _, a := range all {
		for _, c := range []guard.Caller{o.asker, because(o.asker, "to call back")} {
			ok, fields, err := o.customers.May(t.Context(), c, a, v)
			require.NoError(t, err)
			for name, access := range fields {
				if ok && access != authz.Hidden {
					seen[name] = true
				}
			}
		}
	}
	return seen
}

// ask makes one request and returns what it is and what comes back.
func (o *oracle) ask(t *testing.T, r *rand.Rand) (what, answer string) {
	ctx := t.Context()
	c := o.asker
	if r.IntN(2) == 0 {
		c = because(c, "to call back")
	}
	id := o.ids[r.IntN(len(o.ids))]
	field := func() string {
		all := o.customers.Fields()
		return all[r.IntN(len(all))].Name
	}
	query := func() guard.Query {
		q := guard.Query{Limit: 1 + r.IntN(30), Desc: r.IntN(2) == 0, Bin: r.IntN(5) == 0, Browse: r.IntN(4) == 0}
		if r.IntN(5) == 0 {
			q.Hide = []string{field()}
		}
		if r.IntN(2) == 0 {
			q.Sort = field()
		}
		for range r.IntN(3) {
			cl := crm.Clause{Column: field(), Op: []crm.Op{crm.Equal, crm.Less, crm.Greater}[r.IntN(3)]}
			switch cl.Column {
			case "open_value", "credit_limit":
				cl.Values = []crm.Value{crm.IntValue(r.Int64N(1000))}
			case "last_follow_up", "created_at", "updated_at":
				cl.Values = []crm.Value{crm.TimeValue(fixed.Add(-time.Duration(r.IntN(1000)) * time.Hour))}
			default:
				cl.Values = []crm.Value{crm.StringValue(pick(r, "Shanghai", "Paris", "CN", "steel", "fair", "new", "/east/1/"))}
			}
			q.Clauses = append(q.Clauses, cl)
		}
		return q
	}
	word := func() string {
		w := o.words[r.IntN(len(o.words))]
		switch r.IntN(4) {
		case 0:
			runes := []rune(w)
			return string(runes[:max(1, len(runes)/2)])
		case 1:
			return w[max(0, len(w)-4):]
		}
		return w
	}
	if o.checks {
		return o.check(t, r, c, word)
	}
	switch r.IntN(19) {
	case 0:
		v, err := o.customers.Get(ctx, c, id)
		return "get", said(err, show(v))
	case 1, 2:
		q := query()
		page, err := o.customers.List(ctx, c, q)
		text := said(err, shows(page))
		for err == nil && page.Next != "" && r.IntN(3) > 0 {
			q.After = page.Next
			page, err = o.customers.List(ctx, c, q)
			text += said(err, shows(page))
		}
		return "list", text
	case 3:
		n, err := o.customers.Count(ctx, c, query())
		return "count", said(err, strconv.FormatInt(n, 10))
	case 4, 5:
		fields := []string{"name", "phone", "email", "id_number", "contact", "phone2"}
		page, err := o.customers.Search(ctx, c, word(), 1+r.IntN(20), fields[:1+r.IntN(len(fields))]...)
		return "search", said(err, shows(page))
	case 6:
		list, err := o.customers.History(ctx, c, id, 0, 5)
		text := ""
		for _, e := range list {
			e.Event.Targets = slices.Clone(e.Event.Targets)
			for i := range e.Event.Targets {
				e.Event.Targets[i].Digest = nil // of sealed bytes, which differ each time
			}
			text += fmt.Sprintf("%d %v %v %v\n", e.Index, e.Event, e.Event.Details, e.Late)
		}
		return "history", said(err, text)
	case 7:
		ids := make([]crm.UUID, 1+r.IntN(10))
		for i := range ids {
			ids[i] = o.ids[r.IntN(len(o.ids))]
		}
		list, err := o.customers.GetAll(ctx, c, ids)
		return "get all", said(err, shows(guard.Page[*crm.Customer]{Items: list}))
	case 8:
		v, err := o.customers.Reveal(ctx, c, id, field())
		return "reveal", said(err, show(v))
	case 9:
		n, needs, err := o.customers.Exportable(ctx, c, query())
		return "exportable", said(err, fmt.Sprint(n, needs))
	case 10:
		text := ""
		n, err := o.customers.Export(ctx, c, query(), func(p guard.Page[*crm.Customer]) error { text += shows(p); return nil })
		return "export", text + said(err, fmt.Sprint(n))
	case 11:
		// A change by somebody who may perhaps not: of a version that is not there, so that nothing changes.
		v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(word()), Currency: "CNY", City: pick(r, "Shanghai", "Paris")}
		v.ID, v.Version = crm.ID[crm.Customer](id), 99
		got, err := o.customers.Update(ctx, c, v)
		return "update", said(err, show(got))
	case 12:
		q := guard.Grouping{Clauses: query().Clauses}
		for range r.IntN(3) {
			q.By = append(q.By, field())
		}
		for range r.IntN(3) {
			q.Sums = append(q.Sums, pick(r, "open_value", "credit_limit", field()))
		}
		got, err := o.customers.Group(ctx, c, q)
		return "group", said(err, fmt.Sprintf("%+v", got))
	case 13:
		// A claim or a purge that changes nothing, because the version is not there.
		if r.IntN(2) == 0 {
			err := o.customers.Purge(ctx, c, id, 99)
			return "purge", said(err, "")
		}
		return "claim", said(o.customers.Act(ctx, c, authz.Claim, id, 99, func(*crm.Customer) error { return nil }), "")
	case 14:
		g := o.tx(c)
		v := &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText(word()), Currency: "CNY"}
		v.ID, v.Version = crm.ID[crm.Customer](id), 99
		return "transaction", said(o.customers.UpdateIn(ctx, g, v), "")
	case 15:
		i := r.IntN(len(o.early))
		e, err := o.customers.Compare(ctx, c, o.early[i], o.bodies[i])
		return "compare", said(err, show(e.Now)+show(e.Then)+fmt.Sprint(e.Fields))
	case 16:
		// A change that is stored, of what the asker was shown.
		shown, err := o.customers.Get(ctx, c, id)
		if err != nil || shown.Value == nil {
			return "write", said(err, "")
		}
		v := o.customers.Copy(shown.Value)
		v.City = pick(r, "Shanghai", "Beijing", "Paris", "")
		if v.Name.State() == crm.Clear && r.IntN(2) == 0 {
			v.Name = crm.NewText(pick(r, "赵敏", "Ann Lee") + strconv.Itoa(r.IntN(100)))
		}
		if r.IntN(4) == 0 {
			v.OpenValue = r.Int64N(1000)
		}
		got, err := o.customers.Update(ctx, c, v)
		return "write", said(err, show(got))
	case 17:
		got, err := o.customers.Changes(ctx, c, r.Int64N(60), 1+r.IntN(20))
		text := ""
		for _, ch := range got.Items {
			text += show(ch.View) + fmt.Sprintln(ch.Seq, ch.Deleted)
		}
		return "changes", said(err, text+fmt.Sprint(got.Next, got.More))
	default:
		v := &crm.Customer{}
		v.ID = crm.ID[crm.Customer](id)
		v.Owner, v.Team = crm.ID[crm.Employee](lin), "/east/1/"
		ok, fields, err := o.customers.May(ctx, c, readings[r.IntN(len(readings))], v)
		return "may", said(err, fmt.Sprint(ok, fields))
	}
}

// check asks for duplicates of something that is made of values of both databases.
func (o *oracle) check(t *testing.T, r *rand.Rand, c guard.Caller, word func() string) (what, answer string) {
	vs := make([]*crm.Customer, 1+r.IntN(2))
	for i := range vs {
		vs[i] = &crm.Customer{Name: crm.NewText(word()), Phone: crm.NewText(word()), IDNumber: crm.NewText(word()), Website: crm.NewText(word())}
		if r.IntN(4) == 0 {
			vs[i].ID = crm.ID[crm.Customer](o.ids[r.IntN(len(o.ids))])
		}
	}
	got, err := o.customers.AlikeEach(t.Context(), c, vs, byPhone{tell: guard.Tell(r.IntN(3))})
	text := ""
	for _, list := range got {
		for _, a := range list {
			text += fmt.Sprintf("%v %v %v %v", a.Band, a.Score, a.Why, a.Owner)
			if a.View != nil {
				text += show(*a.View)
			}
			text += "\n"
		}
		text += "--\n"
	}
	return "check", said(err, text)
}

func said(err error, answer string) string {
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return answer + "\n"
}

// show writes everything that a view has.
func show(v guard.View[*crm.Customer]) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %d:", v.Controls, v.Fields, v.Event)
	if v.Value == nil { // nothing was shown
		return b.String()
	}
	value := reflect.ValueOf(v.Value).Elem()
	for i := range value.NumField() {
		if !value.Type().Field(i).IsExported() {
			continue
		}
		if text, ok := value.Field(i).Interface().(crm.Text); ok {
			fmt.Fprintf(&b, " %v=%q", text.State(), text.Expose())
		} else {
			fmt.Fprintf(&b, " %+v", value.Field(i).Interface())
		}
	}
	return b.String()
}

func shows(p guard.Page[*crm.Customer]) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q %d\n", len(p.Items), p.Next, p.Event)
	for _, v := range p.Items {
		b.WriteString(show(v) + "\n")
	}
	return b.String()
}
