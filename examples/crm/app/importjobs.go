package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
)

// ImportWork is how far this process is with one import or its undo.
type ImportWork struct {
	Counts  transfer.Counts
	Total   int64 // rows of the file; 0: unknown
	Started time.Time
	Running bool  // else it ended, or waits for others
	Waiting bool  // until others are done
	Err     error // why it ended before its end
}

// atOnceImports is how many imports are worked on at once; others wait.
const atOnceImports = 2

// mostImports is how many imports of one employee wait or are worked on.
const mostImports = 5

// ErrManyImports says that somebody has enough imports under way.
var ErrManyImports = errors.New("crm: too many imports are under way")

// errStopped says that whoever imports may not do so any more.
var errStopped = errors.New("crm: the rights of who imports have changed")

// importJobs are the imports of this process, and the files that wait for one.
type importJobs struct {
	mu      sync.Mutex
	all     map[crm.UUID]*importJob
	uploads map[string]*Upload
	slots   chan struct{}
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
	begun   bool // what the last process left was swept
}

type importJob struct {
	owner crm.UUID
	ImportWork
}

func newImportJobs() *importJobs {
	j := &importJobs{all: map[crm.UUID]*importJob{}, uploads: map[string]*Upload{}, slots: make(chan struct{}, atOnceImports)}
	j.ctx, j.stop = context.WithCancel(context.Background())
	return j
}

// end stops all work, each import at the end of a batch, and waits for it. What waits for an import is deleted.
func (j *importJobs) end() error {
	j.stop()
	j.work.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, u := range j.uploads {
		j.drop(u)
	}
	return nil
}

// besideImport is what is kept with an import, sealed, so that it can be gone on with.
type besideImport struct {
	File       string `json:"file"` // its name among the uploads, before it got that of the import
	Key        []byte `json:"key"`
	Encoding   string `json:"encoding,omitempty"`
	Comma      rune   `json:"comma,omitempty"`
	Sheet      string `json:"sheet,omitempty"`
	Rows       int64  `json:"rows,omitempty"`
	Duplicates string `json:"duplicates,omitempty"`
}

// ImportStart says how an upload is imported.
type ImportStart struct {
	Mapping    transfer.Mapping
	Mode       transfer.Mode
	Duplicates string // refuse, warn or off
	File       FileOptions
	Header     []string
	Rows       int64 // of the file, for the progress; 0: unknown
}

// BeginImport stores an import of an upload as the caller's and works on it in the background, as the employee that the caller is. Errors: those of transfer's Begin, ErrManyImports.
func (a *App) BeginImport(ctx context.Context, c guard.Caller, u *Upload, s ImportStart) (crm.UUID, error) {
	if a.imports.count(u.owner) >= mostImports {
		return crm.UUID{}, ErrManyImports
	}
	beside, err := json.Marshal(besideImport{File: u.ID, Key: u.key, Encoding: s.File.Encoding, Comma: s.File.Comma, Sheet: s.File.Sheet, Rows: s.Rows, Duplicates: s.Duplicates})
	if err != nil {
		return crm.UUID{}, fmt.Errorf("crm: %w", err)
	}
	m, err := a.Importer(ctx, c, u.Type, ImportOptions{Duplicates: s.Duplicates, Beside: string(beside)})
	if err != nil {
		return crm.UUID{}, err
	}
	job, err := m.Begin(ctx, c, u.Name, s.Header, s.Mapping, s.Mode)
	if err != nil {
		return crm.UUID{}, err
	}
	id := job.ID.UUID()
	a.imports.mu.Lock()
	delete(a.imports.uploads, u.ID)
	a.imports.mu.Unlock()
	if err := os.Rename(u.path, a.importFile(id)); err != nil {
		return id, fmt.Errorf("crm: uploads: %w", err)
	}
	return id, a.work(job, u.owner)
}

func (a *App) importFile(id crm.UUID) string { return filepath.Join(a.uploads(), id.String()) }

// HasImportFile tells whether the file of an import is here, so that it can be gone on with.
func (a *App) HasImportFile(id crm.UUID) bool {
	_, err := os.Stat(a.importFile(id))
	return err == nil
}

// ImportWork tells how far this process is with an import; ok is false when it has not worked on it.
func (a *App) ImportWork(id crm.UUID) (w ImportWork, ok bool) {
	a.imports.mu.Lock()
	defer a.imports.mu.Unlock()
	j := a.imports.all[id]
	if j == nil {
		return w, false
	}
	return j.ImportWork, true
}

// ContinueImport goes on with an import that was cut off, or with its undo, in the background. Errors: those of guard; crm.ErrNotFound when the file is not here; a
// *crm.TransitionError when it is over.
func (a *App) ContinueImport(ctx context.Context, c guard.Caller, id crm.UUID) error {
	return a.importAgain(ctx, c, id, false)
}

// UndoImport takes an import back in the background. Errors: as those of ContinueImport.
func (a *App) UndoImport(ctx context.Context, c guard.Caller, id crm.UUID) error {
	return a.importAgain(ctx, c, id, true)
}

func (a *App) importAgain(ctx context.Context, c guard.Caller, id crm.UUID, undo bool) error {
	if _, err := a.Imports.Authorize(ctx, c, authz.Update, id); err != nil {
		return err
	}
	v, err := a.Imports.Get(ctx, c, id)
	if err != nil {
		return err
	}
	job := v.Value
	switch {
	case job.State == transfer.Undone, job.State == transfer.Done && !undo:
		return &crm.TransitionError{Type: crm.TypeImport, From: string(job.State), To: string(transfer.Running)}
	case job.State == transfer.Running && !undo && !a.HasImportFile(id):
		return crm.ErrNotFound
	}
	owner, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return crm.ErrNotFound
	}
	if undo {
		job.State = transfer.Undoing
	}
	return a.work(job, owner)
}

// RehearseImport imports an upload in the background and takes every batch back, as the caller. progress hears of each batch, done of the end. Errors: ErrManyImports.
func (a *App) RehearseImport(c guard.Caller, u *Upload, s ImportStart, progress func(transfer.Counts), done func(transfer.Report, error)) error {
	j := a.imports
	if j.ctx.Err() != nil {
		return crm.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(j.ctx, rehearseFor)
	j.work.Go(func() {
		defer cancel()
		select {
		case j.slots <- struct{}{}:
		case <-ctx.Done():
			done(transfer.Report{}, ctx.Err())
			return
		}
		defer func() { <-j.slots }()
		done(a.rehearse(ctx, c, u, s, progress))
	})
	return nil
}

// rehearseFor is how long a rehearsal may take.
const rehearseFor = time.Hour

func (a *App) rehearse(ctx context.Context, c guard.Caller, u *Upload, s ImportStart, progress func(transfer.Counts)) (rep transfer.Report, err error) {
	src, _, end, err := u.Open(s.File)
	if err != nil {
		return rep, err
	}
	defer end()
	m, err := a.Importer(ctx, c, u.Type, ImportOptions{Duplicates: s.Duplicates, Progress: progress})
	if err != nil {
		return rep, err
	}
	return m.Rehearse(ctx, c, src, s.Mapping, s.Mode)
}

// count returns how many imports of somebody are under way.
func (j *importJobs) count(owner crm.UUID) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, o := range j.all {
		if o.owner == owner && (o.Running || o.Waiting) {
			n++
		}
	}
	return n
}

// work does in the background what the state of an import says: running is imported, undoing is undone. An import is worked on once at a time.
func (a *App) work(job *transfer.Import, owner crm.UUID) error {
	j := a.imports
	id, typ, undo := job.ID.UUID(), job.RecordType, job.State == transfer.Undoing
	if j.count(owner) >= mostImports {
		return ErrManyImports
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.all[id]; old != nil && (old.Running || old.Waiting) {
		return crm.ErrConflict
	}
	if j.ctx.Err() != nil {
		return crm.ErrUnavailable
	}
	w := &importJob{owner: owner, ImportWork: ImportWork{Counts: job.Counts(), Started: time.Now(), Waiting: true}}
	j.all[id] = w
	j.work.Go(func() {
		ctx, cancel := context.WithCancel(j.ctx)
		defer cancel()
		err := func() error {
			select {
			case j.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-j.slots }()
			j.mu.Lock()
			w.Waiting, w.Running, w.Started = false, true, time.Now()
			j.mu.Unlock()
			return a.doImport(ctx, cancel, w, id, typ, undo)
		}()
		j.mu.Lock()
		w.Running, w.Waiting, w.Err = false, false, err
		j.mu.Unlock()
		if err != nil && !errors.Is(err, context.Canceled) {
			slog.Warn("an import was cut off", "import", id.String(), "err", err) // names types, ids and rules, never values
		}
		if err == nil || undo {
			_ = os.Remove(a.importFile(id)) // what stays is swept
		}
	})
	return nil
}

// rightsEvery is how often the rights of who imports are looked at while it goes on.
const rightsEvery = 3 * time.Second

func (a *App) doImport(ctx context.Context, cancel context.CancelFunc, w *importJob, id crm.UUID, typ string, undo bool) (err error) {
	e, err := a.Employee(ctx, w.owner)
	if err != nil {
		return err
	}
	if e == nil {
		return errStopped
	}
	c, err := a.As(ctx, e, "import")
	if err != nil {
		return err
	}
	var stopped error
	last := time.Now()
	progress := func(n transfer.Counts) {
		a.imports.mu.Lock()
		w.Counts = n
		a.imports.mu.Unlock()
		if time.Since(last) < rightsEvery {
			return
		}
		last = time.Now()
		if now, err := a.Subject(ctx, w.owner); err != nil || !slices.Equal(now.Roles, c.Subject.Roles) || now.Team != c.Subject.Team {
			stopped = errStopped
			cancel()
		}
	}
	defer func() {
		if stopped != nil {
			err = stopped
		}
	}()
	if undo {
		m, err := a.Importer(ctx, c, typ, ImportOptions{Progress: progress})
		if err == nil {
			_, err = m.Undo(ctx, c, crm.ID[transfer.Import](id))
		}
		return err
	}
	text, err := transfer.Beside(ctx, a.importDoors(), c, crm.ID[transfer.Import](id))
	if err != nil {
		return err
	}
	var beside besideImport
	if err := json.Unmarshal([]byte(text), &beside); err != nil {
		return fmt.Errorf("crm: %w", crm.ErrDamaged)
	}
	a.imports.mu.Lock()
	w.Total = beside.Rows
	a.imports.mu.Unlock()
	u := &Upload{ID: beside.File, key: beside.Key, path: a.importFile(id)}
	src, _, done, err := u.Open(FileOptions{Encoding: beside.Encoding, Comma: beside.Comma, Sheet: beside.Sheet})
	if err != nil {
		return err
	}
	defer done()
	m, err := a.Importer(ctx, c, typ, ImportOptions{Progress: progress, Duplicates: beside.Duplicates})
	if err != nil {
		return err
	}
	_, err = m.Resume(ctx, c, crm.ID[transfer.Import](id), src)
	return err
}

func (a *App) importDoors() transfer.Doors {
	return transfer.Doors{Guard: a.Guard, Imports: a.Imports, Kept: a.Kept}
}

// RunImports goes on with the imports and undos that the last process left, each as the employee whose it is and with the rights of now, sweeps files that no import needs, and
// when ctx ends stops all work at the ends of batches.
func (a *App) RunImports(ctx context.Context) {
	if err := a.resumeImports(ctx); err != nil {
		slog.Error("a background job failed", "job", "imports", "err", err)
	}
	tick := time.NewTicker(KeepUpload / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = a.imports.end() // it never fails
			return
		case <-tick.C:
			if err := a.sweepUploads(ctx); err != nil {
				slog.Error("a background job failed", "job", "uploads", "err", err)
			}
		}
	}
}

// unfinished lists the imports that are under way.
func (a *App) unfinished(ctx context.Context) ([]transfer.Import, error) {
	var out []transfer.Import
	q := guard.Query{Limit: 200, Hide: []string{"name", "mapping"}, Clauses: []crm.Clause{{
		Column: "state", Op: crm.In, Values: []crm.Value{crm.StringValue(string(transfer.Running)), crm.StringValue(string(transfer.Undoing))},
	}}}
	for {
		p, err := a.Imports.List(ctx, System("imports"), q)
		if err != nil {
			return nil, err
		}
		for i := range p.Items {
			out = append(out, *p.Items[i].Value)
		}
		if q.After = p.Next; p.Next == "" {
			return out, nil
		}
	}
}

func (a *App) resumeImports(ctx context.Context) error {
	all, err := a.unfinished(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		job := &all[i]
		id := job.ID.UUID()
		if job.State == transfer.Running && !a.HasImportFile(id) && !a.adopt(ctx, job) {
			continue // the command line began it, or another host
		}
		if err := a.work(job, job.Owner.UUID()); err != nil && !errors.Is(err, ErrManyImports) {
			slog.Warn("an import was not gone on with", "import", id.String(), "err", err)
		}
	}
	return a.sweepUploads(ctx)
}

// adopt gives an import its file where the process ended between the two.
func (a *App) adopt(ctx context.Context, job *transfer.Import) bool {
	e, err := a.Employee(ctx, job.Owner.UUID())
	if err != nil || e == nil {
		return false
	}
	c, err := a.As(ctx, e, "import")
	if err != nil {
		return false
	}
	text, err := transfer.Beside(ctx, a.importDoors(), c, job.ID)
	var beside besideImport
	if err != nil || json.Unmarshal([]byte(text), &beside) != nil {
		return false
	}
	return os.Rename(filepath.Join(a.uploads(), filepath.Base(beside.File)), a.importFile(job.ID.UUID())) == nil
}

// sweepUploads deletes the files that no import and nobody who is about to import needs.
func (a *App) sweepUploads(ctx context.Context) error {
	found, err := os.ReadDir(a.uploads())
	if errors.Is(err, os.ErrNotExist) || err == nil && len(found) == 0 {
		return nil // nobody ever uploaded anything
	}
	if err != nil {
		return fmt.Errorf("app: uploads: %w", err)
	}
	all, err := a.unfinished(ctx)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for i := range all {
		if all[i].State == transfer.Running && time.Since(all[i].CreatedAt) < transfer.KeepRejected { // then its key goes
			needed[all[i].ID.String()] = true
		}
	}
	a.imports.mu.Lock()
	defer a.imports.mu.Unlock()
	for _, u := range a.imports.uploads {
		if time.Since(u.at) > KeepUpload {
			a.imports.drop(u)
			continue
		}
		needed[u.ID] = true
	}
	for _, f := range found {
		if info, err := f.Info(); err == nil && !needed[f.Name()] && (time.Since(info.ModTime()) > time.Minute || !a.imports.begun) {
			if err := os.Remove(filepath.Join(a.uploads(), f.Name())); err != nil {
				return fmt.Errorf("crm: uploads: %w", err)
			}
		}
	}
	a.imports.begun = true
	return nil
}
