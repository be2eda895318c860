package witness_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/audit/witness"
)

const origin = "crm.example.com/log"

var (
	ctx    = context.Background()
	update = flag.Bool("update", false, "write the golden files anew")
)

func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func seed(s string) ed25519.PrivateKey {
	b := make([]byte, ed25519.SeedSize)
	copy(b, s)
	return ed25519.NewKeyFromSeed(b)
}

// tree is a log in memory.
type tree struct {
	hashes []tlog.Hash
	size   uint64
	signer note.Signer
	vkey   string
}

func newTree(t testing.TB, name string) *tree {
	t.Helper()
	key := seed(name)
	vkey, err := note.NewEd25519VerifierKey(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	part := strings.SplitN(vkey, "+", 3)
	skey := "PRIVATE+KEY+" + part[0] + "+" + part[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return &tree{signer: s, vkey: vkey}
}

// ReadHashes implements tlog.HashReader.
func (l *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

// grow adds n leaves.
func (l *tree) grow(t testing.TB, n int, salt string) {
	t.Helper()
	for range n {
		h, err := tlog.StoredHashes(int64(l.size), fmt.Appendf(nil, "%s %d", salt, l.size), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, h...)
		l.size++
	}
}

// checkpoint signs the head over the first n leaves.
func (l *tree) checkpoint(t testing.TB, n uint64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(int64(n), l)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.signer.Name(), n, root)}, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func (l *tree) proof(t testing.TB, old, n uint64) []tlog.Hash {
	t.Helper()
	p, err := tlog.ProveTree(int64(n), int64(old), l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func cosigner(t testing.TB, name string) *witness.Cosigner {
	t.Helper()
	c, err := witness.NewCosigner(name, seed(name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func server(t testing.TB, name string, store witness.Store, logs ...string) *witness.Server {
	t.Helper()
	s, err := witness.NewServer(cosigner(t, name), logs, store, &witness.ServerOptions{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func body(old uint64, proof []tlog.Hash, msg []byte) string {
	s := fmt.Sprintf("old %d\n", old)
	for _, h := range proof {
		s += h.String() + "\n"
	}
	return s + "\n" + string(msg)
}

func post(t testing.TB, h http.Handler, body string) (int, string, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/add-checkpoint", strings.NewReader(body)))
	return w.Code, w.Body.String(), w.Header().Get("Content-Type")
}

// policy returns a policy of k of the witnesses w1, w2, ... at the URLs.
func policy(t testing.TB, k int, logs []string, urls ...string) *witness.Policy {
	t.Helper()
	var b strings.Builder
	for _, l := range logs {
		fmt.Fprintf(&b, "log %s\n", l)
	}
	fmt.Fprint(&b, "# witnesses\n")
	group := ""
	for i, u := range urls {
		name := fmt.Sprintf("w%d", i+1)
		fmt.Fprintf(&b, "witness %s %s %s\n", name, cosigner(t, name).Key(), u)
		group += " " + name
	}
	fmt.Fprintf(&b, "group all-of-them %d%s\nquorum all-of-them\n", k, group)
	p, err := witness.ParsePolicy([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func client(t testing.TB, p *witness.Policy, l *tree, o witness.Options) *witness.Client {
	t.Helper()
	o.Clock = clock
	c, err := witness.NewClient(p, witness.TreeProver(l), &o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
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
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

// The statuses and bodies are those of C2SP tlog-witness, in its order.
func TestServerAnswers(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 20, "a")
	fork := newTree(t, origin)
	fork.grow(t, 3, "a")
	fork.grow(t, 17, "b")
	stranger := newTree(t, "other.example.com/log")
	stranger.grow(t, 5, "a")
	imposter := newTree(t, origin)
	imposter.grow(t, 9, "x")
	imposter.signer = renamed{newTree(t, "imposter").signer, origin}

	s := server(t, "w1", witness.NewMemStore(), l.vkey)
	first := body(0, nil, l.checkpoint(t, 7))
	steps := []struct {
		name, body string
		status     int
		answer     string // "" when the answer is a signature
	}{
		{"garbage", "old x\n\n", 400, "not a request\n"},
		{"leading zero", "old 07\n\n" + string(l.checkpoint(t, 7)), 400, "not a request\n"},
		{"no checkpoint", "old 0\n\n", 400, "not a checkpoint\n"},
		{"unknown log", body(0, nil, stranger.checkpoint(t, 5)), 404, "unknown log\n"},
		{"unknown key", body(0, nil, imposter.checkpoint(t, 9)), 403, "not signed by a known key of the log\n"},
		{"old beyond", body(8, nil, l.checkpoint(t, 7)), 400, "old size is beyond the checkpoint\n"},
		{"wrong old at first", body(3, l.proof(t, 3, 7), l.checkpoint(t, 7)), 409, "0\n"},
		{"first with a proof", body(0, l.proof(t, 3, 7), l.checkpoint(t, 7)), 422, "the consistency proof does not verify\n"},
		{"first", first, 200, ""},
		{"first again", first, 409, "7\n"},
		{"same", body(7, nil, l.checkpoint(t, 7)), 200, ""},
		{"same with a proof", body(7, l.proof(t, 3, 7), l.checkpoint(t, 7)), 422, "the consistency proof does not verify\n"},
		{"fork at the same size", body(7, nil, fork.checkpoint(t, 7)), 409, "7\n"},
		{"wrong old", body(5, l.proof(t, 5, 12), l.checkpoint(t, 12)), 409, "7\n"},
		{"no proof", body(7, nil, l.checkpoint(t, 12)), 422, "the consistency proof does not verify\n"},
		{"fork", body(7, fork.proof(t, 7, 12), fork.checkpoint(t, 12)), 422, "the consistency proof does not verify\n"},
		{"growth", body(7, l.proof(t, 7, 12), l.checkpoint(t, 12)), 200, ""},
		{"rollback", body(7, nil, l.checkpoint(t, 7)), 409, "12\n"},
		{"rollback from zero", first, 409, "12\n"},
		{"old beyond the rollback", body(12, nil, l.checkpoint(t, 7)), 400, "old size is beyond the checkpoint\n"},
		{"64 lines of proof", body(12, make([]tlog.Hash, 64), l.checkpoint(t, 20)), 400, "not a request\n"},
		{"too large", "old 0\n\n" + strings.Repeat("x", 100<<10), 400, "not a request\n"},
	}
	for _, st := range steps {
		status, answer, kind := post(t, s, st.body)
		if status != st.status || (st.answer != "" && answer != st.answer) {
			t.Errorf("%s: %d %q, want %d %q", st.name, status, answer, st.status, st.answer)
		}
		if (status == 409) != (kind == "text/x.tlog.size") {
			t.Errorf("%s: content type %q", st.name, kind)
		}
		if status != 200 {
			continue
		}
		_, msg, _ := strings.Cut(st.body, "\n\n")
		got, err := witness.Cosignatures([]byte(msg+answer), cosigner(t, "w1").Key())
		if err != nil || len(got) != 1 || !got[0].Time.Equal(clock()) {
			t.Errorf("%s: %v, %v", st.name, got, err)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/add-checkpoint", nil))
	if w.Code != 405 {
		t.Errorf("GET: %d", w.Code)
	}
	w = httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != 404 {
		t.Errorf("another path: %d", w.Code)
	}
}

// renamed signs under another name, so its hash is that of no known key.
type renamed struct {
	note.Signer
	name string
}

func (r renamed) Name() string { return r.name }

// Two requests at the same time cannot take the witness back.
func TestServerRace(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 64, "a")
	store := witness.NewMemStore()
	s := server(t, "w1", store, l.vkey)
	bodies := make([]string, 65)
	for n := uint64(1); n <= 64; n++ {
		bodies[n] = body(0, nil, l.checkpoint(t, n))
	}
	var mu sync.Mutex
	signed := 0
	var wg sync.WaitGroup
	for n := 1; n <= 64; n++ {
		wg.Go(func() {
			status, _, _ := post(t, s, bodies[n])
			mu.Lock()
			defer mu.Unlock()
			switch status {
			case 200:
				signed++
			case 409:
			default:
				t.Errorf("size %d: %d", n, status)
			}
		})
	}
	wg.Wait()
	if signed != 1 {
		t.Errorf("%d of 64 first checkpoints were signed", signed)
	}
}

// stuck is a store whose Swap persists and then dies, as a crash before the
// signature.
type stuck struct {
	witness.Store
	dead bool
}

func (s *stuck) Swap(ctx context.Context, old uint64, h witness.Head) error {
	err := s.Store.Swap(ctx, old, h)
	if s.dead && err == nil {
		return errors.New("crash")
	}
	return err
}

func TestCrashBetweenPersistAndSign(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 9, "a")
	path := filepath.Join(t.TempDir(), "state")
	file, err := witness.CreateFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	s := server(t, "w1", &stuck{file, true}, l.vkey)
	if status, answer, _ := post(t, s, body(0, nil, l.checkpoint(t, 4))); status != 503 || strings.Contains(answer, "crash") {
		t.Fatalf("%d %q", status, answer)
	}
	file.Close()
	file, err = witness.OpenFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s = server(t, "w1", file, l.vkey)
	c := client(t, policy(t, 1, nil, serve(t, s)), l, witness.Options{})
	for n := uint64(4); n <= 9; n++ {
		if res, err := c.Cosign(ctx, l.checkpoint(t, n)); err != nil || len(res.Cosignatures) != 1 {
			t.Fatalf("after the restart: %v %v", res.Answers, err)
		}
	}
}

func TestRestart(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 30, "a")
	fork := newTree(t, origin)
	fork.grow(t, 30, "b")
	path := filepath.Join(t.TempDir(), "state")
	if _, err := witness.OpenFileStore(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a file: %v", err)
	}
	store, err := witness.CreateFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := witness.OpenFileStore(path); !errors.Is(err, witness.ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}
	if status, _, _ := post(t, server(t, "w1", store, l.vkey), body(0, nil, l.checkpoint(t, 11))); status != 200 {
		t.Fatal(status)
	}
	store.Close()
	if _, err := witness.CreateFileStore(path); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("made anew: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	for range 3 {
		if store, err = witness.OpenFileStore(path); err != nil {
			t.Fatal(err)
		}
		s := server(t, "w1", store, l.vkey)
		if status, answer, _ := post(t, s, body(0, nil, fork.checkpoint(t, 30))); status != 409 || answer != "11\n" {
			t.Fatalf("a fork after the restart: %d %q", status, answer)
		}
		if status, _, _ := post(t, s, body(11, fork.proof(t, 11, 30), fork.checkpoint(t, 30))); status != 422 {
			t.Fatalf("a fork after the restart: %d", status)
		}
		store.Close()
	}
}

// Whatever byte of the state is changed, wherever it is cut, and when it is
// gone, the witness signs nothing.
func TestStateDamage(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 30, "a")
	other := newTree(t, "other.example.com/log")
	other.grow(t, 3, "a")
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	store, err := witness.CreateFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := server(t, "w1", store, l.vkey, other.vkey)
	for _, b := range []string{body(0, nil, l.checkpoint(t, 11)), body(0, nil, other.checkpoint(t, 3))} {
		if status, _, _ := post(t, s, b); status != 200 {
			t.Fatal(status)
		}
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "state", string(good))
	next := body(11, l.proof(t, 11, 30), l.checkpoint(t, 30))
	again := body(0, nil, l.checkpoint(t, 5))
	try := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, b := range []string{next, again} {
			if status, _, _ := post(t, s, b); status != 503 {
				t.Fatalf("%s: status %d", what, status)
			}
		}
	}
	for i := range good {
		for _, x := range []byte{1, 0x80, good[i]} { // the last makes it 0
			bad := bytes.Clone(good)
			bad[i] ^= x
			try(fmt.Sprintf("byte %d ^ %#x", i, x), bad)
		}
		try(fmt.Sprintf("cut at %d", i), good[:i])
	}
	try("longer", append(bytes.Clone(good), '\n'))
	os.Remove(path)
	if status, _, _ := post(t, s, again); status != 503 {
		t.Fatalf("without the file: %d", status)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := post(t, s, next); status != 200 {
		t.Fatalf("put right again: %d", status)
	}
}

func TestCosign(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 50, "a")
	var urls []string
	for _, name := range []string{"w1", "w2", "w3"} {
		urls = append(urls, serve(t, server(t, name, witness.NewMemStore(), l.vkey)))
	}
	p := policy(t, 3, []string{l.vkey}, urls...)
	c := client(t, p, l, witness.Options{})
	var last []byte
	for _, n := range []uint64{1, 1, 2, 30, 50} {
		res, err := c.Cosign(ctx, l.checkpoint(t, n))
		if err != nil || !res.Quorum || len(res.Cosignatures) != 3 {
			t.Fatalf("%d: %+v %v", n, res.Answers, err)
		}
		if got, err := p.Check(res.Note); err != nil || len(got) != 3 || got[0].Key.Name() != "w1" {
			t.Fatalf("%d: %v %v", n, got, err)
		}
		last = res.Note
	}
	// Asking for signatures on what has them changes nothing but their time.
	res, err := c.Cosign(ctx, last)
	if err != nil || !bytes.Equal(res.Note, last) {
		t.Fatalf("again: %v\n%s", err, res.Note)
	}
	// A second client of the same log, which knows no sizes, learns them.
	if _, err := client(t, p, l, witness.Options{}).Cosign(ctx, l.checkpoint(t, 50)); err != nil {
		t.Fatal(err)
	}
	// A log that went back.
	res, err = c.Cosign(ctx, l.checkpoint(t, 30))
	if !errors.Is(err, witness.ErrQuorum) || !errors.Is(err, witness.ErrRollback) || len(res.Cosignatures) != 0 {
		t.Fatalf("rollback: %v", err)
	}
	// Another history, of the same size and larger.
	fork := newTree(t, origin)
	fork.grow(t, 60, "b")
	for _, n := range []uint64{50, 60} {
		for _, open := range []bool{false, true} {
			_, err = client(t, p, fork, witness.Options{FailOpen: open}).Cosign(ctx, fork.checkpoint(t, n))
			if !errors.Is(err, witness.ErrFork) {
				t.Fatalf("fork at %d: %v", n, err)
			}
		}
	}
	// A log that the policy does not name is not even sent.
	stranger := newTree(t, "other.example.com/log")
	stranger.grow(t, 1, "a")
	if _, err := c.Cosign(ctx, stranger.checkpoint(t, 1)); !errors.Is(err, witness.ErrLog) {
		t.Fatalf("stranger: %v", err)
	}
	if _, err := c.Cosign(ctx, []byte("nothing")); err == nil {
		t.Fatal("bytes that are no checkpoint were taken")
	}
}

// A note that witnesses signed is a note: the library reads it, with the key of
// the log alone and with those of the witnesses, and the log of package audit
// takes it as a pin.
func TestInterop(t *testing.T) {
	store := memstore.New()
	signer := audittest.Signer(t, origin)
	log, err := audit.Open(ctx, store, signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	l := newTree(t, origin) // for the proofs
	url := serve(t, server(t, "w1", witness.NewMemStore(), signer.VerifierKey()))
	c, err := witness.NewClient(policy(t, 1, []string{signer.VerifierKey()}, url), func(ctx context.Context, old, size uint64) ([]tlog.Hash, error) {
		for e, err := range log.Events(ctx, l.size) {
			if err != nil {
				return nil, err
			}
			h, err := tlog.StoredHashesForRecordHash(int64(e.Index), e.Leaf, l)
			if err != nil {
				return nil, err
			}
			l.hashes = append(l.hashes, h...)
			l.size++
		}
		return tlog.ProveTree(int64(size), int64(old), l)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var res witness.Result
	for i := range 5 {
		for range i + 1 {
			if _, err := log.Append(ctx, audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed}); err != nil {
				t.Fatal(err)
			}
		}
		head, err := log.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if res, err = c.Cosign(ctx, head.Note); err != nil {
			t.Fatal(err)
		}
	}
	logKey, err := note.NewVerifier(signer.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	w1 := cosigner(t, "w1").Key()
	for _, known := range [][]note.Verifier{{logKey}, {w1}, {logKey, w1}} {
		n, err := note.Open(res.Note, note.VerifierList(known...))
		if err != nil || len(n.Sigs) != len(known) || len(n.Sigs)+len(n.UnverifiedSigs) != 2 {
			t.Fatalf("%v: %v", known, err)
		}
	}
	v, err := audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{res.Note}})
	if err != nil || v.State != audit.Pinned || v.Pinned != 16 {
		t.Fatalf("%v %v", v, err)
	}
}

func TestTwoOfThreeDown(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 5, "a")
	up := serve(t, server(t, "w1", witness.NewMemStore(), l.vkey))
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) }))
	opts := witness.Options{Timeout: 400 * time.Millisecond}
	res, err := client(t, policy(t, 2, nil, up, down.URL, broken), l, opts).Cosign(ctx, l.checkpoint(t, 5))
	if !errors.Is(err, witness.ErrQuorum) || res.Quorum || len(res.Cosignatures) != 1 {
		t.Fatalf("fail closed: %v", err)
	}
	if res.Answers[0].Err != nil || res.Answers[1].Err == nil || res.Answers[2].Err == nil {
		t.Fatalf("answers: %v", res.Answers)
	}
	opts.FailOpen = true
	res, err = client(t, policy(t, 2, nil, up, down.URL, broken), l, opts).Cosign(ctx, l.checkpoint(t, 5))
	if err != nil || res.Quorum || len(res.Cosignatures) != 1 {
		t.Fatalf("fail open: %v", err)
	}
	res, err = client(t, policy(t, 1, nil, up, down.URL, broken), l, witness.Options{}).Cosign(ctx, l.checkpoint(t, 5))
	if err != nil || !res.Quorum {
		t.Fatalf("one is enough: %v", err)
	}
}

func TestHangingWitness(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 5, "a")
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-release
	}))
	t.Cleanup(func() { close(release); hang.Close() })
	up := serve(t, server(t, "w2", witness.NewMemStore(), l.vkey))
	// The quorum does not need it: its deadline of a minute costs the grace alone.
	start := time.Now()
	res, err := client(t, policy(t, 1, nil, hang.URL, up), l, witness.Options{Timeout: time.Minute, Grace: 10 * time.Millisecond}).Cosign(ctx, l.checkpoint(t, 5))
	if took := time.Since(start); err != nil || took > 10*time.Second || res.Answers[0].Err == nil {
		t.Fatalf("after %v: %v", took, err)
	}
	// The quorum needs it: its deadline ends the wait.
	start = time.Now()
	_, err = client(t, policy(t, 2, nil, hang.URL, up), l, witness.Options{Timeout: 200 * time.Millisecond}).Cosign(ctx, l.checkpoint(t, 5))
	if took := time.Since(start); !errors.Is(err, witness.ErrQuorum) || took > 10*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	// A transport that does not heed the context does not hold up the caller.
	deaf := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { <-release; return nil, errors.New("late") })}
	start = time.Now()
	_, err = client(t, policy(t, 1, nil, "http://nowhere.invalid"), l, witness.Options{Timeout: 100 * time.Millisecond, HTTP: deaf}).Cosign(ctx, l.checkpoint(t, 5))
	if took := time.Since(start); !errors.Is(err, witness.ErrQuorum) || took > 10*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever a witness answers, nothing that does not verify gets into the note.
func TestTamperedAnswers(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 12, "a")
	msg := l.checkpoint(t, 12)
	_, good, _ := post(t, server(t, "w1", witness.NewMemStore(), l.vkey), body(0, nil, msg))
	_, stranger, _ := post(t, server(t, "w9", witness.NewMemStore(), l.vkey), body(0, nil, msg))
	_, elsewhere, _ := post(t, server(t, "w1", witness.NewMemStore(), l.vkey), body(0, nil, l.checkpoint(t, 11)))
	late, err := witness.NewServer(cosigner(t, "w1"), []string{l.vkey}, witness.NewMemStore(),
		&witness.ServerOptions{Clock: func() time.Time { return clock().Add(time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	_, future, _ := post(t, late, body(0, nil, msg))
	type answer struct {
		status     int
		kind, body string
	}
	var now answer
	var asked int
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", now.kind)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(now.status)
		io.WriteString(w, now.body)
	}))
	p := policy(t, 1, nil, url)
	cosign := func(a answer) (witness.Result, error) {
		t.Helper()
		now, asked = a, 0
		res, err := client(t, p, l, witness.Options{Attempts: 3}).Cosign(ctx, msg)
		if asked > 3 {
			t.Fatalf("asked %d times", asked)
		}
		if err == nil {
			err = res.Answers[0].Err
		} else if !errors.Is(err, witness.ErrQuorum) || !bytes.Equal(res.Note, msg) {
			t.Fatalf("%v: %s", err, res.Note)
		} else {
			err = res.Answers[0].Err
		}
		return res, err
	}
	if _, err := cosign(answer{200, "", stranger + good}); err != nil {
		t.Fatalf("with the signature of a stranger: %v", err)
	}
	for _, a := range []answer{
		{200, "", ""}, {200, "", "\n"}, {200, "", stranger}, {200, "", elsewhere}, {200, "", future},
		{200, "", good + "x"}, {200, "", "x" + good}, {200, "", strings.Repeat(good, 200)},
		{200, "", strings.Repeat("x", 1<<20)}, {200, "", string(msg) + good}, {200, "", "\n" + good},
		{409, "text/plain", "3\n"}, {409, "text/x.tlog.size", "3"}, {409, "text/x.tlog.size", "03\n"}, {409, "text/x.tlog.size", "-3\n"},
		{409, "text/x.tlog.size", "3\n\n"}, {409, "text/x.tlog.size", "99999999999999999999\n"}, {409, "text/x.tlog.size", "0\n"},
		{302, "", ""}, {204, "", ""},
	} {
		if _, err := cosign(a); !errors.Is(err, witness.ErrAnswer) {
			t.Errorf("%d %.40q: %v", a.status, a.body, err)
		}
	}
	for i := range len(good) - 1 {
		bad := []byte(good)
		bad[i] ^= 1
		if _, err := cosign(answer{200, "", string(bad)}); err == nil {
			t.Errorf("byte %d of %q changed: it was taken", i, good)
		}
	}
	for _, c := range []struct {
		a    answer
		want error
	}{
		{answer{409, "text/x.tlog.size", "13\n"}, witness.ErrRollback},
		{answer{409, "text/x.tlog.size; charset=utf-8", "12\n"}, witness.ErrFork}, // asked twice: from 0 and from 12
		{answer{422, "", "no\n"}, witness.ErrFork},
		{answer{404, "", "no\n"}, witness.ErrRefused},
		{answer{403, "", "no\n"}, witness.ErrRefused},
	} {
		if _, err := cosign(c.a); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.a, err)
		}
	}
}

// The bytes of the protocol are fixed.
func TestGolden(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 21, "a")
	store := witness.NewMemStore()
	s := server(t, "w1", store, l.vkey)
	var got []string
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(b))
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		got = append(got, fmt.Sprintf("> %s %s\n%s< %d %s\n%s", r.Method, r.URL.Path, b, rec.Code, rec.Header().Get("Content-Type"), rec.Body))
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	}))
	p := policy(t, 1, []string{l.vkey}, url+"/")
	var last witness.Result
	for _, n := range []uint64{5, 21} {
		var err error
		if last, err = client(t, p, l, witness.Options{}).Cosign(ctx, l.checkpoint(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "exchange", strings.Join(got, "\n"))
	golden(t, "cosigned", string(last.Note))
	golden(t, "key", cosigner(t, "w1").Key().String()+"\n")
}

// The example of C2SP tlog-cosignature: the bytes that are signed.
func TestCosignatureMessage(t *testing.T) {
	key := seed("w1")
	name := "witness.example.com/w1"
	c, err := witness.NewCosigner(name, key)
	if err != nil {
		t.Fatal(err)
	}
	text := "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	sig := append([]byte{0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb}, ed25519.Sign(key, []byte("cosignature/v1\ntime 1679315147\n"+text))...)
	if !c.Key().Verify([]byte(text), sig) {
		t.Fatal("the signature of the example does not verify")
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if c.Key().Verify([]byte(text), bad) {
			t.Fatalf("byte %d changed: it verifies", i)
		}
	}
	if s := fmt.Sprintf("%v %#v", c, c); strings.Contains(s, base64.StdEncoding.EncodeToString(key.Seed())) || !strings.HasPrefix(s, "witness.Cosigner(") {
		t.Fatal("the cosigner prints its key")
	}
	if (witness.Key{}).Verify([]byte(text), sig) {
		t.Fatal("the zero key verifies")
	}
}

func TestCosignatures(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 3, "a")
	msg := l.checkpoint(t, 3)
	w1, w2 := cosigner(t, "w1").Key(), cosigner(t, "w2").Key()
	_, line, _ := post(t, server(t, "w1", witness.NewMemStore(), l.vkey), body(0, nil, msg))
	signed := append(bytes.Clone(msg), line...)
	if got, err := witness.Cosignatures(signed, w2, w1); err != nil || len(got) != 1 || got[0].Key.Name() != "w1" || !got[0].Time.Equal(clock()) {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := witness.Cosignatures(signed, w2); err != nil || len(got) != 0 {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := witness.Cosignatures(signed); err != nil || len(got) != 0 {
		t.Fatalf("%v %v", got, err)
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 1
		got, err := witness.Cosignatures(bad, w1)
		// The signature of the log and the name and hash of the witness are not covered.
		if err == nil && len(got) == 1 && i < bytes.Index(msg, []byte("\n\n")) {
			t.Fatalf("byte %d of the text changed: %v", i, got)
		}
		if err == nil && len(got) == 1 && i > len(msg)+len("— w1 xxxxxx") {
			t.Fatalf("byte %d of the signature changed: %v", i, got)
		}
	}
	p := policy(t, 1, []string{l.vkey}, "http://localhost", "http://localhost")
	if _, err := p.Check(signed); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(msg); !errors.Is(err, witness.ErrQuorum) {
		t.Fatal(err)
	}
	if _, err := (&witness.Policy{}).Check(signed); !errors.Is(err, witness.ErrQuorum) {
		t.Fatalf("the zero policy: %v", err)
	}
	alone := append(bytes.Clone(msg[:bytes.Index(msg, []byte("\n\n"))+2]), line...)
	if _, err := p.Check(alone); !errors.Is(err, witness.ErrLog) {
		t.Fatalf("without the log: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	l := newTree(t, origin)
	key := func(n string) string { return cosigner(t, n).Key().String() }
	alias, err := witness.NewCosigner("alias", seed("x1"))
	if err != nil {
		t.Fatal(err)
	}
	base := "log " + l.vkey + " https://crm.example.com/\n\n\t# comment \x80\n"
	for _, n := range []string{"x1", "x2", "x3", "y1", "y2"} {
		base += " witness\t" + n + "  " + key(n) + " \n"
	}
	base += "group X 2 x1 x2 x3\ngroup Y any y1 y2\ngroup both all X Y\n"
	p, err := witness.ParsePolicy([]byte(base + "quorum both\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Logs) != 1 || p.Logs[0].Origin != origin || len(p.Witnesses) != 5 {
		t.Fatalf("%+v", p)
	}
	l.grow(t, 4, "a")
	signed := func(names ...string) []byte {
		msg := l.checkpoint(t, 4)
		out := bytes.Clone(msg)
		for _, n := range names {
			_, line, _ := post(t, server(t, n, witness.NewMemStore(), l.vkey), body(0, nil, msg))
			out = append(out, line...)
		}
		return out
	}
	for _, c := range []struct {
		names []string
		want  bool
	}{
		{nil, false}, {[]string{"x1", "x2"}, false}, {[]string{"x1", "y1"}, false}, {[]string{"y1", "y2"}, false},
		{[]string{"x1", "x1", "y1"}, false}, // one witness counts once
		{[]string{"x1", "x3", "y2"}, true}, {[]string{"x1", "x2", "x3", "y1", "y2", "w9"}, true},
	} {
		if _, err := p.Check(signed(c.names...)); (err == nil) != c.want {
			t.Errorf("%v: %v", c.names, err)
		}
	}
	if p, err := witness.ParsePolicy([]byte("quorum none\n")); err != nil {
		t.Error(err)
	} else if _, err := p.Check(signed()); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "quorum", "quorum none", base, base + "quorum both\nquorum both\n", base + "quorum Z\n", "quorum x1\nwitness x1 " + key("x1") + "\n",
		"witness none " + key("x1") + "\nquorum none\n", "witness a " + key("x1") + "\nwitness a " + key("x2") + "\nquorum a\n",
		"witness a " + key("x1") + "\nwitness b " + alias.Key().String() + "\nquorum a\n", // one key, two names
		"witness a " + l.vkey + "\nquorum a\n", "log " + key("x1") + "\nquorum none\n", "log " + l.vkey + "\nlog " + l.vkey + "\nquorum none\n",
		base + "group G 0 X Y\nquorum G\n", base + "group G all both both\nquorum G\n", base + "group G any X\nquorum G\n",
		base + "group G 3 both\nquorum G\n", base + "group G 01 both\nquorum G\n", base + "group G all\nquorum both\n", base + "group X any both\nquorum both\n",
		base + "group G any none\nquorum G\n", base + "quorum both\r\n", base + "what is this\nquorum both\n", base + "quorum both\x00\n",
		"witness a " + key("x1")[:30] + "\nquorum a\n", "witness a b+00000000+" + strings.SplitN(key("x1"), "+", 3)[2] + "\nquorum a\n",
	} {
		if _, err := witness.ParsePolicy([]byte(bad)); err == nil {
			t.Errorf("taken: %q", strings.TrimPrefix(bad, base))
		}
	}
}

func TestCopies(t *testing.T) {
	l := newTree(t, origin)
	l.grow(t, 12, "a")
	fork := newTree(t, origin)
	fork.grow(t, 12, "b")
	dir := t.TempDir()
	b, err := witness.NewDirBucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pins, err := witness.Pins(ctx, b, origin, 0); err != nil || len(pins) != 0 {
		t.Fatalf("%q %v", pins, err)
	}
	for _, n := range []uint64{2, 11, 9, 2} {
		if err := witness.Copy(ctx, b, l.checkpoint(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := witness.Copy(ctx, b, fork.checkpoint(t, 9)); !errors.Is(err, witness.ErrFork) {
		t.Fatalf("fork: %v", err)
	}
	if err := witness.Copy(ctx, b, []byte("x")); err == nil {
		t.Fatal("bytes that are no checkpoint were copied")
	}
	pins, err := witness.Pins(ctx, b, origin, 2)
	if err != nil || len(pins) != 2 || !bytes.Equal(pins[0], l.checkpoint(t, 11)) || !bytes.Equal(pins[1], l.checkpoint(t, 9)) {
		t.Fatalf("%q %v", pins, err)
	}
	head, _ := witness.ParseHead(pins[0])
	path := filepath.Join(dir, witness.CopyName(head))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
		t.Fatalf("%v %v", info, err)
	}
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 3 {
		t.Fatalf("left behind: %v", list)
	}
	os.Remove(path)
	if err := os.WriteFile(path, l.checkpoint(t, 9), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := witness.Pins(ctx, b, origin, 0); !errors.Is(err, witness.ErrCopy) {
		t.Fatalf("a copy under the name of another: %v", err)
	}
	for _, name := range []string{"../x", "a/../b", "a", "/", "a/.b"} {
		if err := b.Put(ctx, name, nil); err == nil || slices.Contains([]string{"x"}, name) {
			t.Errorf("%q was taken", name)
		}
	}
}
