package rego_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
)

// keys returns a new pair of keys for signing, as PEM.
func keys(t testing.TB) (private, public []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	pub, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
}

// signed is the shipped policy as a bundle, made once.
var signed = sync.OnceValue(func() (b struct{ bundle, private, public []byte }) {
	t := &testing.T{}
	b.private, b.public = keys(t)
	var out bytes.Buffer
	if err := rego.SignBundle(context.Background(), &out, nil, b.private); err != nil {
		panic(err)
	}
	b.bundle = out.Bytes()
	return b
})

// unpack returns the files of a bundle, pack makes one of files.
func unpack(t testing.TB, bundle []byte) map[string][]byte {
	zip, err := gzip.NewReader(bytes.NewReader(bundle))
	require.NoError(t, err)
	out := map[string][]byte{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out[h.Name], err = io.ReadAll(in)
		require.NoError(t, err)
	}
}

func pack(t testing.TB, files map[string][]byte) []byte {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, name := range sorted(files) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(files[name])), Typeflag: tar.TypeReg}))
		_, err := w.Write(files[name])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zip.Close())
	return out.Bytes()
}

func filesOf(t testing.TB, policy fs.FS) map[string]string {
	out := map[string]string{}
	require.NoError(t, fs.WalkDir(policy, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(policy, name)
		out[name] = string(b)
		return err
	}))
	return out
}

// refusal demands a *LoadError whose text has each of says.
func refusal(t testing.TB, err error, says ...string) {
	t.Helper()
	var le *rego.LoadError
	require.ErrorAs(t, err, &le)
	for _, s := range says {
		assert.Contains(t, err.Error(), s)
	}
}

func TestSignedBundle(t *testing.T) {
	rego.Alone(t)
	b := signed()
	files, err := rego.OpenBundle(bytes.NewReader(b.bundle), b.public)
	require.NoError(t, err)
	e, err := rego.New(t.Context(), &rego.Options{Policy: files})
	require.NoError(t, err)
	assert.Equal(t, engine(t).Revision(), e.Revision(), "a folder and its bundle are the same policy")

	shipped, opened := filesOf(t, rego.Embedded()), filesOf(t, files)
	for name, text := range shipped {
		switch {
		case name == "data.json":
			assert.JSONEq(t, text, opened[name])
		case strings.HasSuffix(name, ".rego"):
			assert.Equal(t, text, opened[name], name)
		}
	}

	var none bytes.Buffer
	require.Error(t, rego.SignBundle(t.Context(), &none, nil, []byte("no key")))
	refusal(t, rego.SignBundle(t.Context(), &none, with(t, map[string]string{"data.json": `s/"all"/"everything"/`}), b.private), "unknown depth")
	assert.Zero(t, none.Len())
}

// TestDamagedBundles: whatever is done to a bundle, it is refused, or holds the very same policy.
func TestDamagedBundles(t *testing.T) {
	rego.Alone(t)
	b := signed()
	open := func(bundle []byte) error {
		_, err := rego.OpenBundle(bytes.NewReader(bundle), b.public)
		return err
	}
	t.Run("cut off", func(t *testing.T) {
		step := max(1, len(b.bundle)/200)
		for n := 0; n < len(b.bundle); n += step {
			refusal(t, open(b.bundle[:n]))
		}
		for n := range 40 {
			refusal(t, open(b.bundle[:len(b.bundle)-1-n]))
		}
	})
	t.Run("flipped", func(t *testing.T) {
		want := filesOf(t, must(rego.OpenBundle(bytes.NewReader(b.bundle), b.public)))
		flipped := slices.Clone(b.bundle)
		step := max(1, len(flipped)/300)
		same := 0
		for n := 0; n < len(flipped); n += step {
			flipped[n] ^= 1 << (n % 8)
			files, err := rego.OpenBundle(bytes.NewReader(flipped), b.public)
			if err == nil { // the header of gzip has bytes that say nothing
				same++
				assert.Equal(t, want, filesOf(t, files), "byte %d", n)
			} else {
				refusal(t, err)
			}
			flipped[n] ^= 1 << (n % 8)
		}
		assert.Less(t, same, 5)
	})
	t.Run("packed anew", func(t *testing.T) { require.NoError(t, open(pack(t, unpack(t, b.bundle)))) })
	change := func(f func(files map[string][]byte)) []byte {
		files := unpack(t, b.bundle)
		before := len(files)
		f(files)
		require.NotZero(t, before)
		return pack(t, files)
	}
	at := func(files map[string][]byte, end string) string {
		for name := range files {
			if strings.HasSuffix(name, end) {
				return name
			}
		}
		t.Fatalf("no %s in the bundle", end)
		return ""
	}
	_, other := keys(t)
	var shell bytes.Buffer
	zip := gzip.NewWriter(&shell)
	_, err := zip.Write(make([]byte, 64<<20)) // 64 MiB in 64 KiB
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	for name, c := range map[string]struct {
		bundle []byte
		key    []byte
		says   string
	}{
		"nothing":        {nil, nil, "no gzip"},
		"no gzip":        {[]byte("policy"), nil, "no gzip"},
		"more after it":  {append(slices.Clone(b.bundle), "more"...), nil, "bundle:"},
		"another key":    {b.bundle, other, "verif"},
		"no key":         {b.bundle, []byte("-----BEGIN"), "bundle:"},
		"an empty key":   {b.bundle, []byte{}, "bundle:"},
		"10 MB":          {make([]byte, 10<<20), nil, "larger than"},
		"64 MB, packed":  {shell.Bytes(), nil, "larger than"},
		"not signed":     {change(func(f map[string][]byte) { delete(f, at(f, ".signatures.json")) }), nil, "signature"},
		"an empty list":  {change(func(f map[string][]byte) { f[at(f, ".signatures.json")] = []byte(`{"signatures":[]}`) }), nil, "signature"},
		"another file":   {change(func(f map[string][]byte) { f["/crm/extra/extra.rego"] = []byte("package crm.extra\n\np := 1\n") }), nil, "extra"},
		"a stray file":   {change(func(f map[string][]byte) { f["/notes.txt"] = []byte("x") }), nil, "notes.txt"},
		"a file less":    {change(func(f map[string][]byte) { delete(f, at(f, "sod.rego")) }), nil, "sod.rego"},
		"a test less":    {change(func(f map[string][]byte) { delete(f, at(f, "sod_test.rego")) }), nil, "sod_test.rego"},
		"a changed rule": {change(func(f map[string][]byte) { n := at(f, "hold.rego"); f[n] = append(f[n], "\nfree := true\n"...) }), nil, "hold.rego"},
		"changed data": {change(func(f map[string][]byte) {
			n := at(f, "data.json")
			f[n] = bytes.Replace(f[n], []byte("own"), []byte("all"), 1)
		}), nil, "data.json"},
		"a changed module": {change(func(f map[string][]byte) { n := at(f, "mac.rego"); f[at(f, "sod.rego")] = f[n] }), nil, "sod.rego"},
	} {
		t.Run(name, func(t *testing.T) {
			key := c.key
			if key == nil {
				key = b.public
			}
			_, err := rego.OpenBundle(bytes.NewReader(c.bundle), key)
			refusal(t, err, c.says)
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestOPAInterop: the tool opa opens our bundles, and we open those that it makes.
func TestOPAInterop(t *testing.T) {
	rego.Alone(t)
	long(t)
	opa, err := filepath.Abs("../../bin/opa")
	require.NoError(t, err)
	if _, err := os.Stat(opa); err != nil {
		t.Skip("bin/opa is not built; make policy builds it")
	}
	dir := t.TempDir()
	in := dir
	run := func(args ...string) string {
		cmd := exec.Command(opa, args...)
		cmd.Dir = in
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "opa %v: %s", args, out)
		return string(out)
	}
	b := signed()
	write := func(name string, text []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	write("private.pem", b.private)
	write("public.pem", b.public)
	write("ours.tar.gz", b.bundle)
	// opa verifies ours while it reads it.
	run("build", "--bundle", "ours.tar.gz", "--verification-key", "public.pem", "--verification-key-id", "policy", "--signing-alg", "ES256",
		"--signing-key", "private.pem", "--output", "again.tar.gz")
	out := run("eval", "--bundle", "ours.tar.gz", "--format", "raw", "data.crm.authz.required")
	assert.Contains(t, out, "access.granted")

	for name, text := range filesOf(t, rego.Embedded()) {
		if !strings.HasPrefix(name, "schemas/") {
			write("policy/"+name, []byte(text))
		}
	}
	in = filepath.Join(dir, "policy") // so that its modules have the names of ours
	run("build", "--bundle", ".", "--signing-alg", "ES256", "--signing-key", "../private.pem", "--output", "../theirs.tar.gz")
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs.tar.gz"))
	require.NoError(t, err)
	files, err := rego.OpenBundle(bytes.NewReader(theirs), b.public)
	require.NoError(t, err)
	e, err := rego.New(t.Context(), &rego.Options{Policy: files})
	require.NoError(t, err)
	t.Logf("opa's bundle: revision %s, the folder's %s", e.Revision(), engine(t).Revision())
}

// setting returns the shipped data.json with another value at a path; nil removes it.
func setting(t testing.TB, at string, value any) string {
	text, err := fs.ReadFile(rego.Embedded(), "data.json")
	require.NoError(t, err)
	return settingIn(t, string(text), at, value)
}

func settingIn(t testing.TB, text, at string, value any) string {
	var root map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &root))
	m := root["settings"].(map[string]any)
	parts := strings.Split(at, ".")
	for _, p := range parts[:len(parts)-1] {
		next, ok := m[p].(map[string]any)
		require.True(t, ok, at)
		m = next
	}
	if last := parts[len(parts)-1]; value == nil {
		require.Contains(t, m, last)
		delete(m, last)
	} else {
		m[last] = value
	}
	out, err := json.Marshal(root)
	require.NoError(t, err)
	return string(out)
}

// TestSettings: each part of data.json that is wrong in one way is refused, and the place is named.
func TestSettings(t *testing.T) {
	rego.Alone(t)
	shipped := filesOf(t, rego.Embedded())
	load := func(t *testing.T, text string) error { // data are read before the absence of modules is noticed
		t.Helper()
		_, err := rego.New(t.Context(), &rego.Options{Policy: fstest.MapFS{"data.json": &fstest.MapFile{Data: []byte(text)}}})
		return err
	}
	refusal(t, load(t, shipped["data.json"]), "no modules")
	type M = map[string]any
	for _, c := range []struct {
		at    string
		value any
		says  string
	}{
		{"views.shred", "read", "views"},
		{"levels.open", 3, "levels"},
		{"levels.veiled", 1, "levels"},
		{"inherits.manager", []string{"boss"}, "boss"},
		{"inherits.sales", []string{"sales"}, "inherits itself"},
		{"inherits.sales", []string{"manager"}, "inherits itself"},
		{"grants.root", M{"customer": M{"read": "all"}}, `"root"`},
		{"grants.sales.customer.shred", "all", `"shred"`},
		{"grants.sales.customer.read", "some", `"some"`},
		{"grants.sales.customer.read", 1, "data.json"},
		{"fields.root", M{}, `"root"`},
		{"fields.sales.glance", M{}, `"glance"`},
		{"fields.sales.read.secret", "open", `"secret"`},
		{"fields.sales.read.personal", "half", `"half"`},
		{"field_overrides.root", M{}, `"root"`},
		{"field_overrides.sales.custmer", M{"note": M{"list": "hidden"}}, `"custmer"`},
		{"field_overrides.sales.customer.note.glance", "open", "note"},
		{"field_overrides.sales.customer.note.list", "half", "note"},
		{"reserved.root", "system", `"root"`},
		{"obligations_of.shred", []string{"reason"}, `"shred"`},
		{"frozen_states.payroll", []string{"x"}, `"payroll"`},
		{"certified_roles", []string{"root"}, `"root"`},
		{"exclusive_roles", [][]string{{"admin", "root"}}, `"root"`},
		{"exclusive_roles", [][]string{{"manager", "sales"}}, "inherits"},
		{"second_person_actions", []string{"shred"}, `"shred"`},
		{"mac.blind", []string{"shred"}, `"shred"`},
		{"mac.reading", []string{"shred"}, `"shred"`},
		{"mac.trusted", []string{"shred"}, `"shred"`},
		{"shareable_actions", []string{"shred"}, `"shred"`},
		{"shareable_types", []string{"payroll"}, `"payroll"`},
		{"delegable_actions", []string{"shred"}, `"shred"`},
		{"delegable_types", []string{"payroll"}, `"payroll"`},
		{"emergency.actions", []string{"shred"}, `"shred"`},
		{"emergency.types", []string{"payroll"}, `"payroll"`},
		{"emergency.approvers", 0, "approvers"},
		{"emergency.approvers", "2", "data.json"},
		{"context.hours.actions", []string{"shred"}, `"shred"`},
		{"context.hours.types", []string{"payroll"}, `"payroll"`},
		{"context.hours.roles", []string{"root"}, `"root"`},
		{"context.hours.days", []string{"Mondy"}, `"Mondy"`},
		{"context.hours.from", "7 o'clock", "HH:MM"},
		{"context.hours.to", "06:00", "HH:MM"},
		{"context.hours.to", "24:00", "HH:MM"},
		{"context.network.actions", []string{"shred"}, `"shred"`},
		{"context.network.types", []string{"payroll"}, `"payroll"`},
		{"context.network.roles", []string{"root"}, `"root"`},
		{"context.network.trusted", []string{"10.0.0.1"}, "10.0.0.1"},
		{"context.device.actions", []string{"shred"}, `"shred"`},
		{"context.device.types", []string{"payroll"}, `"payroll"`},
		{"context.device.roles", []string{"root"}, `"root"`},
		{"context.regions.shred", []string{"eu"}, `"shred"`},
		{"purposes.shred", []string{"sales"}, `"shred"`},
		{"export.rows.root", 1, `"root"`},
		{"export.rows.admin", 1.5, "data.json"},
		{"export.step_up_rows", -1, "rows"},
		{"export.approval_rows", -1, "rows"},
		{"aggregate.smallest", 0, "smallest"},
		{"limits.payroll", M{"admin": 1}, `"payroll"`},
		{"limits.quote.root", 1, `"root"`},
		{"limits.quote.admin", -1, `"admin"`},
		{"actions", []string{"read"}, "unknown action"},
		{"actions", "read", "data.json"},
	} {
		t.Run(c.at, func(t *testing.T) { refusal(t, load(t, setting(t, c.at, c.value)), "data.json", c.says) })
	}
	var root struct{ Settings map[string]any }
	require.NoError(t, json.Unmarshal([]byte(shipped["data.json"]), &root))
	for key := range root.Settings {
		t.Run("without "+key, func(t *testing.T) { refusal(t, load(t, setting(t, key, nil)), "data.json", key) })
		t.Run("another case of "+key, func(t *testing.T) {
			text := strings.Replace(shipped["data.json"], "\n    \""+key+`":`, "\n    \""+strings.ToUpper(key)+`":`, 1)
			require.NotEqual(t, shipped["data.json"], text)
			refusal(t, load(t, text), "data.json")
		})
		t.Run("null as "+key, func(t *testing.T) { refusal(t, load(t, setting(t, key, json.RawMessage("null"))), "data.json") })
	}
	for _, key := range []string{"context.hours.from", "context.network.trusted", "emergency.types", "mac.reading", "export.rows", "aggregate.smallest"} {
		t.Run("without "+key, func(t *testing.T) {
			refusal(t, load(t, setting(t, key, nil)), "data.json", key[strings.LastIndexByte(key, '.'):])
		})
	}
	for name, text := range map[string]string{
		"more after it":     shipped["data.json"] + "{}",
		"twice":             strings.Replace(shipped["data.json"], `"purposes": {}`, `"purposes": {}, "purposes": {}`, 1),
		"a role twice":      strings.Replace(shipped["data.json"], `"inherits": {`, `"inherits": {"finance": [],`, 1),
		"another root":      strings.Replace(shipped["data.json"], `"settings"`, `"crm": {}, "settings"`, 1),
		"no object":         "[]",
		"nothing":           "",
		"very deep":         strings.Repeat(`{"settings":`, 1000),
		"deeper than stack": strings.Repeat("[", 7<<20),
	} {
		t.Run(name, func(t *testing.T) { refusal(t, load(t, text), "data.json") })
	}
}

// TestRefusedForTests: a policy is as good as its tests; one without, or one whose tests fail, is not loaded.
func TestRefusedForTests(t *testing.T) {
	rego.Alone(t)
	long(t)
	none := fstest.MapFS{}
	for name, text := range filesOf(t, rego.Embedded()) {
		if !strings.HasSuffix(name, "_test.rego") {
			none[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	_, err := rego.New(t.Context(), &rego.Options{Policy: none})
	refusal(t, err, "no tests")
	hollow := maps.Clone(none)
	hollow["crm/extra_test.rego"] = &fstest.MapFile{Data: []byte("package crm.extra_test\n\nx := 1\n")}
	_, err = rego.New(t.Context(), &rego.Options{Policy: hollow})
	refusal(t, err, "no tests")
	failing := maps.Clone(none)
	failing["crm/extra_test.rego"] = &fstest.MapFile{Data: []byte("package crm.extra_test\n\ntest_it if 1 == 2\n")}
	_, err = rego.New(t.Context(), &rego.Options{Policy: failing})
	refusal(t, err, "crm/extra_test.rego:3", "test_it")
	// A rule that became weaker.
	_, err = rego.New(t.Context(), &rego.Options{Policy: with(t, map[string]string{"crm/hold/hold.rego": `s/"delete", "purge", "erase"/"purge", "erase"/`})})
	refusal(t, err, "_test.rego:", " fails")

	for name, c := range map[string]struct{ file, text, says string }{
		"beside crm":   {"extra/extra.rego", "package extra\n\np := 1\n", "extra/extra.rego"},
		"the settings": {"settings/extra.rego", "package settings\n\nobligations_of := {}\n", "settings/extra.rego"},
		"at the top":   {"extra.rego", "package crm\n\np := 1\n", "extra.rego"},
		"large":        {"crm/extra/extra.rego", strings.Repeat("# x\n", 3<<20), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rego.New(t.Context(), &rego.Options{Policy: with(t, map[string]string{c.file: c.text})})
			refusal(t, err, c.says)
		})
	}
}

// TestHotSwap: 8 goroutines ask while policies come and go. Each decision is wholly by one of them.
func TestHotSwap(t *testing.T) {
	open := with(t, nil) // the same but for one grant, which shows in the answer
	denied := with(t, map[string]string{"data.json": setting(t, "grants.sales.follow_up.read", nil)})
	broken := with(t, map[string]string{"crm/hold/hold.rego": "package"})
	e, err := rego.New(t.Context(), &rego.Options{Policy: open})
	require.NoError(t, err)
	r := authz.Request{
		Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Team: "/east/", Active: true},
		Action:   authz.Read,
		Resource: authz.Resource{Tenant: "t", Type: "follow_up", ID: "f1", Owner: "e1", Team: "/east/"},
	}
	refusal(t, e.Load(t.Context(), broken))
	d, err := e.Decide(t.Context(), r)
	require.NoError(t, err)
	require.True(t, d.Allowed, "the old policy goes on")
	yes := e.Revision()
	require.Equal(t, yes, d.Revision)
	require.NoError(t, e.Load(t.Context(), denied))
	no := e.Revision()
	require.NotEqual(t, yes, no)

	var stop atomic.Bool
	var asked atomic.Int64
	var askers sync.WaitGroup
	for range 8 {
		askers.Go(func() {
			for !stop.Load() {
				d, err := e.Decide(t.Context(), r)
				if !assert.NoError(t, err) || !assert.Equal(t, map[string]bool{yes: true, no: false}[d.Revision], d.Allowed, d.Revision) {
					return
				}
				f, err := e.Filter(t.Context(), r)
				// The filter may be of another policy than the decision, but of one of them.
				if !assert.NoError(t, err) || !f.IsNone() && !assert.True(t, f.Admit()(&r.Resource)) {
					return
				}
				time.Sleep(200 * time.Microsecond) // the loads want to go on
				asked.Add(1)
			}
		})
	}
	loads := 4
	if testing.Short() {
		loads = 1
	}
	for n := range loads {
		p := open
		if n%2 == 1 {
			p = denied
		}
		assert.NoError(t, e.Load(t.Context(), p))
		refusal(t, e.Load(t.Context(), broken))
	}
	stop.Store(true)
	askers.Wait()
	t.Logf("%d decisions during %d loads", asked.Load(), loads)
	assert.Positive(t, asked.Load())
}
