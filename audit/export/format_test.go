package export_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/export"
	"github.com/crmguard/crmguard/audit/memstore"
)

const origin = "crm.example.com/log"

var (
	ctx    = context.Background()
	update = flag.Bool("update", false, "write the golden files anew")
	source = export.Source{Origin: origin, Vendor: "Example", Product: "CRM", Version: "2.1"}
)

func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 89000000, time.UTC) }

func openLog(t testing.TB) *audit.Log {
	t.Helper()
	l, err := audit.Open(ctx, memstore.New(), audittest.Signer(t, origin), &audit.Options{Clock: clock, Sealer: audittest.NewSealer()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed,
			Actor: "emp-7", Targets: []audit.Target{{Type: "customer", ID: fmt.Sprint("c-", i)}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// entryOf returns an entry whose hashes are made from its index.
func entryOf(index uint64, e audit.Event) audit.Entry {
	out := audit.Entry{Event: e, Receipt: audit.Receipt{Index: index}}
	for i := range out.Leaf {
		out.Leaf[i], out.Chain[i] = byte(int(index)+i), byte(int(index)-i)
	}
	return out
}

const secret = "电话 13800000000"

// samples has an event for each activity, with the outcomes in turn.
func samples() (names []string, list []audit.Entry) {
	words := []struct {
		name, action, target string
	}{
		{"other", "system.tick", ""}, {"create", "customer.create", "customer"}, {"read", "customer.read", "customer"},
		{"update", "customer.update", "customer"}, {"delete", "customer.delete", "customer"}, {"list", "customer.list", "customer"},
		{"search", "customer.search", "customer"}, {"export", "export.take", "customer"}, {"import", "customer.import", "customer"},
		{"encrypt", "field.seal", "customer"}, {"decrypt", "field.open", "customer"}, {"logon", "session.sign_in", ""},
		{"logoff", "session.sign_out", ""}, {"grant", "role.grant", "account"}, {"revoke", "role.revoke", "account"},
		{"erase", "person.erase", "customer"}, {"backup", "backup.snapshot", "snapshot"}, {"restore", "backup.restore", "snapshot"},
		{"configure", "policy.configure", "policy"}, {"approve", "export.approve", "request"},
		{"account-create", "account.create", "account"}, {"account-password", "account.password", "account"},
		{"account-delete", "account.delete", "account"}, {"account-update", "account.update", "account"}, {"later", "future.thing", ""},
	}
	special := map[string]audit.Activity{"account-create": audit.Create, "account-password": audit.Update,
		"account-delete": audit.Delete, "account-update": audit.Update, "later": 77}
	for i, w := range words {
		activity, ok := special[w.name]
		if !ok {
			activity = audit.Activity(i)
		}
		e := audit.Event{Time: clock().Add(time.Duration(i) * time.Second), Action: w.action, Activity: activity,
			Outcome: audit.Outcome(i%5 + 1), Actor: "emp-7"}
		if w.target != "" {
			e.Targets = []audit.Target{{Type: w.target, ID: fmt.Sprint(w.target, "-", i), Version: 3, Digest: []byte{1, 2}}, {Type: "deal", ID: "d-1"}}
		}
		if i%2 == 0 {
			e.Session, e.Tenant, e.Purpose, e.Decision, e.Policy = "s-1", "default", "service", "dec-9", "sha256:ab"
			e.Controls, e.Fields = []string{"rbac", "mac"}, []string{"name", "phone"}
		}
		if i%3 == 0 {
			d := audit.Personal("search.term", [16]byte{1}, secret)
			d.Commitment = [32]byte{byte(i), 2, 3}
			e.Details, e.Count, e.Note = []audit.Detail{d}, int64(i), "machine=text | more"
			e.Ref, e.HasRef = uint64(i), true
		}
		names = append(names, w.name)
		list = append(list, entryOf(uint64(100+i), e))
	}
	return names, list
}

var formats = map[string]export.Format{"ocsf": export.OCSF(source), "cef": export.CEF(source), "ecs": export.ECS(source)}

func TestGolden(t *testing.T) {
	names, list := samples()
	for i, e := range list {
		got := ""
		for _, f := range []string{"cef", "ecs", "ocsf"} {
			got += string(formats[f](e)) + "\n"
		}
		path := filepath.Join("testdata", "golden", names[i])
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", names[i], got, want)
		}
	}
}

// Every record has the index, both hashes and the commitments, and none has a
// personal value.
func TestProofAndNoPersonalData(t *testing.T) {
	names, list := samples()
	for i, e := range list {
		for f, format := range formats {
			got := string(format(e))
			want := []string{fmt.Sprint(e.Index), hex.EncodeToString(e.Leaf[:]), hex.EncodeToString(e.Chain[:])}
			for _, d := range e.Event.Details {
				want = append(want, hex.EncodeToString(d.Commitment[:]))
			}
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("%s of %s lacks %s: %s", f, names[i], w, got)
				}
			}
			if strings.Contains(got, "13800000000") || strings.Contains(got, "电话") {
				t.Errorf("%s of %s has a personal value", f, names[i])
			}
		}
	}
}

// The attributes that OCSF 1.7.0 requires of each class, and its constraints.
func TestOCSFRequired(t *testing.T) {
	base := []string{"activity_id", "category_uid", "class_uid", "metadata.product.vendor_name", "metadata.version", "severity_id", "time", "type_uid"}
	required := map[float64][]string{
		3001: {"user.uid"}, 3002: {"user.uid", "service.name"}, 3005: {"user.uid"},
		6003: {"actor.user.uid", "api.operation", "src_endpoint.name"},
		6005: {"actor.user.uid", "src_endpoint.name", "database.name", "database.type_id"},
	}
	seen := map[float64]bool{}
	names, list := samples()
	for i, e := range list {
		for outcome := range audit.Outcome(7) {
			e.Event.Outcome = outcome
			for _, bare := range []bool{false, true} {
				if bare {
					e.Event.Actor, e.Event.Targets = "", nil
				}
				var v map[string]any
				if err := json.Unmarshal(formats["ocsf"](e), &v); err != nil {
					t.Fatal(err)
				}
				class := v["class_uid"].(float64)
				seen[class] = true
				if v["type_uid"].(float64) != class*100+v["activity_id"].(float64) || v["category_uid"].(float64) != float64(int(class)/1000) {
					t.Errorf("%s: %v", names[i], v["type_uid"])
				}
				for _, path := range append(base, required[class]...) {
					var at any = v
					for _, k := range strings.Split(path, ".") {
						m, _ := at.(map[string]any)
						at = m[k]
					}
					if at == nil || at == "" {
						t.Errorf("%s (%v): no %s", names[i], class, path)
					}
				}
			}
		}
	}
	if len(seen) != 5 {
		t.Errorf("classes: %v", seen)
	}
}

func TestSeverity(t *testing.T) {
	for _, c := range []struct {
		e    audit.Event
		want int
	}{
		{audit.Event{Outcome: audit.Allowed}, 1}, {audit.Event{Outcome: audit.Intended}, 1}, {audit.Event{Outcome: audit.Denied}, 2},
		{audit.Event{Outcome: audit.Failed}, 3}, {audit.Event{Action: "audit.recovered", Outcome: audit.Allowed}, 4}, {audit.Event{Action: "export.gap"}, 4},
	} {
		if got := export.SeverityOf(c.e); got != c.want {
			t.Errorf("%+v: %d", c.e, got)
		}
	}
}

var extKeys = regexp.MustCompile(`(?:^| )([A-Za-z0-9]+)=`)

// parseCEF is a reader of CEF as its documentation says, made for this test.
func parseCEF(t testing.TB, s string) (header [7]string, ext map[string]string) {
	t.Helper()
	rest, ok := strings.CutPrefix(s, "CEF:")
	if !ok {
		t.Fatalf("not CEF: %q", s)
	}
	for i := range header {
		var b strings.Builder
		for {
			if rest == "" {
				t.Fatalf("%d bars: %q", i, s)
			}
			c := rest[0]
			rest = rest[1:]
			if c == '|' {
				break
			}
			if c == '\\' {
				if rest == "" || (rest[0] != '|' && rest[0] != '\\') {
					t.Fatalf("a lone backslash in the header: %q", s)
				}
				c = rest[0]
				rest = rest[1:]
			}
			b.WriteByte(c)
		}
		header[i] = b.String()
	}
	ext = map[string]string{}
	keys := extKeys.FindAllStringSubmatchIndex(rest, -1)
	for i, k := range keys {
		end := len(rest)
		if i+1 < len(keys) {
			end = keys[i+1][0]
		}
		var b strings.Builder
		value := rest[k[1]:end]
		for j := 0; j < len(value); j++ {
			if value[j] == '\\' {
				if j++; j == len(value) || (value[j] != '\\' && value[j] != '=') {
					t.Fatalf("a lone backslash in a value: %q", s)
				}
			} else if value[j] == '=' {
				t.Fatalf("a bare equals sign in a value: %q", s)
			}
			b.WriteByte(value[j])
		}
		if _, twice := ext[rest[k[2]:k[3]]]; twice {
			t.Fatalf("a key twice: %q", s)
		}
		ext[rest[k[2]:k[3]]] = b.String()
	}
	if len(keys) == 0 || keys[0][0] != 0 {
		t.Fatalf("the extension does not begin with a key: %q", s)
	}
	return header, ext
}

func oneLine(t testing.TB, b []byte) {
	t.Helper()
	if len(b) == 0 || !utf8.Valid(b) {
		t.Fatalf("not UTF-8: %q", b)
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\u202e' {
			t.Fatalf("%U in %q", r, b)
		}
	}
}

var attacks = []string{
	"x|10|rt=0", "a=b suid=root", "a\\=b", `\`, `\\|`, "x\nCEF:0|fake|fake|1|1|fake|10|", "x\r\n<110>1 - - - - - -", "a\x00b\x1b[31m", "tab\there",
	"\u2028\u2029\u202e\u0085", "\xff\xfe", "", " ", "suid=root", "|", "=", strings.Repeat("=", 300), strings.Repeat("|\\", 4000), strings.Repeat("长", 5000),
	`"] injected [x@1 y="`, "17 <110>1",
}

// What a text holds never becomes a field, a record or a frame.
func TestInjection(t *testing.T) {
	sink := tlsSink(t, "127.0.0.1:1", nil, nil)
	for _, s := range attacks {
		injected(t, sink, s, s, s, s)
	}
}

func injected(t testing.TB, sink *export.Syslog, action, actor, id, note string) {
	t.Helper()
	e := entryOf(7, audit.Event{Time: clock(), Action: action, Activity: audit.Read, Outcome: audit.Allowed, Actor: actor,
		Targets: []audit.Target{{Type: id, ID: id}, {Type: "account", ID: id}}, Note: note, Fields: []string{note, id}, Tenant: note, Session: id, Purpose: note,
		Decision: note, Policy: actor, Controls: []string{action, note}, Details: []audit.Detail{{Name: note}}})
	src := export.Source{Origin: note, Vendor: action, Product: id, Version: actor}
	body := export.CEF(src)(e)
	oneLine(t, body)
	if len(body) > 7700 {
		t.Fatalf("%d bytes: %q", len(body), body)
	}
	header, ext := parseCEF(t, string(body))
	same := func(what, got, want string) {
		t.Helper()
		want = export.Clean(want)
		short, cut := strings.CutSuffix(got, "...")
		if got != want && !(cut && strings.HasPrefix(want, short)) {
			t.Fatalf("%s is %q, want %q", what, got, want)
		}
	}
	same("signature", header[4], action)
	same("suid", ext["suid"], actor)
	same("duid", ext["duid"], id)
	same("reason", ext["reason"], note)
	if ext["externalId"] != "7" || ext["outcome"] != "success" || ext["cat"] != "Read" || ext["cs1Label"] != "leaf" || ext["cs1"] != hex.EncodeToString(e.Leaf[:]) {
		t.Fatalf("%q", ext)
	}
	for k := range ext {
		if !regexp.MustCompile(`^(rt|externalId|act|cat|outcome|suid|duid|reason|c[sn]\d(Label)?|flexString\d(Label)?|crmguard[A-Z][a-z]+)$`).MatchString(k) {
			t.Fatalf("a field %q: %q", k, body)
		}
	}
	for _, format := range []export.Format{export.OCSF(src), export.ECS(src)} {
		b := format(e)
		oneLine(t, b)
		if !json.Valid(b) {
			t.Fatalf("not JSON: %s", b)
		}
	}
	frame, err := sink.Message(export.Record{Index: 7, Leaf: e.Leaf, Time: e.Event.Time, Severity: 1, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	var n, used int
	if _, err := fmt.Sscanf(string(frame), "%d ", &n); err != nil {
		t.Fatal(err)
	}
	used = strings.IndexByte(string(frame), ' ') + 1
	if len(frame)-used != n || n > 8192 {
		t.Fatalf("a frame of %d bytes says %d", len(frame)-used, n)
	}
	oneLine(t, frame)
	if !strings.HasPrefix(string(frame[used:]), fmt.Sprintf("<110>1 2026-03-04T05:06:07.089000Z crm-1 crmguard - audit [crmguard@32473 index=\"7\" leaf=%q] CEF:0|", hex.EncodeToString(e.Leaf[:]))) {
		t.Fatalf("%q", frame)
	}
}

// A record with more than a log line holds stays a log line.
func TestCEFBound(t *testing.T) {
	e := audit.Event{Action: strings.Repeat("a=", 9000), Activity: audit.Update, Outcome: audit.Allowed, Note: strings.Repeat("=", 9000)}
	for i := range 1000 {
		e.Targets = append(e.Targets, audit.Target{Type: "customer", ID: fmt.Sprint("01890000-0000-7000-8000-", i)})
		e.Details = append(e.Details, audit.Detail{Name: "x"})
		e.Fields = append(e.Fields, "some_field_name")
	}
	b := string(export.CEF(source)(entryOf(1, e)))
	_, ext := parseCEF(t, b)
	if len(b) > 7700 || ext["cn2"] != "1000" || ext["cn3"] != "1000" || !strings.HasSuffix(ext["cs5"], "...") {
		t.Fatalf("%d bytes, %q", len(b), ext)
	}
}

func FuzzInjection(f *testing.F) {
	for i, s := range attacks {
		f.Add(s, attacks[(i+1)%len(attacks)], "c-1", "note")
	}
	sink := tlsSink(f, "127.0.0.1:1", nil, nil)
	f.Fuzz(func(t *testing.T, action, actor, id, note string) { injected(t, sink, action, actor, id, note) })
}

// A cursor has one spelling.
func FuzzCursor(f *testing.F) {
	f.Add([]byte("crmguard export cursor v1 7 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= 0 0 00000000\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := export.ParseCursor(b)
		if err == nil && string(again) != string(b) {
			t.Fatalf("two spellings of one cursor: %q", b)
		}
	})
}
