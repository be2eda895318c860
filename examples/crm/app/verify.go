package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
)

// verdictCache keeps the last verdict for the header of every page.
type verdictCache struct {
	mu      sync.Mutex
	verdict audit.Verdict
	at      time.Time
	running bool
}

// Verdict returns what a verification of the log said at most maxAge ago. When there is none so young
// it verifies now, or, with background, starts to and returns the one before.
func (a *App) Verdict(ctx context.Context, maxAge time.Duration, background bool) (audit.Verdict, error) {
	c := &a.verdict
	c.mu.Lock()
	if time.Since(c.at) <= maxAge {
		defer c.mu.Unlock()
		return c.verdict, nil
	}
	if background && !c.at.IsZero() {
		defer c.mu.Unlock()
		if !c.running {
			c.running = true
			go func() {
				_, _ = a.verifyNow(context.WithoutCancel(ctx)) // the next page asks again
			}()
		}
		return c.verdict, nil
	}
	c.mu.Unlock()
	return a.verifyNow(ctx)
}

func (a *App) verifyNow(ctx context.Context) (audit.Verdict, error) {
	v, err := verifyLog(ctx, &a.Config, a.db, nil, nil)
	a.verdict.mu.Lock()
	defer a.verdict.mu.Unlock()
	a.verdict.running = false
	if err == nil {
		a.verdict.verdict, a.verdict.at = v, time.Now()
	}
	return v, err
}

// verifyLog verifies the log's folder against the signing key and the head kept in the database.
func verifyLog(ctx context.Context, c *Config, db databases, s audit.Sealer, each func(audit.Entry)) (audit.Verdict, error) {
	if _, err := os.Stat(c.path("signing.key")); err != nil {
		return audit.Verdict{State: audit.Missing, At: -1, Reason: "there is no signing.key"}, nil
	}
	signer, err := audit.OpenSigningKey(c.path("signing.key"), c.logName())
	if err != nil {
		return audit.Verdict{}, err
	}
	p, err := openPins(ctx, db, c.Instance)
	if err != nil {
		return audit.Verdict{}, err
	}
	var heads [][]byte
	switch head, err := p.newest(ctx, signer.VerifierKey()); {
	case errors.Is(err, audit.ErrTampered):
		return audit.Verdict{State: audit.KeyUnknown, At: -1, Reason: "the head in the database is not signed by signing.key"}, nil
	case err != nil:
		return audit.Verdict{}, err
	case head != nil:
		heads = append(heads, head)
	}
	out, err := openOutside(c)
	if err != nil {
		return audit.Verdict{}, err
	}
	copies, err := out.heads(ctx, c)
	if err != nil {
		return audit.Verdict{}, err
	}
	heads = append(heads, copies...)
	store, err := filestore.Open(c.logFolder(), nil)
	if err != nil {
		return audit.Verdict{}, err
	}
	return audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{
		Pins: heads, Sealer: s, OnEvent: each, Witnesses: out.witnesses(heads),
	})
}

// Verification is what Verify found.
type Verification struct {
	Log  audit.Verdict     `json:"log"`
	Rows guard.CheckReport `json:"rows"`
}

// OK tells whether log and rows are as they should be.
func (v Verification) OK() bool { return v.Log.OK() && v.Rows.OK() }

// schemas lists how the CRM's types are stored.
func schemas() ([]crm.Schema, error) {
	var out []crm.Schema
	var errs []error
	add := func(s crm.Schema, err error) {
		out = append(out, s)
		errs = append(errs, err)
	}
	add(guard.Schema[*crm.Customer](nil))
	add(guard.Schema[*crm.Contact](nil))
	add(guard.Schema[*crm.Lead](nil))
	add(guard.Schema[*crm.FollowUp](nil))
	add(guard.Schema[*crm.Quote](nil))
	add(guard.Schema[*crm.Contract](nil))
	add(guard.Schema[*crm.Ticket](nil))
	add(guard.Schema[*crm.Employee](nil))
	add(guard.Schema[*Account](nil))
	add(guard.Schema[*crm.Emergency](nil))
	add(guard.Schema[*crm.Delegation](nil))
	add(guard.Schema[*crm.Sharing](nil))
	add(guard.Schema[*crm.Certification](nil))
	add(guard.Schema[*crm.Campaign](nil))
	add(guard.Schema[*crm.Export](nil))
	add(guard.Schema[*transfer.Import](nil))
	add(guard.Schema[*transfer.Kept](nil))
	add(guard.Schema[*crm.Merge](nil))
	add(guard.Schema[*privacy.Suppression](nil))
	add(guard.Schema[*privacy.Erasure](nil))
	add(guard.Schema[*privacy.Hold](nil))
	add(guard.Schema[*pool.Pool](nil))
	add(guard.Schema[*pool.Ownership](nil))
	add(guard.Schema[*crm.Series](nil))
	add(guard.Schema[*sales.Pipeline](nil))
	add(guard.Schema[*sales.Opportunity](nil))
	add(guard.Schema[*sales.Product](nil))
	add(guard.Schema[*finance.Period](nil))
	add(guard.Schema[*finance.Receipt](nil))
	add(guard.Schema[*finance.Instalment](nil))
	add(guard.Schema[*stock.Warehouse](nil))
	add(guard.Schema[*stock.Movement](nil))
	add(guard.Schema[*outbox.Endpoint](nil))
	add(guard.Schema[*outbox.Delivery](nil))
	add(guard.Schema[*outbox.Cursor](nil))
	return out, errors.Join(errs...)
}

// Verify checks the log, opening what is sealed in it, and every row against the log. It reads only and
// may run beside a serving process.
func Verify(ctx context.Context, c Config) (Verification, error) {
	var out Verification
	if err := c.complete(); err != nil {
		return out, err
	}
	if _, err := os.Stat(c.Data); err != nil {
		return out, errors.New("crm: there is no data folder")
	}
	db, err := openExisting(ctx, &c)
	if err != nil {
		return out, err
	}
	defer db.close()
	kek, closeKEK, err := openKEK(ctx, &c)
	if err != nil {
		return out, err
	}
	defer func() { _ = closeKEK() }()
	keys, err := keystore.Open(ctx, db.w, string(db.dialect), &keystore.Options{Reads: db.r})
	if err != nil {
		return out, err
	}
	keeper, err := encrypt.NewKeeper(kek, keys, nil)
	if err != nil {
		return out, err
	}
	if err := probe(ctx, keeper); err != nil {
		return out, err
	}
	store, err := openStore(ctx, db)
	if err != nil {
		return out, err
	}
	ss, err := schemas()
	if err != nil {
		return out, err
	}
	if err := store.Declare(ctx, ss...); err != nil {
		return out, err
	}
	check := guard.NewCheck(Tenant, ss...)
	if check.Shared, err = shared(ctx, db, c.Instance); err != nil {
		return out, err
	}
	newer := c.openings()
	defer func() { _ = newer.close() }() // it was read only
	if out.Log, err = verifyLog(ctx, &c, db, sealer{keeper, newer}, check.Event); err != nil {
		return out, err
	}
	if !out.Log.OK() && out.Log.State != audit.Unanchored {
		return out, nil // what the log says of the rows cannot be believed
	}
	out.Rows, err = check.Rows(ctx, store, keeper)
	return out, err
}

// Summary writes a verification for people.
func (v Verification) Summary() string {
	var b strings.Builder
	fmt.Fprintln(&b, "log: ", v.Log)
	if v.Rows.Events > 0 || v.Rows.Rows > 0 {
		fmt.Fprintf(&b, "rows:  %d checked against %d logged writes, %d findings\n", v.Rows.Rows, v.Rows.Events, len(v.Rows.Findings))
	}
	if v.Rows.Open > 0 {
		fmt.Fprintf(&b, "       %d of the last announced writes are not made: the process was at work or ended in a crash; its next start settles them\n", v.Rows.Open)
	}
	for i, f := range v.Rows.Findings {
		if i == 20 {
			fmt.Fprintf(&b, "  and %d more\n", len(v.Rows.Findings)-i)
			break
		}
		fmt.Fprintf(&b, "  %s %s: %s\n", f.Type, f.ID, f.Problem)
	}
	return strings.TrimRight(b.String(), "\n")
}
