package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
)

// Report is what Verify found.
type Report struct {
	Ledger audit.Verdict // of the log of logs
	Logs   []Member      // by name
}

// Member is one log.
type Member struct {
	Origin  string
	Retired bool
	Heads   int           // how many were recorded
	Verdict audit.Verdict // Missing when its store is not there
}

// OK reports whether the log of logs and every log in it are proven whole.
func (r Report) OK() bool {
	return r.Ledger.OK() && !slices.ContainsFunc(r.Logs, func(m Member) bool { return !m.Verdict.OK() })
}

// Verify checks the log of logs in ledger with its keys and opts, and then each log that it names against all heads that
// were recorded of it, so that a log is Pinned at best. Store opens a log; an error that wraps fs.ErrNotExist says that it is
// not there, which is Missing. Of a log that was enrolled and never sent a head the verdict is Missing or Unanchored. The
// options of the members are opts without pins and witnesses.
//
// The error is nil unless a check could not be done; when the log of logs is not in order its verdict says so, and Logs
// has what it says as far as it goes. Beside an error the report is empty, which is not OK. opts.Start is not used: all of
// the log of logs is read.
func Verify(ctx context.Context, ledger driver.Store, keys []string, opts *audit.VerifyOptions, store func(origin string) (driver.Store, error)) (Report, error) {
	var o audit.VerifyOptions
	if opts != nil {
		o = *opts
	}
	known := map[string]*member{}
	var learned error
	own := o
	own.Start = nil // all of it is read
	own.OnEvent = func(e audit.Entry) {
		if err := learn(known, &e, true); err != nil && learned == nil {
			learned = err
		}
		if o.OnEvent != nil {
			o.OnEvent(e)
		}
	}
	var r Report
	var err error
	if r.Ledger, err = audit.Verify(ctx, ledger, keys, &own); err != nil {
		return Report{}, err
	}
	if r.Ledger.Pruned > 0 {
		return Report{}, ErrPruned
	}
	if learned != nil && r.Ledger.OK() {
		return Report{}, learned
	}
	o.Start, o.Witnesses, o.Quorum, o.OnEvent = nil, nil, 0, nil
	for origin, m := range known {
		o.Pins = m.heads
		one := Member{Origin: origin, Retired: m.retired, Heads: len(m.heads)}
		s, err := store(origin)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			one.Verdict = audit.Verdict{State: audit.Missing, At: -1, Reason: "there is no log", Origin: origin}
		case err != nil:
			return Report{}, fmt.Errorf("fleet: %s: %w", origin, err)
		default:
			if one.Verdict, err = audit.Verify(ctx, s, m.keys, &o); err != nil {
				return Report{}, fmt.Errorf("fleet: %s: %w", origin, err)
			}
		}
		r.Logs = append(r.Logs, one)
	}
	sort.Slice(r.Logs, func(i, j int) bool { return r.Logs[i].Origin < r.Logs[j].Origin })
	return r, nil
}
