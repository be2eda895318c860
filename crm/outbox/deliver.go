package outbox

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// The bounds of sending.
const (
	mostDue     = 50       // deliveries of an endpoint in one turn
	mostAtOnce  = 4        // of them on the way at once
	mostBody    = 16 << 10 // bytes of an answer that are read
	mostHeaders = 32 << 10 // bytes of its headers
	mostWait    = 24 * time.Hour
)

// waits are the times between one try and the next; a message is tried once more than there are.
var waits = []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 10 * time.Hour}

// MaxTries is how often a message is tried before it is given up, over about 20 hours.
const MaxTries = 8

// wait returns how long to wait after a failed try, n of which there were by now: a fifth more or less, by the id of the message, so that they do
// not all come at once.
func wait(id crm.UUID, n int) time.Duration {
	w := waits[min(max(n, 1), len(waits))-1]
	spread := int64(w) / 5
	h := binary.BigEndian.Uint32(id[10:14]) + uint32(n)*2654435761
	return w + time.Duration(int64(h)*2*spread/(1<<32)-spread)
}

// newClient makes the client that sends: no proxy, no redirect, no cookie, and only public addresses.
func newClient(o *Options) *http.Client {
	config := &tls.Config{}
	if o.TLS != nil {
		config = o.TLS.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.InsecureSkipVerify = false
	return &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			DialContext: dialer(o.InsecureLocal, o.Resolver).DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: mostHeaders, DisableCompression: true,
			MaxIdleConns: 100, MaxIdleConnsPerHost: mostAtOnce, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what became of one try.
type answer struct {
	ok     bool
	status int
	reason string
	after  time.Duration // Retry-After; 0: none
}

// envelope is the body of a message; see docs/formats/webhook.md.
type envelope struct {
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"`
	Data      data   `json:"data"`
}

type data struct {
	RecordType string         `json:"record_type"`
	ID         string         `json:"id"`
	Version    int64          `json:"version"`
	Deleted    bool           `json:"deleted"`
	Fields     map[string]any `json:"fields"`
	Masked     []string       `json:"masked"`
	Erased     []string       `json:"erased"`
}

// body is the message of a delivery, or why there is none: its person was erased, or is about to be.
func (d *Delivery) body() (b []byte, reason string) {
	switch {
	case d.Payload.State() == crm.Erased:
		return nil, ReasonErased
	case d.Payload.State() != crm.Clear, d.Other.State() != crm.Clear && d.Other.State() != crm.Erased:
		return nil, ReasonBlocked
	}
	m := envelope{Type: d.RecordType + "." + d.Act, Timestamp: d.Made.UTC().Format(time.RFC3339Nano), Data: data{
		RecordType: d.RecordType, ID: d.Record.String(), Version: d.RecordVersion, Deleted: d.Act == ActDeleted, Fields: map[string]any{}, Masked: []string{}, Erased: []string{},
	}}
	for _, t := range []crm.Text{d.Payload, d.Other} {
		if t.Expose() == "" {
			continue
		}
		var p part
		dec := json.NewDecoder(bytes.NewReader([]byte(t.Expose())))
		dec.UseNumber()
		if err := dec.Decode(&p); err != nil {
			return nil, ReasonEndpoint
		}
		for k, v := range p.Fields {
			m.Data.Fields[k] = v
		}
		m.Data.Masked, m.Data.Erased = append(m.Data.Masked, p.Masked...), append(m.Data.Erased, p.Erased...)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return nil, ReasonEndpoint
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), ""
}

// signatures are those of an endpoint's secrets that are good at a time.
func (e *Endpoint) signatures(id string, at time.Time, body []byte) (string, bool) {
	s, err := ParseSecret(e.Secret.Expose())
	if err != nil {
		return "", false
	}
	text := s.Sign(id, at, body)
	if old, err := ParseSecret(e.OldSecret.Expose()); err == nil && at.Before(e.OldUntil) {
		text += " " + old.Sign(id, at, body)
	}
	return text, true
}

// send tries a message once.
func (b *Outbox) send(ctx context.Context, e *Endpoint, d *Delivery) answer {
	body, reason := d.body()
	if reason != "" {
		return answer{reason: reason}
	}
	u, ok := parseURL(e.URL.Expose())
	if !ok {
		return answer{reason: ReasonEndpoint}
	}
	if !dialled(u, b.o.InsecureLocal) {
		return answer{reason: ReasonAddress}
	}
	at := b.now()
	signed, ok := e.signatures(d.ID.String(), at, body)
	if !ok {
		return answer{reason: ReasonEndpoint}
	}
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{reason: ReasonEndpoint}
	}
	req.GetBody = nil // a message is not sent twice in one try
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"crmguard-webhook/1"},
		HeaderID: {d.ID.String()}, HeaderTimestamp: {strconv.FormatInt(at.Unix(), 10)}, HeaderSignature: {signed},
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return answer{reason: reasonOf(err)} // its text has the URL
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, mostBody) // the status has been said; the rest is not waited for
	a := answer{status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"), at)}
	switch {
	case a.status >= 200 && a.status < 300:
		a.ok = true
	case a.status >= 300 && a.status < 400:
		a.reason = ReasonRedirect
	case a.status == http.StatusGone:
		a.reason = ReasonGone
	default:
		a.reason = ReasonStatus
	}
	return a
}

// reasonOf puts an error of the client into a word.
func reasonOf(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errAddress):
		return ReasonAddress
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert):
		return ReasonTLS
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	case errors.As(err, &dns):
		return ReasonName
	}
	return ReasonNetwork
}

// retryAfter reads the header, seconds or a date; 0 where it says nothing.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, mostWait)
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), mostWait)
	}
	return 0
}

// note sets what became of a try.
func (d *Delivery) note(a answer, now time.Time) {
	d.Tries++
	d.Status, d.Reason = int64(a.status), a.reason
	switch {
	case a.ok:
		d.State, d.DoneAt = Delivered, now
	case d.Tries >= MaxTries, a.reason == ReasonErased, a.reason == ReasonGone:
		d.State, d.DoneAt = Dead, now
	default:
		d.NextAt = now.Add(max(wait(d.ID.UUID(), int(d.Tries)), a.after))
	}
}

// Deliver sends what is due to every endpoint that is not paused, and returns how many messages were taken. Endpoints do not wait for each other but
// for the end of a turn; one that does not answer ends its own.
func (b *Outbox) Deliver(ctx context.Context) (sent int, err error) {
	b.run.Lock()
	defer b.run.Unlock()
	list, err := b.endpoints(ctx)
	if err != nil {
		return 0, err
	}
	head, err := b.r.Deliveries.Head(ctx, b.program)
	if err != nil {
		return 0, err
	}
	if head == b.idleAt && b.knownAt == b.idleOf && (b.nextDue.IsZero() || b.now().Before(b.nextDue)) {
		return 0, nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	active := map[crm.ID[Endpoint]]bool{}
	for _, e := range list {
		if e.State == Paused {
			continue
		}
		active[e.ID] = true
		wg.Add(1)
		go func() {
			defer wg.Done()
			n, err := b.turn(ctx, e)
			mu.Lock()
			defer mu.Unlock()
			sent += n
			errs = append(errs, err)
		}()
	}
	wg.Wait()
	errs = append(errs, b.idle(ctx, list, head))
	return sent, errors.Join(errs...)
}

// idle remembers when something is due next, so that looking leaves nothing in the log until then.
func (b *Outbox) idle(ctx context.Context, list []*Endpoint, head int64) error {
	b.idleAt, b.nextDue = -1, time.Time{}
	now, err := b.r.Deliveries.Head(ctx, b.program)
	if err != nil || now != head { // something was done, or came: look again
		return err
	}
	ids := []crm.Value{}
	for _, e := range list {
		if e.State != Paused {
			ids = append(ids, crm.StringValue(e.ID.String()))
		}
	}
	if len(ids) > 0 && len(ids) <= 1000 {
		page, err := b.r.Deliveries.List(ctx, b.program, guard.Query{
			Sort: "next_at", Limit: 1, Hide: []string{"payload", "other"}, Clauses: []crm.Clause{is("state", string(Waiting)), {Column: "endpoint", Op: crm.In, Values: ids}},
		})
		if err != nil {
			return err
		}
		if len(page.Items) > 0 {
			b.nextDue = page.Items[0].Value.NextAt
		}
	}
	b.idleAt, b.idleOf = head, b.knownAt
	return nil
}

// turn sends what is due to one endpoint.
func (b *Outbox) turn(ctx context.Context, e *Endpoint) (sent int, err error) {
	page, err := b.r.Deliveries.List(ctx, b.program, guard.Query{Sort: "next_at", Limit: mostDue, Clauses: []crm.Clause{
		is("endpoint", e.ID.String()), is("state", string(Waiting)), {Column: "next_at", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(b.now())}},
	}})
	if err != nil || len(page.Items) == 0 {
		return 0, err
	}
	answers := make([]*answer, len(page.Items))
	next := make(chan int)
	stop := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	for range min(mostAtOnce, len(page.Items)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				a := b.send(ctx, e, page.Items[i].Value)
				if ctx.Err() != nil {
					return // the try was cut off here, not there
				}
				answers[i] = &a
				if a.reason == ReasonTimeout || a.reason == ReasonGone {
					once.Do(func() { close(stop) })
				}
			}
		}()
	}
	for i := range page.Items {
		select {
		case next <- i:
			continue
		case <-stop:
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return b.settle(context.WithoutCancel(ctx), e, page.Items, answers)
}

// settle stores what became of the tries of a turn.
func (b *Outbox) settle(ctx context.Context, e *Endpoint, items []guard.View[*Delivery], answers []*answer) (sent int, err error) {
	now := b.now()
	state, reason := e.State, e.Reason
	tx := b.g.Begin(b.program, "outbox.deliver")
	done := 0
	for i, a := range answers {
		if a == nil {
			continue
		}
		d := items[i].Value
		dead := false
		err := b.r.Deliveries.ActIn(ctx, tx, "update", d.ID.UUID(), d.Version, func(d *Delivery) error {
			d.note(*a, now)
			dead = d.State == Dead
			return nil
		})
		if err != nil {
			if errors.Is(err, crm.ErrConflict) || errors.Is(err, crm.ErrNotFound) {
				continue // another process was at it
			}
			return 0, err
		}
		done++
		if a.ok {
			sent++
		}
		switch {
		case state == Paused:
		case a.reason == ReasonGone:
			state, reason = Paused, ReasonGone
		case dead && a.reason != ReasonErased:
			state, reason = Failing, a.reason
		case a.ok && state == Failing && reason != ReasonSubject:
			state, reason = Active, ""
		}
	}
	if done == 0 {
		return 0, nil
	}
	if state != e.State || reason != e.Reason {
		if err := b.r.Endpoints.ActIn(ctx, tx, "update", e.ID.UUID(), 0, func(e *Endpoint) error {
			if e.State != Paused { // somebody paused it meanwhile
				e.State, e.Reason, e.LastAt = state, reason, now
			}
			return nil
		}); err != nil && !errors.Is(err, crm.ErrNotFound) {
			return 0, err
		}
		slog.Info("an endpoint has another state", "endpoint", e.ID.String(), "state", string(state), "reason", reason)
	}
	if _, err := tx.Commit(ctx); err != nil {
		return 0, err // it is sent again, under the same ids
	}
	return sent, nil
}

// Sweep purges what was taken longer ago than Options.Keep and what was given up longer ago than Options.KeepDead, and what waits for endpoints that are no more. It returns
// how many deliveries went. One whose person is under a legal hold stays.
func (b *Outbox) Sweep(ctx context.Context) (gone int, err error) {
	b.run.Lock()
	defer b.run.Unlock()
	now := b.now()
	list, err := b.endpoints(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, q := range []guard.Query{
		{Clauses: []crm.Clause{is("state", string(Delivered)), before("done_at", now.Add(-b.o.Keep))}},
		{Clauses: []crm.Clause{is("state", string(Dead)), before("done_at", now.Add(-b.o.KeepDead))}},
		{Clauses: []crm.Clause{is("state", string(Waiting)), before("made", now.Add(-b.o.KeepDead))}},
	} {
		orphans := q.Clauses[0].Values[0].Str() == string(Waiting)
		if orphans {
			q.Clauses = q.Clauses[:1]
		}
		q.Limit, q.Hide, q.Sort = 200, []string{"payload", "other"}, "created_at"
		for {
			page, err := b.r.Deliveries.List(ctx, b.program, q)
			if err != nil {
				return gone, errors.Join(append(errs, err)...)
			}
			for i := range page.Items {
				d := page.Items[i].Value
				if orphans && slices.ContainsFunc(list, func(e *Endpoint) bool { return e.ID == d.Endpoint }) {
					continue
				}
				err := b.r.Deliveries.Delete(ctx, b.program, d.ID.UUID(), d.Version)
				if err != nil && !errors.Is(err, crm.ErrConflict) && !errors.Is(err, crm.ErrNotFound) {
					errs = append(errs, err)
				}
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	for q := (guard.Query{Bin: true, Limit: 200, Hide: []string{"payload", "other"}}); ; {
		page, err := b.r.Deliveries.List(ctx, b.program, q)
		if err != nil {
			return gone, errors.Join(append(errs, err)...)
		}
		for i := range page.Items {
			d := page.Items[i].Value
			switch err := b.r.Deliveries.Purge(ctx, b.program, d.ID.UUID(), d.Version); {
			case err == nil:
				gone++
			case guard.Denied(err), errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound):
			default:
				errs = append(errs, err)
			}
		}
		if q.After = page.Next; page.Next == "" {
			return gone, errors.Join(errs...)
		}
	}
}

func before(column string, at time.Time) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Less, Values: []crm.Value{crm.TimeValue(at)}}
}
