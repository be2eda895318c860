package web

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// logActions are those that the log can be narrowed to.
var logActions = []string{
	"customer.read", "customer.list", "customer.search", "customer.reveal", "customer.create", "customer.import", "customer.update",
	"customer.delete", "customer.restore", "session.sign_in", "session.sign_out", "account.password", "backup.created", "backup.cancelled",
	"backup.restored", "backup.sandbox", "keys.rotate", "keys.renew", "keys.retire", "guard.aborted", "guard.forged", "log.read",
	"customer.export", "customer.share", "export.create", "export.approve", "export.written", "export.broken", "export.trace", "emergency.create", "emergency.approve", "emergency.certify",
	"delegation.create", "delegation.delete", "sharing.create", "sharing.delete", "certification.certify", "campaign.create", "campaign.update",
	"customer.browse", "customer.claim", "customer.assign", "customer.transfer", "customer.release", "customer.recycle", "customer.enter", "customer.lock",
	"customer.aggregate", "customer.purge", "person.erase", "person.read", "erasure.create", "erasure.approve", "hold.create", "hold.update", "hold.approve", "pool.create", "pool.update", "lead.convert", "quote.approve", "quote.accept", "quote.revise", "contract.approve",
	"account.certified", "session.step_up", "session.end", "session.refused", "session.signal", "account.factor", "account.reset", "account.release", "policy.loaded", "policy.refused",
}

// log is the page of the log with its verdict.
func (s *Server) log(w http.ResponseWriter, r *request) error {
	f := page.LogFilter{Actor: r.FormValue("actor"), Action: r.FormValue("action"), From: r.FormValue("from"), To: r.FormValue("to")}
	filter := audit.Filter{Action: f.Action}
	if f.Actor != "" {
		filter.Actor = f.Actor
	}
	var err error
	if f.From != "" {
		if filter.From, err = time.ParseInLocation(time.DateOnly, f.From, time.Local); err != nil {
			return errBadRequest
		}
	}
	if f.To != "" {
		if filter.To, err = time.ParseInLocation(time.DateOnly, f.To, time.Local); err != nil {
			return errBadRequest
		}
		filter.To = filter.To.AddDate(0, 0, 1)
	}
	before := uint64(math.MaxUint64)
	if b := r.FormValue("before"); b != "" {
		if before, err = strconv.ParseUint(b, 10, 64); err != nil {
			return errBadRequest
		}
	}
	entries, err := s.app.Guard.Events(r.Context(), r.caller(), filter, before, 50)
	if err != nil {
		return err
	}
	v, err := s.app.Verdict(r.Context(), 10*time.Second, false)
	if err != nil {
		return err
	}
	p := &page.Log{
		Verdict: *verdictOf(v), Origin: v.Origin, Reason: v.Reason, Filter: f,
		Checkpoint: base64.StdEncoding.EncodeToString(v.Root[:]),
		Command:    "crm verify --data " + filepath.Base(s.app.Config.Data),
		Facts: []page.Fact{
			{Label: page.T("log.opened"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(v.Opened)}},
			{Label: page.T("log.erased"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(v.Erased)}},
			{Label: page.T("log.unchecked"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(v.Unchecked)}},
		},
	}
	for _, a := range logActions {
		p.Actions = append(p.Actions, page.Option{Value: a, Label: page.Plain(a)})
	}
	s.names.mu.RLock()
	for id, e := range s.names.all {
		p.Actors = append(p.Actors, page.Option{Value: id.String(), Label: page.Plain(e.Name.Expose())})
	}
	s.names.mu.RUnlock()
	slices.SortFunc(p.Actors, func(a, b page.Option) int { return strings.Compare(a.Label.Plain, b.Label.Plain) })
	for i := range entries {
		p.Events = append(p.Events, s.event(&entries[i]))
	}
	params := "actor=" + f.Actor + "&action=" + f.Action + "&from=" + f.From + "&to=" + f.To
	if len(entries) == 50 {
		p.NextHref = "/log?" + params + "&before=" + strconv.FormatUint(entries[49].Index, 10)
	}
	if r.FormValue("before") != "" {
		p.PrevHref = "/log?" + params
	}
	return s.show(w, r, http.StatusOK, page.T("log.title"), p)
}

// outcomes are the words of the catalogues.
var outcomes = map[audit.Outcome]string{
	audit.Allowed: "allowed", audit.Denied: "denied", audit.Failed: "failed", audit.Intended: "intended", audit.Aborted: "aborted",
}

// event shows one line of the log.
func (s *Server) event(e *audit.Entry) page.Event {
	out := page.Event{
		Index: e.Index, Time: e.Event.Time, Actor: s.actor(e.Event.Actor), Action: e.Event.Action,
		Outcome: outcomes[e.Event.Outcome], Controls: e.Event.Controls,
		Href: "/log/" + strconv.FormatUint(e.Index, 10),
	}
	for _, name := range e.Event.Fields {
		out.Fields = append(out.Fields, page.Plain(name))
	}
	if len(e.Event.Targets) == 1 {
		t := e.Event.Targets[0]
		out.Target = page.Plain(t.Type + " " + short(t.ID))
		if k := s.kind(t.Type); k != nil {
			out.TargetHref = "/" + k.path() + "/" + t.ID
		}
	} else if n := len(e.Event.Targets); n > 1 {
		out.Target = page.Plain(e.Event.Targets[0].Type + " × " + strconv.Itoa(n))
	}
	return out
}

func short(id string) string {
	if len(id) > 8 {
		return id[len(id)-8:]
	}
	return id
}

// logEvent is the page of one event with its hashes.
func (s *Server) logEvent(w http.ResponseWriter, r *request) error {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 63)
	if err != nil {
		return crm.ErrNotFound
	}
	entries, err := s.app.Guard.Events(r.Context(), r.caller(), audit.Filter{}, index+1, 1)
	if err != nil {
		return err
	}
	if len(entries) != 1 || entries[0].Index != index {
		return crm.ErrNotFound
	}
	e := &entries[0]
	p := s.event(e)
	for i, t := range e.Event.Targets {
		if i == 100 {
			break
		}
		c := page.Cell{Kind: page.KindMono, Text: t.ID}
		if k := s.kind(t.Type); k != nil {
			c.Href = "/" + k.path() + "/" + t.ID
		}
		p.Targets = append(p.Targets, page.Fact{Label: page.Plain(t.Type), Cell: c})
	}
	mono := func(key, text string) {
		if text != "" {
			p.Facts = append(p.Facts, page.Fact{Label: page.T("log." + key), Cell: page.Cell{Kind: page.KindMono, Text: text}})
		}
	}
	mono("session", e.Event.Session)
	mono("tenant", e.Event.Tenant)
	mono("purpose", e.Event.Purpose)
	mono("policy", e.Event.Policy)
	if e.Event.Count != 0 {
		mono("count", strconv.FormatInt(e.Event.Count, 10))
	}
	if e.Event.HasRef {
		mono("ref", strconv.FormatUint(e.Event.Ref, 10))
	}
	mono("reason", e.Event.Note)
	p.Hashes = []page.Fact{
		{Label: page.T("log.hash.leaf"), Cell: page.Cell{Kind: page.KindMono, Text: hex.EncodeToString(e.Leaf[:])}},
		{Label: page.T("log.hash.chain"), Cell: page.Cell{Kind: page.KindMono, Text: hex.EncodeToString(e.Chain[:])}},
	}
	for _, d := range e.Event.Details {
		// Who reads the log need not be one who may read what was said about a person.
		p.Details = append(p.Details, page.Commitment{
			Name: d.Name, Hash: hex.EncodeToString(d.Commitment[:]), State: page.Sealed, Person: crm.UUID(d.Person).String(),
		})
	}
	if index > 0 {
		p.PrevHref = "/log/" + strconv.FormatUint(index-1, 10)
	}
	if index+1 < s.app.Log.Size() {
		p.NextHref = "/log/" + strconv.FormatUint(index+1, 10)
	}
	return s.show(w, r, http.StatusOK, page.T("log.event", int64(index)), &p)
}

// jobs is the backup that runs, at most one.
type jobs struct {
	mu       sync.Mutex
	running  bool
	progress page.Progress
	started  time.Time
	failed   error
	cancel   context.CancelFunc // of the one that runs
	stopping bool               // somebody cancelled it

	watch func() // called as it goes on; nil outside tests
}

// backups is the page of backups.
func (s *Server) backups(w http.ResponseWriter, r *request) error {
	if err := s.app.Guard.Authorize(r.Context(), r.caller(), authz.Read, "backup"); err != nil {
		return err
	}
	c := &s.app.Config
	p := &page.Backups{Target: c.BackupTarget(), RecoveryHere: c.RecoveryKeyHere()}
	if s.may(r, authz.Manage, "backup") {
		p.Run = &page.Action{Label: page.T("act.backup"), Href: "/backups", Post: true}
	}
	snapshots, err := app.Snapshots(r.Context(), *c)
	if err != nil {
		return err
	}
	if err := s.app.NoteBackups(r.Context(), snapshots); err != nil {
		return err
	}
	verified, err := s.app.VerifiedBackups(r.Context())
	if err != nil {
		return err
	}
	if c.BackupPlan != "" {
		status, err := app.Status(r.Context(), *c, verified)
		if err != nil {
			return err
		}
		for _, f := range status.Findings {
			state := page.Cell{Kind: page.KindBadge, Key: "backup.objective.met", Tone: page.Accent}
			if !f.Met {
				state = page.Cell{Kind: page.KindBadge, Key: "backup.objective.missed", Tone: page.Danger}
			}
			p.Objectives = append(p.Objectives, page.Fact{Label: page.T("backup.objective." + f.Rule), Cell: state})
		}
	}
	if err := s.app.NoteDrills(r.Context()); err != nil {
		return err
	}
	if err := s.app.NoteSandboxes(r.Context()); err != nil {
		return err
	}
	slices.Reverse(snapshots)
	for _, b := range snapshots {
		p.Snapshots = append(p.Snapshots, page.Snapshot{ID: b.ID, Time: b.Created, Rows: b.Rows, Bytes: b.Stored, Verified: verified[b.ID]})
	}
	s.jobs.mu.Lock()
	if s.jobs.running {
		progress := s.jobs.progress
		progress.Label = page.T("backup.running")
		if s.jobs.stopping {
			progress.Label = page.T("backup.stopping")
		} else if p.Run != nil { // who may start one may cancel it
			progress.Cancel = &page.Action{Label: page.T("act.cancel"), Href: "/backups/cancel", Post: true}
		}
		p.Progress, p.Run = &progress, nil
	}
	failed := s.jobs.failed
	s.jobs.mu.Unlock()
	if failed != nil {
		p.Failed = page.T("backup.run_failed")
	}
	mono := func(s string) page.Cell { return page.Cell{Kind: page.KindMono, Text: s} }
	p.Keys = []page.Fact{
		{Label: page.T("backup.keys.kek"), Cell: mono(s.app.Keeper.KEKID())},
		{Label: page.T("backup.keys.person"), Cell: mono(c.KeyTarget())},
	}
	data := filepath.Base(c.Data)
	p.Keys = append(p.Keys, keyFacts(s.app.Keeper.Health(app.Tenant), time.Now())...)
	p.Commands = []page.Command{
		{Label: page.T("backup.command.backup"), Line: "crm backup --data " + data},
		{Label: page.T("backup.command.verify"), Line: "crm verify --backups --data " + data},
		{Label: page.T("backup.command.restore"), Line: "crm restore --data " + data},
	}
	return s.show(w, r, http.StatusOK, page.T("backup.title"), p)
}

// keyFacts says how the keys do: what would go on if the key service stayed away, and for how long.
func keyFacts(h encrypt.Health, now time.Time) []page.Fact {
	state := page.Cell{Kind: page.KindBadge, Key: "backup.keys.answers", Tone: page.Accent}
	switch {
	case errors.Is(h.Failure, encrypt.ErrAuth):
		state = page.Cell{Kind: page.KindBadge, Key: "backup.keys.refuses", Tone: page.Danger}
	case h.Failure != nil || !h.Loaded:
		state = page.Cell{Kind: page.KindBadge, Key: "backup.keys.away", Tone: page.Danger}
	}
	facts := []page.Fact{{Label: page.T("backup.keys.service"), Cell: state}}
	if !h.Loaded {
		return facts
	}
	at := func(key string, t time.Time) {
		facts = append(facts, page.Fact{Label: page.T("backup.keys." + key), Cell: page.Cell{Kind: page.KindTime, Time: t}})
	}
	until := func(key string, left time.Duration) {
		if left > 0 {
			at(key, now.Add(left))
			return
		}
		facts = append(facts, page.Fact{
			Label: page.T("backup.keys." + key), Cell: page.Cell{Kind: page.KindBadge, Key: "backup.keys.over", Tone: page.Danger},
		})
	}
	at("asked", now.Add(-h.Age))
	until("reads", h.ReadsFor)
	until("writes", h.WritesFor)
	at("epoch", h.Epoch)
	facts = append(facts, page.Fact{Label: page.T("backup.keys.generation"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(h.Generation)}})
	if h.Renewing {
		facts = append(facts, page.Fact{
			Label: page.T("backup.keys.older"), Cell: page.Cell{Kind: page.KindBadge, Key: "backup.keys.renewing", Tone: page.Warning},
		})
	}
	return facts
}

// runBackup begins a backup; the page shows how far it is.
func (s *Server) runBackup(w http.ResponseWriter, r *request) error {
	if err := s.app.Guard.Authorize(r.Context(), r.caller(), authz.Manage, "backup"); err != nil {
		return err
	}
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	if !s.jobs.running {
		s.jobs.running, s.jobs.failed, s.jobs.started, s.jobs.stopping = true, nil, time.Now(), false
		s.jobs.progress = page.Progress{}
		ctx := context.WithoutCancel(r.Context())
		until, cancel := context.WithCancel(ctx)
		s.jobs.cancel = cancel
		go func() {
			defer cancel()
			_, err := s.app.Backup(until, func(p backup.Progress) {
				if s.jobs.watch != nil {
					s.jobs.watch()
				}
				s.jobs.mu.Lock()
				defer s.jobs.mu.Unlock()
				s.jobs.progress.Done = p.Rows
				if took := time.Since(s.jobs.started).Seconds(); took > 0 {
					s.jobs.progress.Rate = int64(float64(p.Rows) / took)
				}
			})
			if errors.Is(err, context.Canceled) {
				err = nil // the log has who wanted it
			}
			if err != nil {
				slog.Error("backup failed", "err", err) // names objects and tables, never values
				_, _ = s.app.Log.Append(ctx, audit.Event{
					Action: "backup.failed", Activity: audit.Backup, Outcome: audit.Failed, Tenant: app.Tenant, Actor: "system",
				})
			}
			s.jobs.mu.Lock()
			defer s.jobs.mu.Unlock()
			s.jobs.running, s.jobs.failed = false, err
		}()
	}
	http.Redirect(w, r.Request, "/backups", http.StatusSeeOther)
	return nil
}

// cancelBackup ends the backup that runs, or its verification. What was sent stays, and the next one goes on from it; a snapshot that is whole
// already stays too.
func (s *Server) cancelBackup(w http.ResponseWriter, r *request) error {
	if err := s.app.Guard.Authorize(r.Context(), r.caller(), authz.Manage, "backup"); err != nil {
		return err
	}
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	if s.jobs.running && !s.jobs.stopping {
		if _, err := s.app.Guard.Record(r.Context(), audit.Event{
			Action: "backup.cancelled", Activity: audit.Backup, Outcome: audit.Allowed, Tenant: app.Tenant,
			Actor: r.subject.ID, Session: r.subject.Session, Count: s.jobs.progress.Done,
		}); err != nil {
			return err
		}
		s.jobs.stopping = true
		s.jobs.cancel()
		s.setFlash(w, "backup_cancelled")
	}
	http.Redirect(w, r.Request, "/backups", http.StatusSeeOther)
	return nil
}

// Wait waits for a backup that runs, so that a stop does not cut it, and ends searches for duplicates.
func (s *Server) Wait(ctx context.Context) error {
	s.dups.stop()
	for {
		s.jobs.mu.Lock()
		running := s.jobs.running
		s.jobs.mu.Unlock()
		if !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("crm: a backup was still running")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
