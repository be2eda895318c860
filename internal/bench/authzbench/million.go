package authzbench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// Database is a database with its dialect.
type Database struct {
	Name    string
	DB      *sql.DB
	Dialect cond.Dialect
}

// Million measures the first page of n customers as the shipped policy filters it, beside the same condition written by hand.
// Half a percent of the records are of another level or compartment; a sales person has 200 of a million, a team of a manager 20,000.
func Million(ctx context.Context, d Database, n int, opts measure.Options) ([]measure.Figure, []Bar, error) {
	if err := d.fill(ctx, n); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	engine, err := rego.New(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	subject := authz.Subject{ID: "e17", Tenant: "t", Team: "/17/", Active: true}
	cleared := "level <= ? AND compartments = ''"
	var figures []measure.Figure
	var bars []Bar
	for _, x := range []struct {
		role, hand string
		args       []any
	}{
		{"sales", "owner = ? AND " + cleared, []any{subject.ID, 0}},
		{"manager", "(owner = ? OR team >= ? AND team < ?) AND " + cleared, []any{subject.ID, "/17/", "/170", 0}},
	} {
		r := authz.Request{Subject: subject, Action: authz.List, Resource: authz.Resource{Tenant: "t", Type: "customer"}}
		r.Subject.Roles = []string{x.role}
		work := fmt.Sprintf("first page of %d in %s, %s", n, d.Name, x.role)
		byHand := func() ([]string, error) { return d.page(ctx, d.numbered(x.hand), x.args) }
		byFilter := func() ([]string, error) {
			f, err := engine.Filter(ctx, r)
			if err != nil {
				return nil, err
			}
			text, args, err := f.SQL(d.Dialect, func(name string) (string, error) { return `"` + name + `"`, nil })
			if err != nil {
				return nil, err
			}
			return d.page(ctx, text, args)
		}
		want, err := byHand()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", work, err)
		}
		got, err := byFilter()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", work, err)
		}
		if len(want) == 0 || !slices.Equal(got, want) {
			return nil, nil, fmt.Errorf("%s: %d records by hand, %d by the filter, or others", work, len(want), len(got))
		}
		run := func(f func() ([]string, error)) func() error {
			return func() error {
				ids, err := f()
				if err == nil && len(ids) != len(want) {
					err = errors.New("another number of records")
				}
				return err
			}
		}
		list, err := measure.Compare(work, opts,
			measure.Variant{Name: "by hand", Peer: true, Do: run(byHand)},
			measure.Variant{Name: ours, Do: run(byFilter)},
		)
		if err != nil {
			return nil, nil, err
		}
		bars = append(bars, Bar{Name: work + " beside a condition by hand", Value: list[1].Ratio, Most: 1.2, Unit: "times"})
		// As in every table, times are ours'.
		list[0].Ratio, list[0].Peer, list[1].Ratio, list[1].Peer = 1/list[1].Ratio, false, 1, true
		figures = append(figures, list[1], list[0])
	}
	return figures, bars, nil
}

// numbered writes the arguments of a condition as the dialect has them.
func (d Database) numbered(text string) string {
	if d.Dialect == cond.Dollar {
		for n := 1; strings.Contains(text, "?"); n++ {
			text = strings.Replace(text, "?", fmt.Sprintf("$%d", n), 1)
		}
	}
	return text
}

// page reads the first 50 records that meet a condition, in the order of their ids.
func (d Database) page(ctx context.Context, where string, args []any) ([]string, error) {
	after := "?"
	if d.Dialect == cond.Dollar {
		after = fmt.Sprintf("$%d", len(args)+1)
	}
	rows, err := d.DB.QueryContext(ctx, "SELECT id, owner, team, state, name FROM customer WHERE "+where+" AND id > "+after+" ORDER BY id LIMIT 50",
		append(args[:len(args):len(args)], "")...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ids := make([]string, 0, 50)
	for rows.Next() {
		var id, owner, team, state, name string
		if err := rows.Scan(&id, &owner, &team, &state, &name); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// fill makes n customers of 5,000 owners in 50 teams.
func (d Database) fill(ctx context.Context, n int) error {
	collate, held, series, id := "", "INTEGER NOT NULL DEFAULT 0", "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) ", "printf('%%08x', (n * 2654435761) %% 4294967296)"
	from := "s"
	if d.Dialect == cond.Dollar {
		collate, held, series, id = ` COLLATE "C"`, "BOOLEAN NOT NULL DEFAULT false", "", "lpad(to_hex((n * 2654435761) %% 4294967296), 8, '0')"
		from = "generate_series(1::bigint, %d) AS s(n)"
	}
	insert := series + "INSERT INTO customer (id, owner, team, state, level, compartments, name) SELECT " + id +
		", 'e' || (n %% 5000), '/' || (n %% 50) || '/', 'new', CASE WHEN n %% 401 = 0 THEN 1 ELSE 0 END," +
		" CASE WHEN n %% 397 = 0 THEN '<board>' ELSE '' END, 'customer ' || n FROM " + from
	for _, q := range []string{
		"CREATE TABLE customer (id TEXT" + collate + " NOT NULL PRIMARY KEY, owner TEXT" + collate + " NOT NULL, team TEXT" + collate +
			" NOT NULL, state TEXT NOT NULL, level INTEGER NOT NULL, amount BIGINT NOT NULL DEFAULT 0, held " + held +
			", compartments TEXT NOT NULL, actors TEXT NOT NULL DEFAULT '', consents TEXT NOT NULL DEFAULT '', name TEXT NOT NULL)",
		fmt.Sprintf(insert, n),
		"CREATE INDEX customer_owner ON customer (owner, id)",
		"CREATE INDEX customer_team ON customer (team, id)",
		"ANALYZE",
	} {
		if _, err := d.DB.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}
