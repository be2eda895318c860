// Package fleet keeps a log of logs: one log that holds the heads of many, as those of the instances of a service. When an
// instance and its disk are lost, the log of logs still says that its log was there, how long it was and what its root was,
// so that a report over all of them says [audit.Missing] or [audit.Truncated] instead of nothing.
//
// A [Ledger] writes it: [Ledger.Enroll] names a log with its keys, [Ledger.Record] takes a signed head, [Ledger.Retire] says
// that a log ends here. Heads come over HTTP too, since a Ledger is a handler and [Push] its client; the signature of a head is
// all that a sender has to show. [Verify] checks the log of logs and then each log against all heads that were recorded of it.
//
// The log of logs is a log like any other. Its own head belongs to witnesses, or where else nobody who writes it can write.
// docs/formats/audit.md describes its events.
package fleet

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
)

// Errors of Record and Enroll. All may be wrapped.
var (
	// ErrUnknown says that the log was not enrolled, or was retired.
	ErrUnknown = errors.New("fleet: no log of this name is enrolled")
	// ErrHead says that the bytes are no checkpoint signed by a key of its log.
	ErrHead = errors.New("fleet: not a checkpoint signed by a key of its log")
	// ErrForked says that another head of this size was recorded.
	ErrForked = errors.New("fleet: another head of this size is recorded")
	// ErrPruned says that events were taken out of the log of logs, and with them who is in it.
	ErrPruned = errors.New("fleet: the log of logs is pruned")
	// ErrEnrolled says that the log is enrolled with other keys that the new ones do not contain.
	ErrEnrolled = errors.New("fleet: the log is enrolled with keys that are lacking here")
)

// The actions of the log of logs.
const (
	actionEnrolled = "log.enrolled"
	actionHead     = "log.head"
	actionForked   = "log.forked"
	actionRetired  = "log.retired"
	targetType     = "log"
)

// Ledger writes a log of logs. It is safe for concurrent use.
type Ledger struct {
	log   *audit.Log
	opts  Options
	mu    sync.Mutex
	known map[string]*member
}

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Every time.Duration    // heads of one log that come sooner after the last recorded one are checked and passed over; 0: one minute; negative: none is
	Clock func() time.Time // nil: time.Now
}

// Hold is for Options.Hold of the log of logs: a log of logs is never pruned, for it would forget who is in it.
func Hold(context.Context, audit.Entry) error {
	return errors.New("fleet: the log of logs is kept whole")
}

// member is what is known of a log.
type member struct {
	keys    []string
	open    note.Verifiers
	size    uint64
	root    tlog.Hash
	at      time.Time // when it was recorded
	heads   [][]byte  // all that were recorded; of Verify only
	retired bool
}

// Open reads what log l, the log of logs, says so far. The caller opens it with Hold, keeps it open, and closes it. A log of
// logs that was pruned is ErrPruned.
func Open(ctx context.Context, l *audit.Log, opts *Options) (*Ledger, error) {
	g := &Ledger{log: l, known: map[string]*member{}}
	if opts != nil {
		g.opts = *opts
	}
	if g.opts.Clock == nil {
		g.opts.Clock = time.Now
	}
	if g.opts.Every == 0 {
		g.opts.Every = time.Minute
	}
	if l.Pruned() > 0 {
		return nil, ErrPruned
	}
	for e, err := range l.Events(ctx, 0) {
		if err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
		if err := learn(g.known, &e, false); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// learn takes an event of the log of logs.
func learn(known map[string]*member, e *audit.Entry, keep bool) error {
	if len(e.Event.Targets) != 1 || e.Event.Targets[0].Type != targetType {
		return nil
	}
	bad := fmt.Errorf("fleet: event %d of the log of logs is not as it was written", e.Index)
	target := &e.Event.Targets[0]
	m := known[target.ID]
	switch e.Event.Action {
	case actionEnrolled:
		keys := strings.Fields(e.Event.Note)
		open, err := verifiers(target.ID, keys)
		if err != nil {
			return bad
		}
		if m == nil {
			m = &member{}
			known[target.ID] = m
		}
		m.keys, m.open, m.retired = keys, open, false
	case actionHead:
		msg, err := base64.StdEncoding.DecodeString(e.Event.Note)
		if err != nil || m == nil {
			return bad
		}
		h, err := m.head(target.ID, msg)
		if err != nil || h.size != target.Version || !bytes.Equal(h.root[:], target.Digest) {
			return bad
		}
		m.size, m.root, m.at = h.size, h.root, e.Event.Time
		if keep {
			m.heads = append(m.heads, msg)
		}
	case actionForked:
		msg, err := base64.StdEncoding.DecodeString(e.Event.Note)
		if err != nil || m == nil {
			return bad
		}
		if keep {
			m.heads = append(m.heads, msg) // one of the two has to be wrong
		}
	case actionRetired:
		if m == nil {
			return bad
		}
		m.retired = true
	}
	return nil
}

// verifiers reads the keys of a log.
func verifiers(origin string, keys []string) (note.Verifiers, error) {
	var list []note.Verifier
	for _, key := range keys {
		v, err := note.NewVerifier(key)
		if err != nil || v.Name() != origin {
			return nil, fmt.Errorf("fleet: not a verifier key of %q", origin)
		}
		if slices.ContainsFunc(list, func(o note.Verifier) bool { return o.KeyHash() == v.KeyHash() }) {
			return nil, fmt.Errorf("fleet: a verifier key of %q is given twice", origin)
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, errors.New("fleet: a log has at least one verifier key")
	}
	return note.VerifierList(list...), nil
}

type head struct {
	size uint64
	root tlog.Hash
}

// maxHead bounds a note with the signatures of its witnesses.
const maxHead = 16 << 10

// head checks a signed checkpoint of the log called origin.
func (m *member) head(origin string, msg []byte) (head, error) {
	var h head
	if len(msg) > maxHead {
		return h, ErrHead
	}
	n, err := note.Open(msg, m.open)
	if err != nil {
		return h, ErrHead
	}
	name, h, ok := parse(n.Text)
	if !ok || name != origin {
		return h, ErrHead
	}
	return h, nil
}

// parse reads the first lines of a checkpoint: origin, size and root.
func parse(text string) (origin string, h head, ok bool) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 {
		return "", h, false
	}
	if _, err := fmt.Sscanf(lines[1], "%d", &h.size); err != nil || fmt.Sprint(h.size) != lines[1] {
		return "", h, false
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(h.root) {
		return "", h, false
	}
	copy(h.root[:], root)
	return lines[0], h, true
}

// Enroll names a log with its verifier keys, the encoding of C2SP signed notes, all of one name. A log that is enrolled
// already may get more keys: the newest list holds, and has to contain those before it, which old heads need (ErrEnrolled).
// A retired log comes back.
func (g *Ledger) Enroll(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return errors.New("fleet: a log has at least one verifier key")
	}
	v, err := note.NewVerifier(keys[0])
	if err != nil {
		return errors.New("fleet: not a verifier key")
	}
	origin := v.Name()
	open, err := verifiers(origin, keys)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.known[origin]
	if m != nil {
		for _, old := range m.keys {
			if !slices.Contains(keys, old) {
				return ErrEnrolled
			}
		}
		if len(m.keys) == len(keys) && !m.retired {
			return nil
		}
	}
	if err := g.append(ctx, audit.Event{Action: actionEnrolled, Activity: audit.Configure, Note: strings.Join(keys, " "),
		Targets: []audit.Target{{Type: targetType, ID: origin}}}); err != nil {
		return err
	}
	if m == nil {
		m = &member{}
		g.known[origin] = m
	}
	m.keys, m.open, m.retired = slices.Clone(keys), open, false
	return nil
}

// Retire says that the log called origin takes no events any more. It is still verified. ErrUnknown when it is not enrolled.
func (g *Ledger) Retire(ctx context.Context, origin string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.known[origin]
	if m == nil || m.retired {
		return ErrUnknown
	}
	if err := g.append(ctx, audit.Event{Action: actionRetired, Activity: audit.Configure,
		Targets: []audit.Target{{Type: targetType, ID: origin, Version: m.size}}}); err != nil {
		return err
	}
	m.retired = true
	return nil
}

// Record takes a signed checkpoint of a log that is enrolled and writes it down, durable when it returns, unless the last
// one is younger than Options.Every. One that is older than the last is passed over. Errors: ErrUnknown, ErrHead,
// ErrForked, which is written down as well, and those of audit.Log.Append.
func (g *Ledger) Record(ctx context.Context, msg []byte) error {
	origin, _, ok := bytes.Cut(msg, []byte("\n"))
	if !ok || len(msg) > maxHead {
		return ErrHead
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.known[string(origin)]
	if m == nil || m.retired {
		return ErrUnknown
	}
	h, err := m.head(string(origin), msg)
	if err != nil {
		return err
	}
	target := audit.Target{Type: targetType, ID: string(origin), Version: h.size, Digest: h.root[:]}
	text := base64.StdEncoding.EncodeToString(msg)
	now := g.opts.Clock()
	switch {
	case h.size == m.size && h.root != m.root && !m.at.IsZero():
		if err := g.append(ctx, audit.Event{Action: actionForked, Outcome: audit.Denied, Targets: []audit.Target{target}, Note: text}); err != nil {
			return err
		}
		return ErrForked
	case h.size <= m.size && !m.at.IsZero():
		return nil
	case g.opts.Every > 0 && !m.at.IsZero() && now.Before(m.at.Add(g.opts.Every)):
		return nil
	}
	if err := g.append(ctx, audit.Event{Action: actionHead, Time: now, Targets: []audit.Target{target}, Note: text}); err != nil {
		return err
	}
	m.size, m.root, m.at = h.size, h.root, now
	return nil
}

func (g *Ledger) append(ctx context.Context, e audit.Event) error {
	e.Actor = "fleet"
	if e.Outcome == 0 {
		e.Outcome = audit.Allowed
	}
	if _, err := g.log.Append(ctx, e); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	return nil
}

// ServeHTTP takes a head as the body of a POST: 204 when it is taken or passed over, 400 for ErrHead, 404 for ErrUnknown,
// 409 for ErrForked, 503 when the log of logs does not take it.
func (g *Ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a head is posted", http.StatusMethodNotAllowed)
		return
	}
	msg, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHead))
	if err == nil {
		err = g.Record(r.Context(), msg)
	} else {
		err = ErrHead
	}
	status := http.StatusServiceUnavailable
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	case errors.Is(err, ErrHead):
		status = http.StatusBadRequest
	case errors.Is(err, ErrUnknown):
		status = http.StatusNotFound
	case errors.Is(err, ErrForked):
		status = http.StatusConflict
	}
	http.Error(w, http.StatusText(status), status)
}

// Push posts heads to a Ledger at url, for Options.OnCheckpoint of a log. Each call takes at most timeout (0: ten seconds);
// what fails is given to failed and not tried again, because the next head says more. client may carry TLS settings;
// nil: http.DefaultClient.
func Push(client *http.Client, url string, timeout time.Duration, failed func(error)) func(audit.Checkpoint) {
	if client == nil {
		client = http.DefaultClient
	}
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	return func(c audit.Checkpoint) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := push(ctx, client, url, c.Note); err != nil && failed != nil {
			failed(err)
		}
	}
}

func push(ctx context.Context, client *http.Client, url string, msg []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(msg))
	if err != nil {
		return errors.New("fleet: the URL is malformed")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNoContent:
		return nil
	case http.StatusBadRequest:
		return ErrHead
	case http.StatusNotFound:
		return ErrUnknown
	case http.StatusConflict:
		return ErrForked
	}
	return fmt.Errorf("fleet: the ledger answers %d", resp.StatusCode)
}
