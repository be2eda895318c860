package main_test

import (
	"encoding/pem"
	"io"
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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm/outbox"
)

// receiver is another system's end: it answers as told and keeps what it was sent.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer int
	got    []message
}

type message struct {
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T) (r *receiver, ca string) {
	r = &receiver{answer: http.StatusOK}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(q.Body, 1<<20))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, message{q.Header.Clone(), body})
		w.WriteHeader(r.answer)
	}))
	t.Cleanup(r.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}), 0o600))
	return r, ca
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = status
}

// wait returns what was sent, when there are so many.
func (r *receiver) wait(t *testing.T, n int) []message {
	t.Helper()
	var all []message
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = append(all[:0], r.got...)
		return len(all) >= n
	}, time.Minute, 50*time.Millisecond)
	return all
}

// TestJourneyWebhook: in a browser, an administrator makes an endpoint, sees its secret once and the deliveries to it, finds a dead one, and sends it again; the receiver checks each
// with that secret.
//
//crm:item 59 partly
func TestJourneyWebhook(t *testing.T) {
	rec, ca := newReceiver(t)
	p := serve(t, filepath.Join(t.TempDir(), "data"), nil, "--webhook-ca", ca, "--webhook-local")
	p.signIn(t, "admin")
	b := open(t, p)
	b.signIn("admin@demo.example", newPassword)
	b.visit("/endpoints/new")
	b.pictures("endpoint-new", "/endpoints/new")
	b.visit("/endpoints/new")
	b.eval(`document.querySelector('[name=name]').value = 'Shop'; document.querySelector('[name=url]').value = ` + strconv.Quote(rec.URL+"/in") + `; document.querySelector('[name=types][value=customer]').checked = true; ""`)
	b.press(`main form[action="/endpoints"] button`)
	at := b.eval(`location.pathname`)
	require.Regexp(t, `^/endpoints/[0-9a-f-]{36}$`, at)
	text := regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+`).FindString(b.text())
	secret, err := outbox.ParseSecret(text)
	require.NoError(t, err)
	b.picture("endpoint-secret-en-1280")
	b.visit(at)
	assert.NotContains(t, b.text(), "whsec_", "shown once")

	b.visit("/customers/new")
	b.eval(`document.querySelector('[name=name]').value = 'Acme Ltd'; ""`)
	b.press(`main form[action="/customers"] button`)
	first := rec.wait(t, 1)[0]
	require.NoError(t, outbox.Verify(first.header, first.body, time.Now(), 0, secret))
	assert.Contains(t, string(first.body), "customer.changed")
	assert.Contains(t, string(first.body), "Acme Ltd")
	b.wait("/deliveries", "Taken")
	b.pictures("deliveries", "/deliveries")

	// A receiver that says that it is gone pauses the endpoint, and its message is dead until somebody sends it again.
	rec.answers(http.StatusGone)
	b.visit(at)
	b.submit(`form[action$="/test"]`)
	rec.wait(t, 2)
	b.wait(at, "Paused")
	b.visit("/deliveries")
	dead := b.eval(`[...document.querySelectorAll('tr')].find(r => r.innerText.includes('410'))?.querySelector('a[href^="/deliveries/"]')?.getAttribute('href') || ""`)
	require.NotEmpty(t, dead)
	b.pictures("delivery-dead", dead)
	b.pictures("endpoint-paused", at)
	rec.answers(http.StatusOK)
	b.visit(at)
	b.submit(`form[action$="/resume"]`)
	b.visit(dead)
	b.submit(`form[action$="/replay"]`)
	assert.Contains(t, b.text(), "Queued for sending")
	again := rec.wait(t, 3)
	assert.Equal(t, again[1].header.Get(outbox.HeaderID), again[2].header.Get(outbox.HeaderID), "the same message")
	require.NoError(t, outbox.Verify(again[2].header, again[2].body, time.Now(), 0, secret))
	b.wait(dead, "Taken")
	b.calm()
	assert.NotContains(t, p.output.String(), "Acme")
}

// wait looks at a page until it says something.
func (b *tab) wait(path, text string) {
	b.t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		b.visit(path)
		if strings.Contains(b.text(), text) {
			return
		}
		if time.Since(begin) > time.Minute {
			b.t.Fatalf("%s does not say %s: %s", path, text, b.text())
		}
	}
}
