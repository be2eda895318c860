package main_test

import (
	"context"
	"database/sql"
	bits "encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/localkek"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

// marked is a CRM in which every personal text is a marker of its own.
type marked struct {
	data    string
	c       app.Config
	markers []string       // texts of persons, logins, numbers of documents
	secret  []string       // ids, sealed values, tokens and MACs, as bytes or texts
	count   map[string]int // records of each type, the bin included
	erased  *crm.Lead
}

// mark sets every text of a record to a marker, and notes it.
func (m *marked) mark(v any, typ string) {
	val := reflect.ValueOf(v).Elem()
	for i := range val.NumField() {
		if !val.Type().Field(i).IsExported() {
			continue
		}
		into, ok := val.Field(i).Addr().Interface().(*crm.Text)
		if !ok {
			continue
		}
		name := strings.ToLower(val.Type().Field(i).Name)
		marker := fmt.Sprintf("zqmarker-%s-%s-%d", typ, name, len(m.markers))
		if name == "email" {
			marker += "@real.example"
		}
		*into = crm.NewText(marker)
		m.markers = append(m.markers, marker)
	}
}

func (m *marked) number(what string) string {
	n := fmt.Sprintf("ZQ-%s-%d", what, len(m.markers)+100000)
	m.markers = append(m.markers, n)
	return n
}

func store[T any](t testing.TB, m *marked, typ string, create func(context.Context, []*T) ([]error, error), all ...*T) {
	t.Helper()
	for _, v := range all {
		m.mark(v, typ)
	}
	errs, err := create(t.Context(), all)
	require.NoError(t, err, typ)
	for _, err := range errs {
		require.NoError(t, err, typ)
	}
	m.count[typ] += len(all)
}

func newMarked(t *testing.T, dsn string) *marked {
	t.Helper()
	m := &marked{data: filepath.Join(t.TempDir(), "data"), count: map[string]int{}}
	m.c = app.Config{Data: m.data, DB: dsn}
	ctx := t.Context()
	a, err := app.Open(ctx, m.c)
	require.NoError(t, err)
	_, err = a.Populate(ctx)
	require.NoError(t, err)
	in := app.System("seed")
	at := time.Date(2026, 3, 4, 5, 6, 7, 891000, time.UTC)

	boss := &crm.Employee{Roles: []string{"manager"}, State: crm.EmployeeActive, Joined: at}
	boss.Team = "/east/"
	sales := &crm.Employee{Roles: []string{"sales"}, State: crm.EmployeeActive, Joined: at}
	sales.Team = "/east/1/"
	store(t, m, "employee", func(ctx context.Context, v []*crm.Employee) ([]error, error) {
		return a.Employees.CreateAll(ctx, in, v)
	}, boss, sales)
	_, err = a.AddAccount(ctx, sales.Email.Expose(), sales.ID.UUID())
	require.NoError(t, err)

	var customers []*crm.Customer
	for i := range 4 {
		c := &crm.Customer{Kind: crm.CompanyCustomer, Stage: crm.CustomerNew, City: "Ulm", Currency: "EUR", OpenValue: int64(i) * 1000, LastFollowUp: at, ExternalID: m.number("ext")}
		if i == 0 {
			c.Kind = crm.PersonCustomer
		}
		c.Owner, c.Team, c.CreatedAt = sales.ID, sales.Team, at
		customers = append(customers, c)
	}
	store(t, m, "customer", func(ctx context.Context, v []*crm.Customer) ([]error, error) {
		return a.Customers.CreateAll(ctx, in, v)
	}, customers...)
	c := customers[0]
	meta := func() crm.Header { return crm.Header{Owner: sales.ID.UUID(), Team: sales.Team, CreatedAt: at} }
	contact := &crm.Contact{Customer: c.ID, Title: "Engineer"}
	contact.SetHeader(meta())
	store(t, m, "contact", func(ctx context.Context, v []*crm.Contact) ([]error, error) { return a.Contacts.CreateAll(ctx, in, v) }, contact)
	m.erased = &crm.Lead{State: crm.LeadNew, City: "Ulm"}
	lead := &crm.Lead{State: crm.LeadNew, City: "Ulm"}
	lead.SetHeader(meta())
	lead.Person = c.Person // the same human
	m.erased.SetHeader(meta())
	store(t, m, "lead", func(ctx context.Context, v []*crm.Lead) ([]error, error) { return a.Leads.CreateAll(ctx, in, v) }, lead, m.erased)
	follow := &crm.FollowUp{SubjectType: crm.TypeCustomer, Subject: c.ID.UUID(), Customer: c.ID, Channel: crm.ChannelCall, At: at}
	follow.SetHeader(meta())
	follow.Person = c.Person
	store(t, m, "follow_up", func(ctx context.Context, v []*crm.FollowUp) ([]error, error) {
		return a.FollowUps.CreateAll(ctx, in, v)
	}, follow)
	q := &crm.Quote{Number: m.number("quote"), Customer: c.ID, Currency: "EUR", State: crm.QuoteDraft, Lines: []crm.Line{{Product: "Gauge", Quantity: 2, UnitPrice: 500}}}
	require.NoError(t, q.Compute())
	q.SetHeader(meta())
	store(t, m, "quote", func(ctx context.Context, v []*crm.Quote) ([]error, error) { return a.Quotes.CreateAll(ctx, in, v) }, q)
	k := &crm.Contract{Number: m.number("contract"), Customer: c.ID, Quote: q.ID, SignatoryPerson: contact.Person, Amount: 1000, Currency: "EUR", State: crm.ContractDraft}
	k.SetHeader(meta())
	store(t, m, "contract", func(ctx context.Context, v []*crm.Contract) ([]error, error) {
		return a.Contracts.CreateAll(ctx, in, v)
	}, k)
	ticket := &crm.Ticket{Number: m.number("ticket"), Customer: c.ID, Priority: crm.PriorityHigh, State: crm.TicketOpen, DueAt: at}
	ticket.SetHeader(meta())
	store(t, m, "ticket", func(ctx context.Context, v []*crm.Ticket) ([]error, error) { return a.Tickets.CreateAll(ctx, in, v) }, ticket)
	// Somebody asked for a break-glass access, in words.
	var admin *crm.Employee
	staff, err := a.Employees.List(ctx, in, guard.Query{Limit: 10})
	require.NoError(t, err)
	for i := range staff.Items {
		if e := staff.Items[i].Value; slices.Contains(e.Roles, "admin") {
			admin = e
		}
	}
	require.NotNil(t, admin)
	subject, err := a.Subject(ctx, admin.ID.UUID())
	require.NoError(t, err)
	e := &crm.Emergency{RecordType: crm.TypeCustomer, Hours: 1, State: crm.EmergencyRequested}
	m.mark(e, "emergency")
	require.NoError(t, a.RequestEmergency(ctx, guard.Caller{Subject: subject}, e))
	require.NoError(t, a.Customers.Delete(ctx, guard.Caller{Subject: subject}, customers[3].ID.UUID(), 1))

	// What nobody may be known by.
	for _, typ := range []string{"customer", "contact", "lead", "follow_up", "quote", "contract", "ticket", "employee", "account", "emergency", "certification"} {
		page, err := a.Store().List(ctx, crm.Query{Tenant: app.Tenant, Type: typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000})
		require.NoError(t, err)
		require.NotEmpty(t, page.Rows, typ)
		for _, r := range page.Rows {
			for _, u := range append(r.Persons, r.ID) {
				m.secret = append(m.secret, string(u[:]), u.String())
			}
			m.secret = append(m.secret, string(r.MAC))
			for _, f := range r.Sealed {
				m.secret = append(m.secret, string(f.Data[len(f.Data)-16:]), string(f.Data[:16]))
				for _, tok := range f.Tokens {
					m.secret = append(m.secret, string(bits.BigEndian.AppendUint64(nil, uint64(tok.Value))))
				}
			}
		}
	}
	require.NoError(t, a.Close())
	for _, key := range []string{"kek.local", "signing.key"} {
		b, err := os.ReadFile(filepath.Join(m.data, key))
		require.NoError(t, err)
		m.secret = append(m.secret, strings.TrimSpace(string(b)))
	}
	return m
}

// erase destroys the keys of the second lead's person.
func (m *marked) erase(t testing.TB, driver, dsn string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	defer db.Close()
	dialect := "sqlite"
	if driver == "pgx" {
		dialect = "postgres"
	}
	stored, err := keystore.Open(t.Context(), db, dialect, nil)
	require.NoError(t, err)
	kek, err := localkek.Open(filepath.Join(m.data, "kek.local"), nil)
	require.NoError(t, err)
	keeper, err := encrypt.NewKeeper(kek, stored, &encrypt.Options{Grace: -1})
	require.NoError(t, err)
	_, err = keeper.Erase(t.Context(), app.Tenant, m.erased.Person.UUID(), nil)
	require.NoError(t, err)
}

// TestSandbox: a sandbox of a CRM full of markers has none of them, nor an id, token or sealed byte of it, in any file or page, and is a
// whole CRM all the same.
func TestSandbox(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		m := newMarked(t, "")
		m.erase(t, "sqlite", "file:"+filepath.Join(m.data, "crm.db")+"?_pragma=secure_delete(1)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
		testSandbox(t, m, nil, nil)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		pg := realtest.Postgres(t)
		m := newMarked(t, pg.DSN)
		m.erase(t, "pgx", pg.DSN)
		into := realtest.Postgres(t)
		testSandbox(t, m, []string{"--db", pg.DSN}, into)
	})
}

func testSandbox(t *testing.T, m *marked, flags []string, pg *realtest.PostgresServer) {
	with := func(args ...string) []string { return append(append(args, "--data", m.data), flags...) }
	mustRun(t, nil, with("backup", "--incremental")...)
	assert.Contains(t, mustRun(t, nil, with("backup", "--incremental")...), "it is on 1 before")
	into := filepath.Join(t.TempDir(), "sandbox")
	args := with("restore", "--sandbox", into)
	of := []string{"--data", into, "--seed=false"}
	if pg != nil {
		args = append(args, "--sandbox-db", pg.DSN)
		of = append(of, "--db", pg.DSN)
	}
	before, err := os.ReadFile(filepath.Join(m.data, "kek.local"))
	require.NoError(t, err)
	// It takes the recovery key, and no KEK.
	require.NoError(t, os.Rename(filepath.Join(m.data, "kek.local"), filepath.Join(m.data, "away")))
	out := mustRun(t, nil, args...)
	require.NoError(t, os.Rename(filepath.Join(m.data, "away"), filepath.Join(m.data, "kek.local")))
	assert.Contains(t, out, "persons and texts in it are invented")
	left, err := filepath.Glob(filepath.Join(filepath.Dir(into), "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{into}, left, "nothing lies beside it")

	passwords, logins := map[string]string{}, map[string]string{}
	for _, l := range regexp.MustCompile(`(?m)^  (\w+) +(\S+@sandbox\.invalid) +(\S+)$`).FindAllStringSubmatch(out, -1) {
		logins[l[1]], passwords[l[1]] = l[2], l[3]
	}
	require.Contains(t, passwords, "admin")
	require.Contains(t, passwords, "manager")
	require.Contains(t, passwords, "sales")

	m.markers = append(m.markers, "admin@demo.example")
	texts, raw := newNeedles(t, m.markers), newNeedles(t, m.secret)
	both := func(place string, b []byte) {
		texts.search(place, b)
		raw.search(place, b)
	}
	folder := func(when string) {
		t.Helper()
		size := texts.folder(t, into)
		raw.folder(t, into)
		if pg != nil {
			_, err := pg.DB.Exec("CHECKPOINT")
			require.NoError(t, err)
			if pg.Dir != "" { // of this database: the cluster has the other one too
				var oid string
				require.NoError(t, pg.DB.QueryRow("SELECT oid FROM pg_database WHERE datname = current_database()").Scan(&oid))
				size += texts.folder(t, filepath.Join(pg.Dir, "base", oid))
				raw.folder(t, filepath.Join(pg.Dir, "base", oid))
			}
		}
		require.Empty(t, texts.found, when)
		require.Empty(t, raw.found, when)
		t.Logf("%s: %d markers and %d ids, sealed values, tokens, MACs and keys, not one found in %d bytes", when, len(m.markers), len(m.secret), size)
	}
	both("the output", []byte(out))
	folder("made")
	green(t, nil, of...)

	p := serve(t, into, nil, of[2:]...)
	admin := p.client(t)
	gate := admin.get(t, "/sign-in")
	assert.Contains(t, gate.body, "This is a sandbox")
	require.Equal(t, http.StatusOK, admin.post(t, "/sign-in", url.Values{"email": {logins["admin"]}, "password": {passwords["admin"]}}).status)
	r := admin.post(t, "/password", url.Values{"old": {passwords["admin"]}, "new": {newPassword}, "again": {newPassword}})
	require.Equal(t, http.StatusOK, r.status, r.body)

	// Lists, records, exports and the log, by page and API, with the same numbers as there.
	ids := map[string][]string{}
	for path, typ := range map[string]string{
		"customers": "customer", "contacts": "contact", "leads": "lead", "follow-ups": "follow_up", "quotes": "quote",
		"contracts": "contract", "tickets": "ticket", "employees": "employee",
	} {
		page := admin.get(t, "/"+path)
		require.Equal(t, http.StatusOK, page.status, path)
		assert.Contains(t, page.body, "This is a sandbox", path)
		both(path, []byte(page.body))
		all := walk(t, admin, "/api/v1/"+path+"?limit=200")
		want := m.count[typ]
		switch typ {
		case "customer":
			want-- // in the bin
		case "employee":
			want++ // the administrator
		}
		assert.Len(t, all, want, path)
		for _, rec := range all {
			ids[typ] = append(ids[typ], rec.ID)
			page := admin.get(t, "/"+path+"/"+rec.ID)
			require.Equal(t, http.StatusOK, page.status, path)
			both(path+"/"+rec.ID, []byte(page.body))
			full := admin.get(t, "/api/v1/"+path+"/"+rec.ID)
			require.Equal(t, http.StatusOK, full.status)
			both("api "+path, []byte(full.body))
		}
	}
	bin := admin.get(t, "/customers?show=bin")
	both("the bin", []byte(bin.body))
	assert.Regexp(t, `href="/customers/[0-9a-f-]{36}"`, bin.body, "what is in the bin is in the bin")
	for _, path := range []string{"/", "/log", "/backups", "/search", "/emergencies", "/exports", "/delegations", "/sharings", "/certifications", "/campaigns"} {
		page := admin.get(t, path)
		require.Equal(t, http.StatusOK, page.status, path)
		assert.Contains(t, page.body, "This is a sandbox", path)
		both(path, []byte(page.body))
	}
	require.Equal(t, http.StatusOK, admin.post(t, "/language", url.Values{"lang": {"zh-CN"}, "back": {"/customers"}}).status)
	assert.Contains(t, admin.get(t, "/customers").body, "这是沙箱")
	require.Equal(t, http.StatusOK, admin.post(t, "/language", url.Values{"lang": {"en"}, "back": {"/customers"}}).status)

	// References are whole, and one human is one invented human.
	person := one(t, admin.get(t, "/api/v1/contacts/"+ids["contact"][0]))
	deal := one(t, admin.get(t, "/api/v1/contracts/"+ids["contract"][0]))
	assert.Contains(t, ids["customer"], person.Fields["customer"].Value)
	assert.Equal(t, person.Fields["customer"].Value, deal.Fields["customer"].Value)
	assert.Equal(t, ids["quote"][0], deal.Fields["quote"].Value)
	assert.Equal(t, person.Fields["name"].Value, deal.Fields["signatory"].Value, "who signs is the contact")
	of1 := one(t, admin.get(t, "/api/v1/customers/"+person.Fields["customer"].Value.(string)))
	var same, empty int
	for _, id := range ids["lead"] {
		l := one(t, admin.get(t, "/api/v1/leads/"+id))
		switch l.Fields["name"].Value {
		case of1.Fields["name"].Value:
			same++
			assert.Equal(t, of1.Fields["email"].Value, l.Fields["email"].Value)
		case nil, "":
			empty++ // who was erased is not invented anew
		}
	}
	assert.Equal(t, []int{1, 1}, []int{same, empty})
	assert.Equal(t, "Ulm", of1.Fields["city"].Value)
	assert.Contains(t, ids["employee"], of1.Fields["owner"].Value)

	// Search finds by the tokens that were made anew; nothing is found by what was.
	hits := items(t, admin.postJSON(t, "/api/v1/customers/search", fmt.Sprintf(`{"term":%q}`, of1.Fields["email"].Value)))
	require.Len(t, hits, 1)
	assert.Equal(t, of1.ID, hits[0].ID)
	i := slices.IndexFunc(m.markers, func(s string) bool { return strings.HasPrefix(s, "zqmarker-customer-email") })
	assert.Empty(t, items(t, admin.postJSON(t, "/api/v1/customers/search", fmt.Sprintf(`{"term":%q}`, m.markers[i]))))

	// It is a CRM to work in; who could sign in there cannot here.
	created := admin.post(t, "/follow-ups", url.Values{"customer": {of1.ID}, "channel": {"call"}, "at": {"2026-05-02T10:00"}, "text": {"typed in the sandbox"}})
	require.Equal(t, http.StatusOK, created.status)
	stranger := p.client(t)
	refused := stranger.post(t, "/sign-in", url.Values{"email": {"admin@demo.example"}, "password": {newPassword}})
	assert.Equal(t, http.StatusUnauthorized, refused.status)
	both("the program's output", []byte(p.output.String()))
	// What was typed above is in no file but sealed.
	texts.found, raw.found = map[string]string{}, map[string]string{}
	folder("in use, with its write-ahead log")
	p.stop(t)
	folder("after its end")
	green(t, nil, of...)

	// The living CRM is as it was, and its log says that there is a sandbox.
	now, err := os.ReadFile(filepath.Join(m.data, "kek.local"))
	require.NoError(t, err)
	assert.Equal(t, before, now)
	green(t, nil, with()...)
	assert.Len(t, notes(t, m.data), 1, "the KEK was away, so the log could not be written: a note waits")
	second := filepath.Join(t.TempDir(), "second")
	if pg == nil {
		mustRun(t, nil, with("restore", "--sandbox", second)...)
		assert.Empty(t, notes(t, m.data))
		a, err := app.Open(t.Context(), m.c)
		require.NoError(t, err)
		assert.Equal(t, uint64(2), events(t, a, "backup.sandbox"))
		require.NoError(t, a.Close())
		kek, err := os.ReadFile(filepath.Join(into, "kek.local"))
		require.NoError(t, err)
		other, err := os.ReadFile(filepath.Join(second, "kek.local"))
		require.NoError(t, err)
		assert.NotEqual(t, kek, other, "each has its own keys")
	}

	// The control: the same search finds them in the living CRM's own output of a sealed value and in its database.
	there := newNeedles(t, m.secret)
	there.folder(t, m.data)
	if pg == nil {
		assert.Greater(t, len(there.found), len(m.secret)/2, "the search would find them")
	}
}

func notes(t testing.TB, data string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "sandboxes", "*.json"))
	require.NoError(t, err)
	return list
}

func events(t testing.TB, a *app.App, action string) (n uint64) {
	t.Helper()
	found, err := a.Log.Query(t.Context(), audit.Filter{Action: action}, a.Log.Size(), 100)
	require.NoError(t, err)
	return uint64(len(found))
}

// TestSandboxRefused: a sandbox is refused as another restore is, and leaves nothing behind.
func TestSandboxRefused(t *testing.T) {
	data, _ := filled(t, 20, nil)
	with := func(args ...string) []string { return append(args, "--data", data) }
	mustRun(t, nil, with("backup")...)
	parent := t.TempDir()
	into := filepath.Join(parent, "sandbox")
	refused := func(want string, args ...string) {
		t.Helper()
		out, code := run(t, nil, with(append([]string{"restore"}, args...)...)...)
		require.NotZero(t, code, out)
		assert.Contains(t, out, want)
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		assert.Empty(t, left, want)
	}
	other, err := backupkey.Generate()
	require.NoError(t, err)
	wrong := filepath.Join(t.TempDir(), "other.key")
	require.NoError(t, other.WriteFile(wrong))
	refused("the key does not fit", "--sandbox", into, "--recovery-key", wrong)
	refused("key file", "--sandbox", into, "--recovery-key", filepath.Join(parent, "none"))
	refused("not found", "--sandbox", into, "00112233445566778899aabbccddeeff")
	refused("not found", "--sandbox", into, "--at", "2001-01-01T00:00:00Z")
	refused("the folder of the sandbox", "--sandbox", data)
	refused("--keys does not", "--sandbox", into, "--keys")
	refused("--sandbox-db goes with it", "--sandbox-db", "postgres://nowhere.invalid/x")
	refused("PostgreSQL", "--sandbox", into, "--sandbox-db", "postgres://localhost:1/x")

	db, err := sql.Open("sqlite", filepath.Join(data, "crm.db"))
	require.NoError(t, err)
	// A table and a column that no rule names: nothing of them arrives, and nothing else does.
	_, err = db.Exec(`CREATE TABLE diary (text TEXT); INSERT INTO diary VALUES ('zqmarker of a real person')`)
	require.NoError(t, err)
	mustRun(t, nil, with("backup")...)
	refused("no rule names table diary", "--sandbox", into)
	_, err = db.Exec(`DROP TABLE diary; ALTER TABLE crm_rows_customer ADD COLUMN c_nickname TEXT DEFAULT 'zqmarker'`)
	require.NoError(t, err)
	mustRun(t, nil, with("backup")...)
	refused("no rule names column c_nickname of table crm_rows_customer", "--sandbox", into)
	require.NoError(t, db.Close())
}

// TestSandboxStale: where the newest list of tombstones is gone, a sandbox is refused.
func TestSandboxStale(t *testing.T) {
	m := newMarked(t, "")
	m.erase(t, "sqlite", "file:"+filepath.Join(m.data, "crm.db")+"?_pragma=secure_delete(1)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	mustRun(t, nil, "backup", "--data", m.data)
	into := filepath.Join(t.TempDir(), "sandbox")
	lists, err := filepath.Glob(filepath.Join(m.data, "backup", "tombstones", "*"))
	require.NoError(t, err)
	require.NotEmpty(t, lists)
	kept := map[string][]byte{}
	for _, l := range lists {
		if kept[l], err = os.ReadFile(l); err == nil {
			require.NoError(t, os.Remove(l))
		}
	}
	out, code := run(t, nil, "restore", "--sandbox", into, "--data", m.data)
	require.NotZero(t, code, out)
	assert.Contains(t, out, "older than what was seen")
	assert.NoDirExists(t, into)
	for l, b := range kept {
		changed := append(slices.Clone(b[:len(b)-1]), b[len(b)-1]^1)
		require.NoError(t, os.WriteFile(l, changed, 0o600))
	}
	out, code = run(t, nil, "restore", "--sandbox", into, "--data", m.data)
	require.NotZero(t, code, out)
	assert.Contains(t, out, "damaged, forged or missing")
	assert.NoDirExists(t, into)
	for l, b := range kept {
		require.NoError(t, os.WriteFile(l, b, 0o600))
	}
	mustRun(t, nil, "restore", "--sandbox", into, "--data", m.data)
}
