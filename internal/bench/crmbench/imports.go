package crmbench

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// columns of the file that is imported, and of the table that the peer fills.
var columns = strings.Fields("id company contact phone phone2 email address website id_number city country industry source status currency note")

// cells are the columns of one customer.
func cells(c *crm.Customer) []string {
	company, contact := "", c.Name.Expose()
	if c.Kind == crm.CompanyCustomer {
		company, contact = contact, c.Contact.Expose()
	}
	return []string{
		c.ExternalID, company, contact, c.Phone.Expose(), c.Phone2.Expose(), c.Email.Expose(), c.Address.Expose(), c.Website.Expose(), c.IDNumber.Expose(),
		c.City, c.Country, c.Industry, c.Source, string(crm.CustomerNew), c.Currency, c.Note.Expose(),
	}
}

// file writes the customers as CSV; two of a hundred rows are the customer a few rows before under another number, as files have them.
func (g generator) file(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write(columns); err != nil {
		return err
	}
	for i := range g.rows {
		of := i
		if i%50 == 49 {
			of = i - 7
		}
		row := cells(g.customer(of))
		row[0] = fmt.Sprintf("K%08d", i)
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// source gives the file while it is made.
func (g generator) source() (*io.PipeReader, func()) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(g.file(w))
	}()
	return r, func() { r.Close(); <-done }
}

// empty makes the rig of an engine with no rows, set up as the program does.
func empty(ctx context.Context, tb testing.TB, engine string, gen generator) (*rig, error) {
	g := &rig{engine: engine, gen: gen, dialect: dialect.Dialect(engine), dir: tb.TempDir()}
	var err error
	if g.schema, err = guard.Schema[*crm.Customer](nil); err != nil {
		return nil, err
	}
	if g.policy, err = rego.New(ctx, nil); err != nil {
		return nil, err
	}
	if g.dialect == dialect.Postgres {
		p := realtest.PostgresWith(tb, realtest.PostgresOptions{Settings: settings})
		g.w, g.r, g.dsn = p.DB, p.DB, p.DSN
	}
	if err := g.serve(ctx, tb, false); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// imports measures a whole import into an empty database: through policy, seal, index, the search for duplicates and the log, beside the
// same rows by hand.
func (rep *Report) imports(ctx context.Context, tb testing.TB, engine string, o Options) error {
	g, err := empty(ctx, tb, engine, generator{o.Rows, o.Owned})
	if err != nil {
		return err
	}
	defer g.Close()
	byHand, err := g.importByHand(ctx)
	if err != nil {
		return fmt.Errorf("by hand: %w", err)
	}
	keeper, err := encrypt.NewKeeper(g.kek, g.keys, nil)
	if err != nil {
		return err
	}
	composed, _, err := guard.New(ctx, g.store, keeper, g.policy, g.files, &guard.Options{LogName: "file"})
	if err != nil {
		return err
	}
	customers, err := guard.For[*crm.Customer](ctx, composed, nil)
	if err != nil {
		return err
	}
	doors, err := transfer.OpenDoors(ctx, composed)
	if err != nil {
		return err
	}
	checker, err := dedupe.New(customers, nil, nil)
	if err != nil {
		return err
	}
	const steps = 10
	var at [steps + 1]time.Time // when so many tenths were stored
	var heap [steps + 1]uint64
	next := 0
	reach := func(rows int64) {
		for next <= steps && rows >= int64(o.Rows)*int64(next)/steps {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			at[next], heap[next] = time.Now(), m.HeapInuse
			next++
		}
	}
	said := time.Now()
	layout := transfer.Customers(transfer.Others{})
	m := transfer.NewImporter(doors, customers, layout, &transfer.Options[*crm.Customer]{
		Checker: checker.ForFile(), OnMatch: transfer.ReportMatches, Owner: employee(ours), Team: "/east/0/",
		Progress: func(n transfer.Counts) {
			reach(n.Rows)
			if time.Since(said) > 15*time.Second {
				said = time.Now()
				fmt.Fprintf(o.Progress, "%s: %d rows, %.0f a second, heap %d MiB\n", engine, n.Rows, float64(n.Rows)/time.Since(at[0]).Seconds(), heap[next-1]>>20)
			}
		},
	})
	pipe, stop := g.gen.source()
	defer stop()
	src, err := transfer.CSV(pipe, nil)
	if err != nil {
		return err
	}
	synced := g.synced.Load()
	cpu := measure.ProcessorTime()
	reach(0)
	admin := g.admin()
	admin.Subject.Team = "/hq/"
	job, err := m.Run(ctx, admin, "", src, transfer.Suggest(layout.Fields, src.Header(), nil), transfer.Create)
	if err != nil {
		return err
	}
	cpu = measure.ProcessorTime() - cpu
	if job.Created != int64(o.Rows) {
		return fmt.Errorf("%d of %d rows were stored: %v", job.Created, o.Rows, job.ByReason())
	}
	took := at[steps].Sub(at[0])
	perSecond := float64(o.Rows) / took.Seconds()
	last := float64(o.Rows) / steps / at[steps].Sub(at[steps-1]).Seconds()
	rep.Figures = append(rep.Figures,
		Figure{Engine: engine, Work: "import", Variant: "bare inserts of the same cells, 900 a transaction", Peer: true, PerSecond: byHand},
		Figure{
			Engine: engine, Work: "import", Variant: "policy, seal, index, duplicates, log synced to file", PerSecond: perSecond, Ratio: perSecond / byHand,
			Note: fmt.Sprintf("%s; the last tenth %.0f a second; processor %s a row; heap %d MiB after a tenth, %d at the end; log wrote and synced %s; %d like another",
				took.Round(time.Second), last, (cpu / time.Duration(o.Rows)).Round(time.Microsecond), heap[1]>>20, heap[steps]>>20,
				time.Duration(g.synced.Load()-synced).Round(100*time.Millisecond), job.Matched),
		})
	rep.Bars = append(rep.Bars, Bar{Engine: engine, Name: "import, rows a second", Have: perSecond, Want: 3000, AtLeast: true})
	return nil
}

// importByHand inserts the same cells with a prepared statement.
func (g *rig) importByHand(ctx context.Context) (perSecond float64, err error) {
	if _, err := g.w.ExecContext(ctx, "CREATE TABLE by_hand ("+strings.Join(columns, " TEXT, ")+" TEXT, PRIMARY KEY (id))"); err != nil {
		return 0, err
	}
	defer func() {
		_, dropped := g.w.ExecContext(ctx, "DROP TABLE by_hand")
		err = errors.Join(err, dropped)
	}()
	for _, c := range []string{"phone", "email", "contact"} { // a careful hand's indexes
		if _, err := g.w.ExecContext(ctx, "CREATE INDEX by_hand_"+c+" ON by_hand ("+c+")"); err != nil {
			return 0, err
		}
	}
	pipe, stop := g.gen.source()
	defer stop()
	src := csv.NewReader(pipe)
	src.ReuseRecord = true
	if _, err := src.Read(); err != nil {
		return 0, err
	}
	marks := make([]string, len(columns))
	for i := range marks {
		marks[i] = "$" + strconv.Itoa(i+1)
	}
	text := "INSERT INTO by_hand VALUES (" + strings.Join(marks, ", ") + ")"
	begin := time.Now()
	for done := false; !done; {
		err := func() (err error) {
			tx, err := g.w.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() {
				if err != nil {
					err = errors.Join(err, tx.Rollback())
				}
			}()
			var stmt *sql.Stmt
			if stmt, err = tx.PrepareContext(ctx, text); err != nil {
				return err
			}
			defer stmt.Close()
			args := make([]any, len(columns))
			for range 900 {
				row, err := src.Read()
				if errors.Is(err, io.EOF) {
					done = true
					break
				}
				if err != nil {
					return err
				}
				for i, cell := range row {
					args[i] = strings.Clone(cell)
				}
				if _, err := stmt.ExecContext(ctx, args...); err != nil {
					return err
				}
			}
			return tx.Commit()
		}()
		if err != nil {
			return 0, err
		}
	}
	return float64(g.gen.rows) / time.Since(begin).Seconds(), nil
}
