package review_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
)

func TestEveryReportIsATable(t *testing.T) {
	for _, c := range []struct {
		table *review.Table
		want  []string
	}{
		{review.NewTable("x", []review.Permission{{Subject: "e1", Action: authz.Reveal, Type: "customer", Resource: "c1", Decision: authz.Decision{
			Controls: []string{"rbac.own", "tenant.same"}, Obligations: []authz.Obligation{authz.NeedReason, "rows:9"}}}}),
			[]string{"e1", "reveal", "customer", "c1", "rbac.own tenant.same", "reason rows:9"}},
		{review.NewTable("x", []review.Idle{{Grant: review.Grant{Subject: "e1", Role: "sales", Since: opened}}}),
			[]string{"e1", "sales", "", "", "2026-07-01", "never"}},
		{review.NewTable("x", []review.Item{{Subject: "e1", Role: "sales", Reviewer: "e2"}}),
			[]string{"e1", "sales", "e2", "open", "", ""}},
		{review.NewTable("x", []review.Change{{"e1", review.Moved, "/a/", "/b/", []string{"r"}, nil, []string{"s", "t"}}}),
			[]string{"e1", "moved", "/a/", "/b/", "r", "", "s t"}},
		{review.NewTable("x", []review.Conflict{{"e1", [2]string{"a", "b"}}}),
			[]string{"e1", "a", "b"}},
	} {
		assert.Equal(t, [][]string{c.want}, c.table.Rows)
		assert.Len(t, c.table.Columns, len(c.want))
	}
	assert.NotEmpty(t, review.NewTable[review.Conflict]("x", nil).Columns, "an empty report has its columns")
}

func TestCSVCalculatesNothing(t *testing.T) {
	for in, want := range map[string]string{
		"=HYPERLINK(\"http://x\")": "'=HYPERLINK(\"http://x\")",
		"+1":                       "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1", "\n=1": "'\n=1",
		" =1": "' =1", "\u00a0=1": "'\u00a0=1", "\u3000=1": "'\u3000=1", "\ufeff=1": "'\ufeff=1",
		"＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠x": "'＠x", "|x": "'|x", "%x": "'%x",
		"-": "-", "": "", "a=b": "a=b", "e1": "e1", "'=1": "'=1", "a,\"b\"\nc": "a,\"b\"\nc", "\xff=": "\xff=",
	} {
		var b bytes.Buffer
		require.NoError(t, (&review.Table{Columns: []string{"x"}, Rows: [][]string{{in, "end"}}}).CSV(&b))
		r := csv.NewReader(&b)
		r.FieldsPerRecord = -1
		rows, err := r.ReadAll()
		require.NoError(t, err)
		assert.Equal(t, want, strings.ReplaceAll(rows[1][0], "\r\n", "\n"), "%q", in)
	}
}

func TestCSVGuardsColumnsToo(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&review.Table{Columns: []string{"=x"}}).CSV(&b))
	assert.Equal(t, "'=x\n", b.String())
}

func TestHTMLIsInert(t *testing.T) {
	evil := `<script>alert(1)</script>"'&`
	table := &review.Table{Title: evil, Note: evil, Lang: `zh" onload="x`, Columns: []string{evil}, Rows: [][]string{{evil, evil}}}
	var b bytes.Buffer
	require.NoError(t, table.HTML(&b))
	assert.NotContains(t, b.String(), "<script")
	assert.NotRegexp(t, `(?i)\son\w+="`, b.String())
	assert.NotRegexp(t, regexp.MustCompile(`(?i)(src|href)=|url\(|https?:`), b.String())
}

func TestHTMLGolden(t *testing.T) {
	table := review.NewTable("Who may read a customer", []review.Conflict{{"e1", [2]string{"requester", "approver"}}})
	table.Note, table.Lang = "As of 2026-07-01", "en-GB"
	var b bytes.Buffer
	require.NoError(t, table.HTML(&b))
	for _, want := range []string{
		`<html lang="en-GB">`, `<title>Who may read a customer</title>`, `<caption>Who may read a customer</caption>`,
		`<p>As of 2026-07-01</p>`, `<th scope="col">subject</th>`, `<th scope="row">e1</th><td>requester</td><td>approver</td>`,
	} {
		assert.Contains(t, b.String(), want)
	}
	table.Lang = ""
	b.Reset()
	require.NoError(t, table.HTML(&b))
	assert.Contains(t, b.String(), `<html lang="en">`)
}

func TestTextStaysOnItsLine(t *testing.T) {
	table := &review.Table{Title: "a\nb", Note: "n\n# m", Columns: []string{"x\ty"}, Rows: [][]string{{"1\n2", "3"}, {"only"}, {}}}
	assert.Equal(t, "# a b. Columns: x y\n# n # m\n1 2        3\nonly\n\n", table.String())
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	table := &review.Table{Columns: []string{"x"}, Rows: [][]string{{strings.Repeat("y", 10000)}, {"z"}}}
	require.ErrorIs(t, table.CSV(full{}), errFull)
	require.ErrorIs(t, (&review.Table{}).CSV(full{}), errFull)
	require.ErrorIs(t, table.HTML(full{}), errFull)
}

func ExampleTable_CSV() {
	table := review.NewTable("Exclusive roles", []review.Conflict{{Subject: "e1", Roles: [2]string{"requester", "approver"}}})
	if err := table.CSV(os.Stdout); err != nil {
		panic(err)
	}
	// Output:
	// subject,role,excludes
	// e1,requester,approver
}

func ExampleNewTable() {
	may, err := review.WhoCan(context.Background(), rules{}, slices.Values(people()), authz.Request{Action: authz.Delete, Resource: customer})
	if err != nil {
		panic(err)
	}
	fmt.Print(review.NewTable("Who may delete customer c1", may))
	// Output:
	// # Who may delete customer c1. Columns: subject action type resource controls obligations
	// e3         delete    customer c1 rbac.all
}
