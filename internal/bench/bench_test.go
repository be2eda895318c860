package main

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/internal/bench/authzbench"
	"github.com/crmguard/crmguard/internal/bench/encryptbench"
	"github.com/crmguard/crmguard/internal/bench/guardbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// TestRuns runs everything once, quickly: the figures mean nothing, that there are figures does.
func TestRuns(t *testing.T) {
	opts := measure.Options{Rounds: 1, Round: time.Millisecond}
	figures, err := guardbench.Run(t.Context(), 600, opts)
	if err != nil {
		t.Fatal(err)
	}
	more, err := encryptbench.Run(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	figures = append(figures, more...)
	for _, f := range figures {
		if f.NsPerOp <= 0 || f.Ratio <= 0 || f.Peer && f.Ratio != 1 {
			t.Errorf("%+v", f)
		}
	}
	var out bytes.Buffer
	if err := measure.Print(&out, figures); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"get", "list 50", "seal a field of 64 bytes", "open a field of 64 bytes", "seal a record", "1 (peer)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

// TestComparisonNeedsAPeer: a figure without a peer would be no ratio.
func TestComparisonNeedsAPeer(t *testing.T) {
	if _, err := measure.Compare("x", measure.Options{}, measure.Variant{Name: "ours"}); err == nil {
		t.Error("no error")
	}
}

// TestDecisions: the engines answer alike, and every table has its rows.
func TestDecisions(t *testing.T) {
	w, err := authzbench.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	small, shipped, err := w.Agree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if small < authzbench.Requests/4 || shipped < authzbench.Requests/8 {
		t.Errorf("%d and %d requests are allowed: too few to compare", small, shipped)
	}
	opts := measure.Options{Rounds: 1, Round: time.Millisecond}
	var figures []measure.Figure
	var bars []authzbench.Bar
	add := func(f []measure.Figure, b []authzbench.Bar, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		figures, bars = append(figures, f...), append(bars, b...)
	}
	add(w.Decisions(t.Context(), opts))
	add(w.Lists(t.Context(), opts))
	add(w.WhoCan(t.Context(), opts))
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "bench.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	add(authzbench.Million(t.Context(), authzbench.Database{Name: "SQLite", DB: db, Dialect: cond.Question}, 20_000, opts))
	lines, more, err := authzbench.Plans(t.Context(), 5, 100)
	add(nil, more, err)
	var out bytes.Buffer
	if err := authzbench.Print(&out, figures); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"decision", "every control", "cedar-go, entities at hand", "OPA, map input", "Casbin", "Go by hand", "list of 10000",
		"x/exp/batch", "500 records times 20", "who can, of 1000", "first page of 20000 in SQLite, sales", "by hand",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	if len(lines) != 2 || len(bars) < 18 {
		t.Errorf("%d lines, %d bars", len(lines), len(bars))
	}
	for _, b := range bars {
		if b.Name == "plans made by times and addresses" && !b.Met() {
			t.Error(b)
		}
	}
}
