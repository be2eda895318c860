package backupbench

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/blobstore"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// stepVariable makes a process run one step and end: each has a process of its own, so that its memory and
// processor time are its own too.
const stepVariable = "CRMGUARD_BACKUPBENCH"

// params of a step.
type params struct {
	Step        string
	Rows        int
	Attachments int64
	Round       int
	DB          string // path of a SQLite database
	DSN         string // of a PostgreSQL one, which is used instead
	File        string
	Repo        string // folder of our repository; the keys lie beside it
	Chain, Scan bool
	Profile     string
	Keys        []string
}

// figures are what a step measured: wall and cpu in seconds, peak in bytes.
type figures map[string]float64

var steps = map[string]func(context.Context, params) (figures, error){
	"generate": generate, "change": change, "flat": flat, "vacuum": vacuum, "bare sqlite": bareSQLite, "bare postgres": barePostgres,
	"backup": backUp, "ndjson": ndjson, "sqlite": intoSQLite, "postgres": intoPostgres, "records": records,
}

// Step runs a step and ends the process when the process was started for one. The program's main, and TestMain, call it first.
func Step() {
	text := os.Getenv(stepVariable)
	if text == "" {
		return
	}
	start := time.Now()
	var p params
	err := json.Unmarshal([]byte(text), &p)
	var out figures
	if err == nil {
		if p.Profile != "" {
			f, err := os.Create(filepath.Join(p.Profile, profileName(p)+".pprof"))
			if err == nil {
				_ = pprof.StartCPUProfile(f)
				defer f.Close()
			}
		}
		out, err = steps[p.Step](context.Background(), p)
		pprof.StopCPUProfile()
	}
	if err == nil {
		out["wall"], out["cpu"] = time.Since(start).Seconds(), measure.ProcessorTime().Seconds()
		out["peak"], err = peak()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func profileName(p params) string {
	name := p.Step
	switch {
	case p.Scan:
		name += "-compared"
	case p.Chain:
		name += "-changes"
	case p.Step == "backup" && p.DSN != "":
		name += "-postgres"
	}
	return name
}

// peak is the largest resident memory that this process had; getrusage would count that of its parent too.
func peak() (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0, errors.New("the system does not say how much memory was used")
	}
	n, err := strconv.ParseFloat(f[0], 64)
	return n * 1024, err
}

// run starts a step and waits for its figures.
func run(ctx context.Context, p params) (figures, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), stepVariable+"="+string(b))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", p.Step, err, errs.String())
	}
	var f figures
	return f, json.Unmarshal(out, &f)
}

// uploading is the time that went by in Put of any bucket, in nanoseconds.
var uploading atomic.Int64

// timed is a bucket that counts it.
type timed struct{ backup.Bucket }

func (t timed) Put(ctx context.Context, name string, data []byte) error {
	start := time.Now()
	defer func() { uploading.Add(int64(time.Since(start))) }()
	return t.Bucket.Put(ctx, name, data)
}

// open opens our repository. Its keys are made with it.
func open(ctx context.Context, p params) (*backup.Repository, *backupkey.Private, error) {
	home := filepath.Dir(p.Repo)
	private, err := backupkey.Read(filepath.Join(home, "recovery"))
	if errors.Is(err, os.ErrNotExist) {
		if private, err = backupkey.Generate(); err == nil {
			err = private.WriteFile(filepath.Join(home, "recovery"))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	signer, err := backupkey.ReadSigner(filepath.Join(home, "signer"))
	if errors.Is(err, os.ErrNotExist) {
		signer, err = backupkey.CreateSigner(filepath.Join(home, "signer"))
	}
	if err != nil {
		return nil, nil, err
	}
	bucket, err := blobstore.Open(ctx, "file://"+filepath.ToSlash(p.Repo))
	if err != nil {
		return nil, nil, err
	}
	r, err := backup.Open(ctx, timed{bucket}, signer.Public().(ed25519.PublicKey), &backup.Options{Signer: signer, Recipient: private.Public()})
	return r, private, err
}

func database(p params, opts *sqlsource.Options) (*sqlsource.Database, func() error, error) {
	if p.DSN != "" {
		db, err := sql.Open("pgx", p.DSN)
		if err != nil {
			return nil, nil, err
		}
		return sqlsource.Postgres(db, opts), db.Close, nil
	}
	db, err := sql.Open("sqlite", "file:"+p.DB)
	if err != nil {
		return nil, nil, err
	}
	return sqlsource.SQLite(db, opts), db.Close, nil
}

// backUp writes one snapshot.
func backUp(ctx context.Context, p params) (figures, error) {
	r, _, err := open(ctx, p)
	if err != nil {
		return nil, err
	}
	d, end, err := database(p, &sqlsource.Options{Changes: "seq"})
	if err != nil {
		return nil, err
	}
	defer end()
	var o backup.BackupOptions
	if p.Chain {
		o.Chain = &policy.Chain{Scan: p.Scan}
	}
	s, err := r.Backup(ctx, d, &o)
	if err == nil && p.Chain != (s.Parent > 0) {
		err = errors.New("a full snapshot where another was wanted")
	}
	return figures{"rows": float64(s.Rows), "bytes": float64(s.Bytes), "stored": float64(s.Stored), "upload": time.Duration(uploading.Load()).Seconds()}, err
}

func restore(ctx context.Context, p params, sink backup.Sink) (figures, error) {
	r, private, err := open(ctx, p)
	if err != nil {
		return nil, err
	}
	s, err := r.Restore(ctx, "", sink, private, nil)
	if err == nil && s.Rows < int64(p.Rows) {
		err = fmt.Errorf("%d rows", s.Rows)
	}
	return figures{"rows": float64(s.Rows)}, err
}

func intoSQLite(ctx context.Context, p params) (figures, error) {
	d, end, err := database(params{DB: p.DB}, nil)
	if err != nil {
		return nil, err
	}
	defer end()
	return restore(ctx, p, d)
}

func intoPostgres(ctx context.Context, p params) (figures, error) {
	d, end, err := database(p, &sqlsource.Options{Prepare: func(ctx context.Context, db *sql.DB) error {
		before, after := schema(true)
		for _, s := range append(before, after...) {
			if _, err := db.ExecContext(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	defer end()
	return restore(ctx, p, d)
}

// lines is a sink that writes each row as a line of JSON, a file for each table.
type lines struct{ dir string }

func (l lines) Load(_ context.Context, r *backup.Reader) error {
	for {
		t, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.table(t, r); err != nil {
			return err
		}
	}
}

func (l lines) table(t backup.Table, r *backup.Reader) error {
	f, err := os.Create(filepath.Join(l.dir, t.Name+".ndjson"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := newBehind(f)
	names := make([][]byte, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = append(jsonString(nil, c), ':')
	}
	var b []byte
	for row, err := range r.Rows() {
		if err != nil {
			return errors.Join(err, w.close())
		}
		b = append(b, '{')
		for i, v := range row {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, names[i]...)
			switch v := v.(type) {
			case nil:
				b = append(b, "null"...)
			case int64:
				b = strconv.AppendInt(b, v, 10)
			case string:
				b = jsonString(b, v)
			case []byte:
				b = append(base64.StdEncoding.AppendEncode(append(b, '"'), v), '"')
			default:
				b = fmt.Appendf(b, "%q", fmt.Sprint(v))
			}
		}
		if b = append(b, '}', '\n'); len(b) >= 1<<20 {
			b = w.write(b)
		}
	}
	w.write(b)
	return w.close()
}

// behind writes buffers while the next are filled.
type behind struct {
	full, empty chan []byte
	err         chan error
}

func newBehind(f *os.File) *behind {
	w := &behind{full: make(chan []byte, 1), empty: make(chan []byte, 2), err: make(chan error, 1)}
	w.empty <- nil
	w.empty <- nil
	go func() {
		var err error
		for b := range w.full {
			if err == nil {
				_, err = f.Write(b)
			}
			w.empty <- b[:0]
		}
		w.err <- err
	}()
	return w
}

// write takes a buffer and returns an empty one.
func (w *behind) write(b []byte) []byte {
	next := <-w.empty
	w.full <- b
	return next
}

func (w *behind) close() error {
	close(w.full)
	return <-w.err
}

func jsonString(b []byte, s string) []byte {
	from := 0
	b = append(b, '"')
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			if c >= utf8.RuneSelf && utf8.ValidString(s) {
				continue
			}
			b = fmt.Appendf(append(b, s[from:i]...), `\u%04x`, c)
			from = i + 1
		}
	}
	return append(append(b, s[from:]...), '"')
}

func ndjson(ctx context.Context, p params) (figures, error) {
	if err := os.MkdirAll(p.File, 0o700); err != nil {
		return nil, err
	}
	return restore(ctx, p, lines{p.File})
}

// records reads contacts at random, one after the other.
func records(ctx context.Context, p params) (figures, error) {
	r, private, err := open(ctx, p)
	if err != nil {
		return nil, err
	}
	s, n := newSource(7), counts(p.Rows, p.Attachments)["contacts"]
	var took []float64
	for range 100 {
		key := s.key("contacts", rand.IntN(n))
		start := time.Now()
		if _, err := r.Record(ctx, "", "contacts", []any{key}, private, nil); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start).Seconds())
	}
	slices.Sort(took)
	return figures{"p50": took[50], "p99": took[98]}, nil
}

// vacuum makes a consistent copy of a database, for programs that back up files.
func vacuum(ctx context.Context, p params) (figures, error) {
	db, err := sql.Open("sqlite", "file:"+p.DB)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", p.File)
	return figures{}, err
}
