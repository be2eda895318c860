package witness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors of one witness, in Answer.Err. All may be wrapped.
var (
	// ErrRollback says that the witness has signed a larger tree: the log went
	// back, or another client of it is ahead.
	ErrRollback = errors.New("witness: a larger tree of the log is signed already")
	// ErrFork says that the witness has signed another history, or that the
	// proof given to it is wrong.
	ErrFork = errors.New("witness: another history of the log is signed already")
	// ErrRefused says that the witness does not know the log or its key.
	ErrRefused = errors.New("witness: the witness refuses the log")
	// ErrAnswer says that the answer is not what a witness may answer.
	ErrAnswer = errors.New("witness: the answer is malformed or not signed by the witness")
)

// Prover returns the RFC 6962 consistency proof from the tree of the first old
// leaves to that of the first size, 0 < old < size.
type Prover func(ctx context.Context, old, size uint64) ([]tlog.Hash, error)

// TreeProver returns a Prover that reads the stored hashes of a tree.
func TreeProver(r tlog.HashReader) Prover {
	return func(_ context.Context, old, size uint64) ([]tlog.Hash, error) {
		return tlog.ProveTree(int64(size), int64(old), r)
	}
}

// Options of NewClient. Nil means the zero value of each field.
type Options struct {
	HTTP     *http.Client     // nil: one that follows no redirect
	Timeout  time.Duration    // for each witness with all its attempts; 0: 5 seconds
	Attempts int              // requests to one witness for one checkpoint, with those after a 409; 0: 4
	Grace    time.Duration    // how long the others are waited for once the quorum is met; 0: 250 ms; negative: to their deadline
	FailOpen bool             // a missing quorum is no error
	Skew     time.Duration    // how far a witness may be ahead of Clock; 0: 5 minutes
	Clock    func() time.Time // nil: time.Now
}

// Client asks the witnesses of a policy. Its methods may be called from many
// goroutines; checkpoints go one after the other.
type Client struct {
	policy *Policy
	prove  Prover
	opts   Options

	mu    sync.Mutex
	sizes map[uint32]*size // by key hash; written by the goroutine of the witness
}

// size is the last tree that a witness is known to have signed.
type size struct {
	mu sync.Mutex
	n  uint64
}

// Result of Cosign.
type Result struct {
	Note         []byte        // the checkpoint with the signatures of the witnesses added
	Cosignatures []Cosignature // all that are in Note, in the order of the policy
	Quorum       bool          // whether they are enough
	Answers      []Answer      // one for each witness that was asked
}

// Answer is what came of asking one witness.
type Answer struct {
	Name string // in the policy
	Err  error  // nil: it signed; context.DeadlineExceeded when it did not answer in time
	Took time.Duration
}

// NewClient returns a client of the witnesses in the policy that have a URL.
func NewClient(policy *Policy, prove Prover, opts *Options) (*Client, error) {
	if policy == nil || policy.quorum == "" || prove == nil {
		return nil, errors.New("witness: a client needs a policy and a prover")
	}
	c := &Client{policy: policy, prove: prove, sizes: map[uint32]*size{}}
	if opts != nil {
		c.opts = *opts
	}
	o := &c.opts
	if o.HTTP == nil {
		o.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.Grace == 0 {
		o.Grace = 250 * time.Millisecond
	}
	if o.Skew <= 0 {
		o.Skew = 5 * time.Minute
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	for _, w := range policy.Witnesses {
		c.sizes[w.Key.hash] = &size{}
	}
	return c, nil
}

// reply is an Answer on its way.
type reply struct {
	i    int
	line []byte
	err  error
	took time.Duration
}

// Cosign asks all witnesses at the same time to sign the checkpoint in msg, a
// signed note of the log, and returns it with their signatures added.
//
// Without a quorum the error is ErrQuorum, and the result is what came in; with
// Options.FailOpen there is no error then, unless a witness answered ErrFork or
// ErrRollback. The error wraps those too. Any other error, as ErrLog, says that
// nobody was asked.
func (c *Client) Cosign(ctx context.Context, msg []byte) (Result, error) {
	head, text, err := parseHead(msg)
	if err == nil {
		err = c.policy.checkLog(msg)
	}
	if err == nil {
		_, err = Cosignatures(msg, c.policy.keys()...)
	}
	if err != nil {
		return Result{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan reply, len(c.policy.Witnesses))
	res := Result{Note: bytes.Clone(msg)}
	index := map[int]int{} // witness -> answer
	for i, w := range c.policy.Witnesses {
		if w.URL == "" {
			continue
		}
		index[i] = len(res.Answers)
		res.Answers = append(res.Answers, Answer{Name: w.Name, Err: context.DeadlineExceeded})
		go func() {
			ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
			defer cancel()
			start := time.Now()
			line, err := c.ask(ctx, w, head, text, msg)
			replies <- reply{i, line, err, time.Since(start)}
		}()
	}
	lines := make([][]byte, len(c.policy.Witnesses))
	update := func() error {
		var add []byte
		for _, l := range lines {
			add = append(add, l...)
		}
		res.Note = addSignatures(msg, add)
		var err error
		res.Cosignatures, err = Cosignatures(res.Note, c.policy.keys()...)
		res.Quorum = err == nil && c.policy.met(res.Cosignatures)
		return err
	}
	if err := update(); err != nil {
		return Result{}, err
	}
	// A transport that does not heed its context must not hold up the caller.
	overdue := time.NewTimer(c.opts.Timeout + c.opts.Timeout/8 + 10*time.Millisecond)
	defer overdue.Stop()
	var grace <-chan time.Time
wait:
	for left := len(res.Answers); left > 0; left-- {
		if res.Quorum && grace == nil && c.opts.Grace > 0 {
			t := time.NewTimer(c.opts.Grace)
			defer t.Stop()
			grace = t.C
		}
		select {
		case r := <-replies:
			a := &res.Answers[index[r.i]]
			a.Err, a.Took = r.err, r.took
			if r.err == nil {
				lines[r.i] = r.line
				if err := update(); err != nil {
					return Result{}, err
				}
			}
		case <-grace:
			break wait
		case <-overdue.C:
			break wait
		case <-ctx.Done():
			break wait
		}
	}
	if res.Quorum {
		return res, nil
	}
	var worse error
	for _, a := range res.Answers {
		if errors.Is(a.Err, ErrFork) || (worse == nil && errors.Is(a.Err, ErrRollback)) {
			worse = a.Err
		}
	}
	switch {
	case worse != nil:
		return res, fmt.Errorf("%w: %w", ErrQuorum, worse)
	case c.opts.FailOpen:
		return res, nil
	}
	return res, ErrQuorum
}

// addSignatures adds signature lines to a note and takes out earlier ones by
// the same keys.
func addSignatures(msg, add []byte) []byte {
	mark := func(line []byte) string { // name and hash
		f := bytes.Fields(line)
		if len(f) != 3 || len(f[2]) < 6 {
			return ""
		}
		return string(f[1]) + " " + string(f[2][:5]) // 30 of 32 bits; more are not whole digits
	}
	fresh := map[string]bool{}
	for line := range bytes.Lines(add) {
		fresh[mark(line)] = true
	}
	at := bytes.Index(msg, []byte("\n\n")) + 2
	out := bytes.Clone(msg[:at])
	for line := range bytes.Lines(msg[at:]) {
		if !fresh[mark(line)] {
			out = append(out, line...)
		}
	}
	return append(out, add...)
}

// ask gets the signature line of one witness.
func (c *Client) ask(ctx context.Context, w PolicyWitness, head Head, text, msg []byte) ([]byte, error) {
	last := c.sizes[w.Key.hash]
	last.mu.Lock()
	defer last.mu.Unlock()
	old := last.n
	if old > head.Size {
		old = 0 // the witness will tell
	}
	var err error
	for attempt := range c.opts.Attempts {
		if attempt > 0 && err != nil && !pause(ctx, attempt) {
			return nil, err
		}
		r := request{old: old, note: msg}
		if old > 0 && old < head.Size {
			if r.proof, err = c.prove(ctx, old, head.Size); err != nil {
				return nil, fmt.Errorf("witness: no consistency proof: %w", err)
			}
			if len(r.proof) > maxProof {
				return nil, errors.New("witness: the consistency proof is too long")
			}
		}
		var a httpAnswer
		if a, err = c.post(ctx, w.URL, r.bytes()); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		switch a.status {
		case http.StatusOK:
			line, err := c.signature(w.Key, head, text, a.body)
			if err == nil {
				last.n = head.Size
			}
			return line, err
		case http.StatusConflict:
			s, ok := strings.CutSuffix(string(a.body), "\n")
			n, isSize := parseSize(s)
			kind, _, _ := strings.Cut(a.kind, ";")
			if !ok || !isSize || strings.TrimSpace(kind) != sizeType {
				return nil, ErrAnswer
			}
			switch {
			case n > head.Size:
				return nil, fmt.Errorf("%w: %d leaves, and this one has %d", ErrRollback, n, head.Size)
			case n == head.Size && old == n:
				return nil, ErrFork
			case n == old:
				return nil, ErrAnswer
			}
			old, last.n = n, n
		case http.StatusUnprocessableEntity:
			return nil, fmt.Errorf("%w: the proof from %d to %d leaves was refused", ErrFork, old, head.Size)
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			err = fmt.Errorf("witness: status %d", a.status)
		case http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized, http.StatusBadRequest:
			return nil, fmt.Errorf("%w: status %d", ErrRefused, a.status)
		default:
			return nil, fmt.Errorf("%w: status %d", ErrAnswer, a.status)
		}
	}
	if err == nil {
		err = errors.New("witness: its size changed with each attempt")
	}
	return nil, err
}

type httpAnswer struct {
	status int
	kind   string
	body   []byte
}

const maxAnswer = 64 << 10

func (c *Client) post(ctx context.Context, url string, body []byte) (a httpAnswer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return a, errors.New("witness: its URL is malformed")
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := c.opts.HTTP.Do(req)
	if err != nil {
		return a, fmt.Errorf("witness: %w", err)
	}
	defer resp.Body.Close()
	a.status, a.kind = resp.StatusCode, resp.Header.Get("Content-Type")
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return a, fmt.Errorf("witness: %w", err)
	}
	if len(a.body) > maxAnswer {
		return httpAnswer{status: a.status}, nil // no answer that is understood
	}
	return a, nil
}

// signature finds the line of key in an answer and checks it. Lines of keys
// that are not known are passed over.
func (c *Client) signature(key Key, head Head, text, body []byte) ([]byte, error) {
	n, err := note.Open(append(append(bytes.Clone(text), '\n'), body...), verifiers{key})
	if err != nil || len(n.Sigs) != 1 {
		return nil, ErrAnswer
	}
	line := []byte("— " + n.Sigs[0].Name + " " + n.Sigs[0].Base64 + "\n")
	got, err := Cosignatures(append(append(bytes.Clone(text), '\n'), line...), key)
	if err != nil || len(got) != 1 {
		return nil, ErrAnswer
	}
	if got[0].Time.After(c.opts.Clock().Add(c.opts.Skew)) {
		return nil, fmt.Errorf("%w: it is dated in the future", ErrAnswer)
	}
	return line, nil
}

// pause waits before attempt n, longer each time and never the same. It reports
// whether to go on.
func pause(ctx context.Context, n int) bool {
	var b [8]byte
	rand.Read(b[:]) // never fails
	base := min(50*time.Millisecond<<min(n, 10), 2*time.Second)
	t := time.NewTimer(base/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(base)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
