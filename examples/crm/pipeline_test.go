package main_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// table reads a file of separated values by the names of its columns.
func table(t *testing.T, path string) []map[string]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	var out []map[string]string
	for _, l := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = l[i]
		}
		out = append(out, row)
	}
	return out
}

// TestPublicPipeline imports a public data set of sales (accounts.csv, products.csv, sales_teams.csv and sales_pipeline.csv in the folder that CRMGUARD_PIPELINE names), undoes that of the
// opportunities, imports them again, and compares numbers, sums and dates by state and by agent with those that are counted in the files.
//
//crm:item 13 partly
func TestPublicPipeline(t *testing.T) {
	dir := os.Getenv("CRMGUARD_PIPELINE")
	if dir == "" {
		t.Skip("CRMGUARD_PIPELINE names no folder with accounts.csv, products.csv, sales_teams.csv and sales_pipeline.csv")
	}
	data := small(t, nil)
	in := func(file, typ string, more ...string) string {
		return mustRun(t, nil, append([]string{"import", file, "--type", typ, "--data", data, "--duplicates", "off"}, more...)...)
	}
	own := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	managers := map[string]bool{}
	for _, row := range table(t, filepath.Join(dir, "sales_teams.csv")) {
		managers[row["manager"]] = true
	}
	text := "name,region\n"
	for name := range managers {
		text += name + ",Managers\n"
	}
	in(own("managers.csv", text), crm.TypeEmployee, "--default", "domain=sales.example")
	in(filepath.Join(dir, "sales_teams.csv"), crm.TypeEmployee, "--default", "domain=sales.example")
	in(filepath.Join(dir, "accounts.csv"), crm.TypeCustomer)
	in(own("none.csv", "account\nNo account yet\n"), crm.TypeCustomer)
	in(filepath.Join(dir, "products.csv"), crm.TypeProduct, "--currency", "USD")
	pipeline := filepath.Join(dir, "sales_pipeline.csv")
	flags := []string{"--currency", "USD", "--default", "customer=No account yet", "--replace", "product:GTXPro=GTX Pro", "--replace", "stage:Engaging=Needs known", "--replace", "stage:Prospecting=First talk"}
	first := begunLine.FindStringSubmatch(strings.SplitN(in(pipeline, crm.TypeOpportunity, flags...), "\n", 2)[0])
	require.NotNil(t, first)

	type sum struct {
		Rows, Amount int64
		Closed       int
	}
	want := map[string]sum{}
	words := map[string]string{"Won": "won", "Lost": "lost", "Engaging": "open Needs known", "Prospecting": "open First talk"}
	rows := table(t, pipeline)
	for _, row := range rows {
		value := int64(0)
		if row["close_value"] != "" {
			f, err := strconv.ParseFloat(row["close_value"], 64)
			require.NoError(t, err)
			value = int64(f*100 + 0.5)
		}
		for _, key := range []string{words[row["deal_stage"]], row["sales_agent"]} {
			s := want[key]
			s.Rows, s.Amount = s.Rows+1, s.Amount+value
			if row["close_date"] != "" {
				s.Closed++
			}
			want[key] = s
		}
	}
	stored := func() map[string]sum {
		a, _ := openedAs(t, data)
		defer func() { require.NoError(t, a.Close()) }()
		names := map[crm.ID[crm.Employee]]string{}
		all, err := a.Directory(t.Context())
		require.NoError(t, err)
		for _, e := range all {
			names[e.ID] = e.Name.Expose()
		}
		got := map[string]sum{}
		for q := (guard.Query{Limit: 200}); ; {
			p, err := a.Opportunities.List(t.Context(), app.System("test"), q)
			require.NoError(t, err)
			for _, v := range p.Items {
				o := v.Value
				state := string(o.State)
				if o.State == sales.OpportunityOpen {
					state += " " + o.Stage
				}
				for _, key := range []string{state, names[o.Owner]} {
					s := got[key]
					s.Rows, s.Amount = s.Rows+1, s.Amount+o.Amount
					if !o.ClosedAt.IsZero() {
						s.Closed++
					}
					got[key] = s
				}
			}
			if q.After = p.Next; p.Next == "" {
				return got
			}
		}
	}
	assert.Equal(t, want, stored())
	mustRun(t, nil, "import", "-", "--undo", first[1], "--type", crm.TypeOpportunity, "--data", data)
	assert.Empty(t, stored())
	in(pipeline, crm.TypeOpportunity, flags...)
	got := stored()
	assert.Equal(t, want, got)
	green(t, nil, "--data", data)
	line := fmt.Sprintf("%d rows", len(rows))
	for _, key := range []string{"won", "lost", "open Needs known", "open First talk"} {
		line += fmt.Sprintf("; %s: %d, %d.%02d USD, %d closed", key, got[key].Rows, got[key].Amount/100, got[key].Amount%100, got[key].Closed)
	}
	t.Logf("%s; %d agents", line, len(got)-4)
}
