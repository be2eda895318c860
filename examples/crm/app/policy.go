package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
)

// Files of the policy in the data folder. Whoever changes the policy puts a signed bundle there; the other one is a copy
// of what was loaded last, so that a bad file never leaves a restart without the policy that was in force.
const (
	policyFile = "policy.tar.gz"
	policyKept = "policy.loaded.tar.gz"
	policyPub  = "policy.pub"
)

// Events of the policy.
const (
	actionPolicyLoaded  = "policy.loaded"
	actionPolicyRefused = "policy.refused"
)

// policyWatch loads bundles into the running program.
type policyWatch struct {
	mu    sync.Mutex
	key   []byte // nil: bundles are not looked for
	stamp string // size and time of the file when it was last looked at
	done  string // and when it was last read
	tried [sha256.Size]byte
}

// openPolicy loads the bundle of the data folder, or the shipped policy when no key is configured or there is none. A
// bundle that was in force is not given up for a worse one: when neither it nor its copy is whole, the start is refused.
func (a *App) openPolicy(ctx context.Context) (err error) {
	c := &a.Config
	if a.Policy, err = rego.New(ctx, &rego.Options{OnDifference: func(authz.Request) {
		slog.Error("policy: a plan answered otherwise than OPA; plans are given up")
	}}); err != nil {
		return err
	}
	if a.policy.key, err = c.policyKey(); err != nil {
		return err
	}
	if a.policy.key != nil {
		raw, err := os.ReadFile(c.path(policyFile))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return errors.New("crm: policy.tar.gz cannot be read")
		default:
			a.policy.tried = sha256.Sum256(raw)
			refused := a.load(ctx, raw)
			if refused == nil {
				break
			}
			if err := a.policyEvent(ctx, actionPolicyRefused, audit.Failed, a.Policy.Revision(), refused.Error()); err != nil {
				return err
			}
			kept, err := os.ReadFile(c.path(policyKept))
			if err == nil {
				err = a.load(ctx, kept)
			}
			if err != nil {
				return fmt.Errorf("crm: policy.tar.gz is refused, and there is no copy of an earlier one: %w", refused)
			}
		}
	}
	return a.noteRevision(ctx)
}

// policyKey returns the public key of bundles and keeps it beside them.
func (c *Config) policyKey() ([]byte, error) {
	file := c.PolicyKey
	if file == "" {
		file = c.path(policyPub)
	}
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && c.PolicyKey == "" {
		return nil, nil
	}
	if err != nil {
		return nil, errors.New("crm: --policy-key cannot be read")
	}
	if !bytes.Contains(key, []byte("PUBLIC KEY")) {
		return nil, errors.New("crm: --policy-key is not the PEM of a public key")
	}
	if c.PolicyKey != "" {
		if err := os.WriteFile(c.path(policyPub), key, 0o600); err != nil {
			return nil, fmt.Errorf("crm: data folder: %w", err)
		}
	}
	return key, nil
}

// load opens, checks and loads a bundle, and keeps a copy of it.
func (a *App) load(ctx context.Context, raw []byte) error {
	files, err := rego.OpenBundle(bytes.NewReader(raw), a.policy.key)
	if err != nil {
		return err
	}
	// What cannot be kept does not come into force: a restart would not have it.
	tmp := a.Config.path(policyKept) + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("crm: data folder: %w", err)
	}
	if err := a.Policy.Load(ctx, files); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, a.Config.path(policyKept))
}

// noteRevision logs that another policy is in force than the log knows.
func (a *App) noteRevision(ctx context.Context) error {
	last, err := a.Log.Query(ctx, audit.Filter{Action: actionPolicyLoaded}, math.MaxUint64, 1)
	if err != nil {
		return err
	}
	old := "none"
	if len(last) == 1 {
		old = last[0].Event.Policy
	}
	if now := a.Policy.Revision(); now != old {
		return a.policyEvent(ctx, actionPolicyLoaded, audit.Allowed, now, "from "+old+" to "+now)
	}
	return nil
}

func (a *App) policyEvent(ctx context.Context, action string, outcome audit.Outcome, revision, note string) error {
	if len(note) > 400 {
		note = note[:400]
	}
	_, err := a.Log.Append(ctx, audit.Event{
		Action: action, Activity: audit.Configure, Outcome: outcome, Tenant: Tenant, Actor: "system", Policy: revision,
		Note: strings.ToValidUTF8(note, ""),
	})
	return err
}

// WatchPolicy looks for a new bundle in the data folder every second, and at once when told to, until ctx ends.
func (a *App) WatchPolicy(ctx context.Context, now <-chan os.Signal) {
	if a.policy.key == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		quiet := true
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-now:
			quiet = false
		}
		if err := a.ReloadPolicy(ctx, quiet); err != nil && ctx.Err() == nil {
			slog.Error("policy", "err", err)
		}
	}
}

// ReloadPolicy loads the bundle of the data folder where it is another one than was tried last. With quiet, a file that
// has changed since the last look is left for the next: it may still be being written. One that is refused
// changes nothing, and the log says why.
func (a *App) ReloadPolicy(ctx context.Context, quiet bool) error {
	w := &a.policy
	w.mu.Lock()
	defer w.mu.Unlock()
	info, err := os.Stat(a.Config.path(policyFile))
	if errors.Is(err, fs.ErrNotExist) || w.key == nil {
		return nil // the policy that is loaded goes on
	}
	if err != nil {
		return errors.New("crm: policy.tar.gz cannot be read")
	}
	stamp := fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	if moved := stamp != w.stamp; moved {
		w.stamp = stamp
		if quiet {
			return nil
		}
	}
	if stamp == w.done {
		return nil
	}
	raw, err := os.ReadFile(a.Config.path(policyFile))
	if err != nil {
		return errors.New("crm: policy.tar.gz cannot be read")
	}
	w.done = stamp
	sum := sha256.Sum256(raw)
	if sum == w.tried {
		return nil
	}
	w.tried = sum
	if err := a.load(ctx, raw); err != nil {
		return errors.Join(err, a.policyEvent(ctx, actionPolicyRefused, audit.Failed, a.Policy.Revision(), err.Error()))
	}
	return a.noteRevision(ctx)
}

// LoadedPolicy returns the bundle that the program of this data folder loaded last, nil when it runs on the shipped policy.
func (c *Config) LoadedPolicy() (fs.FS, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.path(policyFile)); err != nil {
		return nil, nil
	}
	if _, err := os.Stat(c.path(policyKept)); err != nil {
		return nil, nil
	}
	return c.OpenPolicy(c.path(policyKept))
}

// OpenPolicy reads a signed bundle of this installation.
func (c *Config) OpenPolicy(name string) (fs.FS, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	file := c.PolicyKey
	if file == "" {
		file = c.path(policyPub)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.New("crm: there is no key for policy bundles; --policy-key names one")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.New("crm: the bundle cannot be read")
	}
	defer f.Close()
	return rego.OpenBundle(f, key)
}
