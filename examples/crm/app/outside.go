package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/export"
	"github.com/crmguard/crmguard/audit/witness"
)

// outside is what the log gives to places that its owner does not rule: signed heads to witnesses and to a folder of
// write-once copies, events to a SIEM. All may be nil.
type outside struct {
	policy *witness.Policy
	client *witness.Client
	copies *witness.DirBucket
	copied time.Time // when the last copy was made
	pump   *export.Pump

	giving  sync.Mutex
	closing atomic.Bool // the next head is the last one

	mu  sync.Mutex
	bad map[string]bool // what fails at present: each is said once
}

// copyEvery is how often a head is copied: each stays for ever. The database has one of each second.
const copyEvery = time.Minute

// openOutside opens the witnesses and copies that the configuration names, nil for none.
func openOutside(c *Config) (*outside, error) {
	o := &outside{bad: map[string]bool{}}
	var err error
	if c.Copies != "" {
		// It is never made here: a disk that is not mounted would look like one without heads.
		if info, err := os.Stat(c.Copies); err != nil || !info.IsDir() {
			return nil, errors.New("crm: --head-copies names no folder that is there")
		}
		if o.copies, err = witness.NewDirBucket(c.Copies); err != nil {
			return nil, err
		}
	}
	if c.Witnesses != "" {
		text, err := os.ReadFile(c.Witnesses)
		if err != nil {
			return nil, fmt.Errorf("crm: the policy of witnesses cannot be read: %w", errors.Unwrap(err))
		}
		if o.policy, err = witness.ParsePolicy(text); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// witnessedBy asks the witnesses for each head from now on. When they have signed another history, or more than there is,
// somebody has put back an old log, and that is an error. Witnesses that do not answer are none.
func (o *outside) witnessedBy(ctx context.Context, l *audit.Log) error {
	if o.policy == nil {
		return nil
	}
	client, err := witness.NewClient(o.policy, witness.TreeProver(treeOf{l}), &witness.Options{Timeout: 2 * time.Second})
	if err != nil {
		return err
	}
	head, err := l.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if _, err := client.Cosign(ctx, head.Note); errors.Is(err, witness.ErrFork) || errors.Is(err, witness.ErrRollback) {
		return fmt.Errorf("crm: the log is not the one that its witnesses know: %w", err)
	}
	o.client = client
	return nil
}

// last gives the head away that the log has at its end.
func (o *outside) last(ctx context.Context, l *audit.Log, keep func(context.Context, audit.Checkpoint)) error {
	o.closing.Store(true)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	head, err := l.Checkpoint(ctx)
	if err == nil {
		keep(ctx, o.give(ctx, head))
	}
	return nil // the log says itself what is wrong with it
}

// treeOf reads the hashes of the log as it is now, which has every head that was signed.
type treeOf struct{ l *audit.Log }

func (t treeOf) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	return t.l.Tree().ReadHashes(indexes)
}

// give gives a head away and returns it with the signatures that it got. What fails now is done with the next head.
func (o *outside) give(ctx context.Context, cp audit.Checkpoint) audit.Checkpoint {
	o.giving.Lock()
	defer o.giving.Unlock()
	if o.client != nil {
		res, err := o.client.Cosign(ctx, cp.Note)
		o.tell("witnesses", err)
		if err == nil {
			cp.Note = res.Note
		}
	}
	if now := time.Now(); o.copies != nil && (now.Sub(o.copied) >= copyEvery || o.closing.Load()) {
		err := witness.Copy(ctx, o.copies, cp.Note)
		if o.tell("copies", err); err == nil {
			o.copied = now
		}
	}
	if o.pump != nil {
		o.pump.Wake()
	}
	return cp
}

// tell says in the program's own log when something begins or ceases to fail. A fork is said each time.
func (o *outside) tell(what string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case errors.Is(err, witness.ErrFork) || errors.Is(err, witness.ErrRollback):
		slog.Error("the audit log has another history elsewhere", "where", what)
	case (err != nil) == o.bad[what]:
	case err != nil:
		slog.Warn("the audit log does not reach", "where", what)
	default:
		slog.Info("the audit log reaches again", "where", what)
	}
	o.bad[what] = err != nil
}

// heads returns those that lie in the folder of copies, the newest ones.
func (o *outside) heads(ctx context.Context, c *Config) ([][]byte, error) {
	if o.copies == nil {
		return nil, nil
	}
	return witness.Pins(ctx, o.copies, c.logName(), 64)
}

// witnesses returns the keys of those that have signed the newest of heads that satisfies the policy. All of them count.
func (o *outside) witnesses(heads [][]byte) (keys []string) {
	if o.policy == nil {
		return nil
	}
	best := uint64(0)
	for _, h := range heads {
		signed, err := o.policy.Check(h)
		if err != nil {
			continue
		}
		if head, err := witness.ParseHead(h); err == nil && head.Size >= best {
			best, keys = head.Size, nil
			for _, s := range signed {
				keys = append(keys, s.Key.String())
			}
		}
	}
	return keys
}

// openSIEM makes what sends the events of the log to where the configuration says.
func (a *App) openSIEM() error {
	c := &a.Config
	if c.SIEM == "" {
		return nil
	}
	to, err := url.Parse(c.SIEM)
	if err != nil {
		return errSIEM // the URL may hold a password
	}
	var config tls.Config
	if c.SIEMCA != "" {
		pem, err := os.ReadFile(c.SIEMCA)
		if err != nil {
			return fmt.Errorf("crm: --siem-ca cannot be read: %w", errors.Unwrap(err))
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("crm: --siem-ca holds no certificate")
		}
	}
	config.MinVersion = tls.VersionTLS12
	var sink export.Sink
	format := "ocsf"
	switch {
	case to.Scheme == "file" && to.Host == "" && to.Path != "":
		sink, err = export.OpenFile(to.Path, nil)
	case to.Scheme == "tls" && to.Port() != "" && to.User == nil:
		format = "cef"
		sink, err = export.NewSyslog(to.Host, &config, nil)
	case to.Scheme == "https" && to.Host != "":
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &config
		sink, err = export.NewHTTP(c.SIEM, &export.HTTPOptions{Client: &http.Client{
			Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}})
	default:
		return errSIEM
	}
	if err != nil {
		return err
	}
	if c.SIEMFormat != "" {
		format = c.SIEMFormat
	}
	formats := map[string]func(export.Source) export.Format{"ocsf": export.OCSF, "cef": export.CEF, "ecs": export.ECS}
	if formats[format] == nil {
		return errors.Join(errors.New("crm: --siem-format takes ocsf, cef or ecs"), sink.Close())
	}
	pump, err := export.NewPump(a.Log, formats[format](export.Source{Origin: c.logName()}), sink, c.path("siem-"+c.Instance+".cursor"), nil)
	if err != nil {
		return errors.Join(err, sink.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := pump.Run(ctx)
		if err != nil && ctx.Err() == nil {
			slog.Error("the audit log is not sent any more", "err", err) // of the cursor or the log: names no one
		}
	}()
	a.close = append(a.close, func() error {
		a.drain(pump)
		stop()
		<-done
		return sink.Close()
	})
	a.outside.pump = pump
	return nil
}

// drain gives what is logged a moment to leave before the program ends; the rest leaves after the next start.
func (a *App) drain(pump *export.Pump) {
	pump.Wake()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s := pump.Status(); s.Lag == 0 || s.Failures > 0 {
			return
		}
	}
}

var errSIEM = errors.New("crm: --siem takes file:PATH, tls://HOST:PORT or https://HOST/PATH")

// fileURL makes file:PATH an absolute path.
func fileURL(s string, abs func(string) (string, error)) (string, error) {
	path, ok := strings.CutPrefix(s, "file:")
	if !ok {
		return s, nil
	}
	p, err := abs(strings.TrimPrefix(path, "//"))
	if err != nil {
		return "", errSIEM
	}
	return "file://" + p, nil
}
