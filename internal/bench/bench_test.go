package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

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
