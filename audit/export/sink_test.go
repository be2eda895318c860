package export_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit/export"
)

func records(from, to uint64) (out []export.Record) {
	for i := from; i < to; i++ {
		out = append(out, export.Record{Index: i, Time: clock(), Severity: 1, Body: fmt.Appendf(nil, "event %d", i)})
	}
	return out
}

func deliver(t testing.TB, s export.Sink, from, to uint64) {
	t.Helper()
	if err := s.Deliver(ctx, records(from, to)); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events")
	open := func() *export.File {
		t.Helper()
		s, err := export.OpenFile(path, &export.FileOptions{MaxBytes: 60, Keep: 3})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for i := range uint64(12) {
		deliver(t, s, 2*i, 2*i+2)
	}
	s.Close()
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v", name, info.Mode())
		}
		return string(b)
	}
	names, _ := filepath.Glob(path + "*")
	if len(names) != 4 { // the newest and three full ones
		t.Fatalf("files: %v", names)
	}
	got := ""
	for _, n := range append(names[1:], names[0]) {
		got += read(n)
	}
	// Each file has 60 bytes at most, and what is kept has no hole.
	first, _, _ := strings.Cut(got, "\n")
	var from int
	fmt.Sscanf(first, "event %d", &from)
	want := ""
	for i := from; i < 24; i++ {
		want += fmt.Sprintf("event %d\n", i)
	}
	if got != want {
		t.Fatalf("%q\nwant %q", got, want)
	}
	// A crash left half a line.
	whole := read(path)
	for i := range 8 {
		if err := os.WriteFile(path, []byte(whole+"event 24"[:i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
		open().Close()
		if got := read(path); got != whole {
			t.Fatalf("%q", got)
		}
	}
	if err := os.WriteFile(path, []byte("no line at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	open().Close()
	if got := read(path); got != "" {
		t.Fatalf("%q", got)
	}
	os.Chmod(path, 0o644)
	if _, err := export.OpenFile(path, nil); err == nil {
		t.Fatal("a file that everybody may read was taken")
	}
	os.Remove(path)
	os.Symlink("elsewhere", path)
	if _, err := export.OpenFile(path, nil); err == nil {
		t.Fatal("a link was followed")
	}
}

func TestRecordsAreLines(t *testing.T) {
	file, err := export.OpenFile(filepath.Join(t.TempDir(), "events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	web, err := export.NewHTTP("http://127.0.0.1:1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []export.Sink{file, web, tlsSink(t, "127.0.0.1:1", nil, nil)} {
		for _, body := range []string{"", "a\nb", "a\r", "a\x00"} {
			if err := s.Deliver(ctx, []export.Record{{Body: []byte(body)}}); err == nil || !strings.Contains(err.Error(), "line end") {
				t.Errorf("%T took %q: %v", s, body, err)
			}
		}
	}
}

// flaky answers what is in its list and then 200.
type flaky struct {
	mu      sync.Mutex
	plan    []int // 0: the connection is cut before, -1: after the batch was taken
	got     []string
	keys    map[string]string
	largest int
	t       *testing.T
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	if r.Header.Get("Content-Type") != "application/x-ndjson" || key == "" || r.Method != "POST" {
		f.t.Errorf("%s %v", r.Method, r.Header)
	}
	if old, ok := f.keys[key]; ok && old != string(b) {
		f.t.Errorf("key %s for two batches", key)
	}
	f.keys[key] = string(b)
	status := 200
	if len(f.plan) > 0 {
		status, f.plan = f.plan[0], f.plan[1:]
	}
	if f.largest > 0 && len(b) > f.largest {
		status = 413
	}
	if status == 200 || status == -1 {
		f.got = append(f.got, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")...)
	}
	if status <= 0 {
		panic(http.ErrAbortHandler)
	}
	if status == 429 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
}

func httpSink(t *testing.T, f *flaky, attempts int) *export.HTTP {
	t.Helper()
	f.keys, f.t = map[string]string{}, t
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	s, err := export.NewHTTP(srv.URL+"/in?token=hidden", &export.HTTPOptions{Attempts: attempts, Backoff: time.Millisecond, MaxWait: 20 * time.Millisecond,
		Header: http.Header{"Authorization": {"Bearer x"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHTTP(t *testing.T) {
	f := &flaky{plan: []int{503, 0, 429, 200, 500, -1, 200}}
	s := httpSink(t, f, 4)
	deliver(t, s, 0, 3)
	deliver(t, s, 3, 5)
	want := "event 0,event 1,event 2,event 3,event 4,event 3,event 4" // -1: taken, but not acknowledged
	if got := strings.Join(f.got, ","); got != want {
		t.Fatal(got)
	}
	// Attempts are bounded, and what no attempt can change is told at once.
	f = &flaky{plan: []int{500, 500, 500, 500, 500}}
	s = httpSink(t, f, 3)
	var status *export.StatusError
	if err := s.Deliver(ctx, records(0, 1)); !errors.As(err, &status) || status.Status != 500 || len(f.plan) != 2 {
		t.Fatalf("%v, %d left", err, len(f.plan))
	}
	for _, code := range []int{302, 400, 401, 403, 404, 422} {
		f = &flaky{plan: []int{code}}
		s = httpSink(t, f, 3)
		if err := s.Deliver(ctx, records(0, 1)); !errors.As(err, &status) || status.Status != code || len(f.keys) != 1 || len(f.got) != 0 {
			t.Fatalf("%d: %v", code, err)
		}
	}
	// Too large: in halves, and a single record that is too large is an error.
	f = &flaky{largest: 20}
	s = httpSink(t, f, 3)
	deliver(t, s, 0, 9)
	if got := strings.Join(f.got, ","); got != "event 0,event 1,event 2,event 3,event 4,event 5,event 6,event 7,event 8" {
		t.Fatal(got)
	}
	f.largest = 5
	if err := s.Deliver(ctx, records(0, 2)); !errors.As(err, &status) || status.Status != 413 {
		t.Fatal(err)
	}
	// The deadline holds, and no error shows the URL.
	f = &flaky{plan: []int{0, 0, 0, 0, 0, 0, 0, 0}}
	s = httpSink(t, f, 2)
	if err := s.Deliver(ctx, records(0, 1)); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-hang }))
	t.Cleanup(func() { close(hang); srv.Close() })
	s, err := export.NewHTTP(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.Deliver(short, records(0, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "ftp://x/", "https://", ":", "/path"} {
		if _, err := export.NewHTTP(bad, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// pki makes a CA and certificates for a server and a client in a folder.
type pki struct {
	dir            string
	roots          *x509.CertPool
	server, client tls.Certificate
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), roots: x509.NewCertPool()}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) {
		if err := os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.pem", "CERTIFICATE", der)
	ca, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	p.roots.AddCert(ca)
	for i, name := range []string{"server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		leaf.DNSNames = []string{name}
		if name == "server" {
			leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "PRIVATE KEY", pkcs8)
		cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		if name == "server" {
			p.server = cert
		} else {
			p.client = cert
		}
	}
	return p
}

func tlsSink(t testing.TB, addr string, p *pki, opts *export.SyslogOptions) *export.Syslog {
	t.Helper()
	config := &tls.Config{}
	if p != nil {
		config.RootCAs, config.Certificates = p.roots, []tls.Certificate{p.client}
	}
	if opts == nil {
		opts = &export.SyslogOptions{}
	}
	opts.Hostname = "crm-1"
	s, err := export.NewSyslog(addr, config, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// receiver is a server of RFC 5425.
type receiver struct {
	net.Listener
	mu    sync.Mutex
	got   []string
	conns []net.Conn
	bad   error
}

func newReceiver(t testing.TB, p *pki, clients bool) *receiver {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{p.server}}
	if clients {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, p.roots
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{Listener: l}
	t.Cleanup(func() { l.Close(); r.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			go r.read(c)
		}
	}()
	return r
}

func (r *receiver) read(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		head, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(head, " "))
		msg := make([]byte, max(n, 0))
		if err == nil {
			_, err = io.ReadFull(in, msg)
		}
		r.mu.Lock()
		if err == nil {
			r.got = append(r.got, string(msg))
		} else {
			r.bad = fmt.Errorf("after %q: %w", head, err)
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// cut ends all connections at once.
func (r *receiver) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 30 seconds: %s", what)
}

func TestSyslog(t *testing.T) {
	p := newPKI(t)
	r := newReceiver(t, p, true)
	s := tlsSink(t, r.Addr().String(), p, nil)
	deliver(t, s, 0, 100)
	deliver(t, s, 100, 200)
	eventually(t, "200 messages", func() bool { return r.count() == 200 })
	form := regexp.MustCompile(`^<110>1 2026-03-04T05:06:07\.089000Z crm-1 crmguard - audit \[crmguard@32473 index="(\d+)" leaf="[0-9a-f]{64}"\] event (\d+)$`)
	for i, m := range r.got {
		f := form.FindStringSubmatch(m)
		if f == nil || f[1] != fmt.Sprint(i) || f[2] != f[1] {
			t.Fatalf("%d: %q", i, m)
		}
	}
	// The receiver goes away while nothing is sent: the sink notices.
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	r.cut()
	eventually(t, "an error", func() bool { return s.Err() != nil })
	deliver(t, s, 200, 201)
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "201 messages", func() bool { return r.count() == 201 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r.bad != nil {
		t.Fatal(r.bad)
	}
	// What is too long is refused, not cut.
	small := tlsSink(t, r.Addr().String(), p, &export.SyslogOptions{MaxBytes: 170})
	if err := small.Deliver(ctx, []export.Record{{Time: clock(), Body: bytes.Repeat([]byte("x"), 100)}}); err == nil || !strings.Contains(err.Error(), "MaxBytes") {
		t.Fatal(err)
	}
}

// TestSyslogTLS: events leave over TLS only to a server that is vouched for, which refuses a client that it does not know.
//
//crm:item 19
func TestSyslogTLS(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	r := newReceiver(t, p, true)
	// A server that nobody vouches for.
	if err := tlsSink(t, r.Addr().String(), other, nil).Deliver(ctx, records(0, 1)); err == nil {
		t.Fatal("any server will do")
	}
	// A client that the server does not know: TLS 1.3 tells after the first write.
	stranger, err := export.NewSyslog(r.Addr().String(), &tls.Config{RootCAs: p.roots}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	eventually(t, "a refusal", func() bool {
		return stranger.Deliver(ctx, records(0, 1)) != nil || stranger.Err() != nil
	})
	if r.count() != 0 {
		t.Fatal("a stranger was heard")
	}
	// A server that takes connections and never answers.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := tlsSink(t, l.Addr().String(), p, nil).Deliver(short, records(0, 1)); err == nil {
		t.Fatal("no deadline")
	}
	for _, c := range []struct {
		addr string
		tls  *tls.Config
		id   string
	}{{"host", &tls.Config{}, ""}, {"host:6514", nil, ""}, {"host:6514", &tls.Config{}, `a"b`}, {"host:6514", &tls.Config{}, "a b"}} {
		if _, err := export.NewSyslog(c.addr, c.tls, &export.SyslogOptions{ID: c.id}); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
}

// A receiver that reads nothing fills the buffers; the deadline ends the write.
func TestSyslogStalledReceiver(t *testing.T) {
	p := newPKI(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{p.server}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).Handshake()
		}
	}()
	s := tlsSink(t, l.Addr().String(), p, nil)
	big := make([]export.Record, 2000)
	for i := range big {
		big[i] = export.Record{Time: clock(), Body: bytes.Repeat([]byte("x"), 7000)}
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := s.Deliver(short, big); err == nil || time.Since(start) > 20*time.Second {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
}

// A file that was moved away stays as it is, and its path begins anew; nothing that was acknowledged is lost.
func TestFileMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := export.OpenFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, want := range []string{"a\n", "b\n"} {
		if err := f.Deliver(t.Context(), []export.Record{{Index: uint64(i), Body: []byte(want[:1])}}); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Fatalf("%q, %v", b, err)
		}
		if err := os.Rename(path, path+".old"+want[:1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []string{"a", "b"} {
		if b, err := os.ReadFile(path + ".old" + c); err != nil || string(b) != c+"\n" {
			t.Errorf("%q, %v", b, err)
		}
	}
}
