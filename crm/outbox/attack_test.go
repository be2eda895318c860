package outbox_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/outbox"
)

// answersDNS is a resolver that a name's owner would run: it gives each A question the next of its answers, over TCP.
func answersDNS(t *testing.T, addrs ...[4]byte) (*net.Resolver, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	var asked atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for {
					var size [2]byte
					if _, err := io.ReadFull(c, size[:]); err != nil {
						return
					}
					q := make([]byte, binary.BigEndian.Uint16(size[:]))
					if _, err := io.ReadFull(c, q); err != nil || len(q) < 17 {
						return
					}
					end := 12
					for q[end] != 0 {
						end += int(q[end]) + 1
					}
					end += 5 // root, type, class
					typ := binary.BigEndian.Uint16(q[end-4:])
					a := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
					if typ == 1 {
						n := asked.Add(1)
						at := addrs[min(int(n), len(addrs))-1]
						a[7] = 1
						a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
						a = append(a, at[:]...)
					}
					if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}, &asked
}

// tried makes a customer, runs a round and returns its delivery.
func (r *rig) tried(t *testing.T) outbox.Delivery {
	t.Helper()
	c := r.customer(t, "Ann Lee")
	r.round(t)
	for _, d := range r.deliveries(t, false) {
		if d.Record == c.ID.UUID() {
			return d
		}
	}
	t.Fatal("no delivery")
	return outbox.Delivery{}
}

// TestRebinding: a name that leads inside is refused at the dial, whatever it led to before.
func TestRebinding(t *testing.T) {
	var hits atomic.Int64
	inside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer inside.Close()
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	require.NoError(t, err)
	for _, addrs := range [][][4]byte{{{127, 0, 0, 1}}, {{10, 1, 2, 3}}, {{169, 254, 169, 254}}, {{100, 64, 0, 1}}, {{0, 0, 0, 0}}, {{192, 0, 2, 7}, {127, 0, 0, 1}}} {
		resolver, asked := answersDNS(t, addrs...)
		r := newRig(t, &outbox.Options{Resolver: resolver, Timeout: 3 * time.Second})
		e := &outbox.Endpoint{Name: "x", URL: crm.NewText("https://rebind.example:" + port + "/?k=" + token), Types: []string{"customer"}, Acts: []string{"changed"}}
		_, err := r.Create(t.Context(), r.admin, e)
		require.NoError(t, err)
		for range addrs {
			d := r.tried(t)
			assert.Equal(t, outbox.ReasonAddress, d.Reason)
			assert.Zero(t, d.Status)
		}
		assert.NotZero(t, asked.Load())
		r.secret(t)
	}
	require.Zero(t, hits.Load())
}

// TestHostile: redirects, slow and giant answers, broken TLS and what else a receiver may do costs a try and no more.
func TestHostile(t *testing.T) {
	var inner atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inner.Add(1) }))
	defer internal.Close()
	v := newReceiver(t)
	opts := v.options()
	opts.Timeout = 700 * time.Millisecond
	r := newRig(t, opts)
	e, _ := r.endpoint(t, v.URL)
	var logged lockedBuffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, nil)))
	defer slog.SetDefault(before)
	var sent atomic.Int64
	giant := func(w http.ResponseWriter, _ *http.Request) {
		for range 4000 {
			n, err := w.Write(make([]byte, 16<<10))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	for what, test := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		reason string
		status int64
	}{
		"a redirect inside": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, internal.URL, http.StatusTemporaryRedirect)
		}, outbox.ReasonRedirect, 307},
		"a see other":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, internal.URL, http.StatusSeeOther) }, outbox.ReasonRedirect, 303},
		"not modified": {status(304), outbox.ReasonRedirect, 304},
		"a failure with words": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = w.Write([]byte("BODY-OF-THE-ANSWER"))
		}, outbox.ReasonStatus, 500},
		"a silent one": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(3 * time.Second):
			}
		}, outbox.ReasonTimeout, 0},
		"a cut line":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, outbox.ReasonNetwork, 0},
		"giant headers": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", strings.Repeat("a", 100<<10)) }, outbox.ReasonNetwork, 0},
		"a giant body":  {giant, "", 200},
		"a body without end": {func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(".")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond) // a body that never ends and never stalls
			}
		}, "", 200},
		"cookies and headers": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Set-Cookie", "a=b"); w.WriteHeader(204) }, "", 204},
	} {
		v.says(test.answer)
		start := time.Now()
		d := r.tried(t)
		assert.Equal(t, test.reason, d.Reason, what)
		assert.Equal(t, test.status, d.Status, what)
		assert.Less(t, time.Since(start), 10*time.Second, what)
		for _, m := range v.taken() {
			assert.Empty(t, m.head.Get("Cookie"), what)
			assert.Len(t, m.head, 6, "%s: %v", what, m.head) // and no other header of ours
		}
		r.pass(time.Nanosecond)
	}
	assert.Less(t, sent.Load(), int64(8<<20), "a giant body is not read")
	assert.Zero(t, inner.Load(), "no redirect is followed")
	r.secret(t)
	for _, word := range []string{token, "BODY-OF-THE-ANSWER", "Ann", v.URL} {
		assert.NotContains(t, logged.String(), word)
	}
	_ = e
}

// TestCertificates: a receiver that is not who it says it is gets nothing, and neither does plain HTTP.
func TestCertificates(t *testing.T) {
	v := newReceiver(t)
	r := newRig(t, &outbox.Options{InsecureLocal: true, Timeout: 2 * time.Second}) // its certificate is not known
	r.endpoint(t, v.URL)
	d := r.tried(t)
	assert.Equal(t, outbox.ReasonTLS, d.Reason)
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer plain.Close()
	r = newRig(t, &outbox.Options{InsecureLocal: true, Timeout: 2 * time.Second})
	r.endpoint(t, strings.Replace(plain.URL, "http:", "https:", 1))
	assert.Contains(t, []string{outbox.ReasonTLS, outbox.ReasonNetwork}, r.tried(t).Reason)
	require.Empty(t, v.taken())
	closed := plain.URL
	plain.Close()
	r = newRig(t, &outbox.Options{InsecureLocal: true})
	r.endpoint(t, closed)
	assert.Equal(t, outbox.ReasonNetwork, r.tried(t).Reason)
}

// TestProxy: a proxy of the environment would dial for us, and is not used.
func TestProxy(t *testing.T) {
	var hits atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	resolver, _ := answersDNS(t, [4]byte{127, 0, 0, 1})
	r := newRig(t, &outbox.Options{Resolver: resolver, Timeout: 2 * time.Second})
	e := &outbox.Endpoint{Name: "x", URL: crm.NewText("https://proxied.example/"), Types: []string{"customer"}, Acts: []string{"changed"}}
	_, err := r.Create(t.Context(), r.admin, e)
	require.NoError(t, err)
	assert.Equal(t, outbox.ReasonAddress, r.tried(t).Reason)
	assert.Zero(t, hits.Load())
}

// lockedBuffer is written by several.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
