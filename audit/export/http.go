package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// HTTPOptions of NewHTTP. Nil means the zero value of each field.
type HTTPOptions struct {
	Client   *http.Client  // nil: one that follows no redirect
	Header   http.Header   // added to each request, as Authorization; nil: none
	Attempts int           // for one batch, before the Pump is told; 0: 4
	Backoff  time.Duration // before the second attempt, then doubling, with jitter; 0: 500 ms
	MaxWait  time.Duration // longest pause, also of a Retry-After; 0: 15 seconds
}

// HTTP is a Sink that posts batches as JSON lines (application/x-ndjson). Each
// batch has an Idempotency-Key of its range of indices and its content. A status
// from 200 to 299 acknowledges it.
type HTTP struct {
	url  string
	opts HTTPOptions
}

// StatusError is an answer that did not acknowledge a batch.
type StatusError struct{ Status int }

// Error names the status.
func (e *StatusError) Error() string { return fmt.Sprintf("export: http: status %d", e.Status) }

// NewHTTP returns a sink that posts to a URL.
func NewHTTP(to string, opts *HTTPOptions) (*HTTP, error) {
	u, err := url.Parse(to)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, errors.New("export: http: not a URL")
	}
	s := &HTTP{url: to}
	if opts != nil {
		s.opts = *opts
	}
	o := &s.opts
	if o.Client == nil {
		o.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Attempts <= 0 {
		o.Attempts = 4
	}
	if o.Backoff <= 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.MaxWait <= 0 {
		o.MaxWait = 15 * time.Second
	}
	return s, nil
}

// Deliver implements Sink. Answers 408, 409, 425, 429 and 5xx and failed
// connections are tried again; a batch that is too large (413) is sent in
// halves; any other answer is a StatusError.
func (s *HTTP) Deliver(ctx context.Context, records []Record) error {
	if err := checkLines(records); err != nil || len(records) == 0 {
		return err
	}
	err := s.send(ctx, records)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusRequestEntityTooLarge && len(records) > 1 {
		half := len(records) / 2
		if err := s.Deliver(ctx, records[:half]); err != nil {
			return err
		}
		return s.Deliver(ctx, records[half:])
	}
	return err
}

func (s *HTTP) send(ctx context.Context, records []Record) (err error) {
	body := lines(records)
	sum := sha256.Sum256(body)
	key := fmt.Sprintf("%d-%d-%s", records[0].Index, records[len(records)-1].Index, hex.EncodeToString(sum[:8]))
	for attempt := range s.opts.Attempts {
		var again bool
		var after time.Duration
		again, after, err = s.post(ctx, body, key)
		if err == nil || !again || attempt == s.opts.Attempts-1 {
			return err
		}
		if !sleep(ctx, max(min(after, s.opts.MaxWait), backoff(attempt, s.opts.Backoff, s.opts.MaxWait))) {
			return ctx.Err()
		}
	}
	return err
}

func (s *HTTP) post(ctx context.Context, body []byte, key string) (again bool, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return false, 0, errors.New("export: http: not a URL")
	}
	for k, v := range s.opts.Header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", key)
	resp, err := s.opts.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return false, 0, ctx.Err()
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL may hold a token
		}
		return true, 0, fmt.Errorf("export: http: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
	code := resp.StatusCode
	if code >= 200 && code <= 299 {
		return false, 0, nil
	}
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusConflict, code == http.StatusTooEarly,
		code == http.StatusTooManyRequests, code >= 500:
		again = true
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n < 1<<20 {
		after = time.Duration(n) * time.Second
	}
	return again, after, &StatusError{code}
}

// Close implements Sink.
func (s *HTTP) Close() error {
	s.opts.Client.CloseIdleConnections()
	return nil
}
