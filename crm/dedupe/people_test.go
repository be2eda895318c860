package dedupe_test

import (
	"encoding/csv"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
)

var update = flag.Bool("update", false, "write the curve into docs/duplicates.md")

// someone is a person of a data set for which the truth is known.
type someone struct {
	ID       string   // "rec-7-org", "rec-7-dup-0"
	Name     crm.Text `json:"name"`
	Born     crm.Text `json:"born"`
	Address  crm.Text `json:"address"`
	Phone    crm.Text `json:"phone"`
	Email    crm.Text `json:"email"`
	IDNumber crm.Text `json:"id_number"`
}

// of is what a record is a record of: "rec-7".
func (s *someone) of() string {
	parts := strings.SplitN(s.ID, "-", 3)
	return strings.Join(parts[:2], "-")
}

// febrl reads a file of the Febrl data set generator.
func febrl(t testing.TB, path string) []*someone {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	in := csv.NewReader(f)
	in.TrimLeadingSpace = true
	lines, err := in.ReadAll()
	require.NoError(t, err)
	column := map[string]int{}
	for i, name := range lines[0] {
		column[name] = i
	}
	var out []*someone
	for _, l := range lines[1:] {
		join := func(names ...string) crm.Text {
			var parts []string
			for _, n := range names {
				if s := strings.TrimSpace(l[column[n]]); s != "" {
					parts = append(parts, s)
				}
			}
			return crm.NewText(strings.Join(parts, " "))
		}
		out = append(out, &someone{
			ID: l[0], Name: join("given_name", "surname"), Born: join("date_of_birth"), IDNumber: join("soc_sec_id"),
			Address: join("street_number", "address_1", "address_2", "suburb", "postcode", "state"),
		})
	}
	return out
}

// curve is precision and recall at each score.
type curve struct {
	pairs  int // that are one, in truth
	lines  []string
	likely [2]float64 // at the score from which rules call it likely
}

// measure compares everybody who shares a block, as a run over all records does, and counts.
func measure(t testing.TB, rules *dedupe.Rules, all []*someone) curve {
	t.Helper()
	c := curve{}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.of() == b.of() {
				c.pairs++
			}
		}
	}
	blocks := map[string][]int{}
	for i, p := range all {
		terms, err := dedupe.Blocks(rules, p, nil)
		require.NoError(t, err)
		for _, term := range terms {
			blocks[term] = append(blocks[term], i)
		}
	}
	scores := map[[2]int]float64{}
	for _, list := range blocks {
		for n, i := range list {
			for _, j := range list[n+1:] {
				if _, seen := scores[[2]int{i, j}]; seen {
					continue
				}
				v, err := dedupe.Compare(rules, all[i], all[j], nil)
				require.NoError(t, err)
				scores[[2]int{i, j}] = v.Score
			}
		}
	}
	at := func(from float64) (found, right int) {
		for p, s := range scores {
			if s >= from {
				found++
				if all[p[0]].of() == all[p[1]].of() {
					right++
				}
			}
		}
		return found, right
	}
	for from := 0.40; from < 1; from += 0.05 {
		found, right := at(from)
		precision, recall := float64(right)/float64(max(found, 1)), float64(right)/float64(c.pairs)
		c.lines = append(c.lines, fmt.Sprintf("| %.2f | %d | %d | %.3f | %.3f |", from, found, right, precision, recall))
	}
	found, right := at(rules.Likely)
	c.likely = [2]float64{float64(right) / float64(max(found, 1)), float64(right) / float64(c.pairs)}
	return c
}

func people(t testing.TB) *dedupe.Rules {
	rules, ok := dedupe.Default("people")
	require.True(t, ok)
	return rules
}

// TestPeople measures the rules for people on a small generated set, and on a file that CRMGUARD_FEBRL names; with -update the latter's curve goes into
// docs/duplicates.md.
func TestPeople(t *testing.T) {
	c := measure(t, people(t), febrl(t, filepath.Join("testdata", "people.csv")))
	t.Logf("%d pairs, precision %.3f, recall %.3f", c.pairs, c.likely[0], c.likely[1])
	require.GreaterOrEqual(t, c.likely[0], 0.95)
	require.GreaterOrEqual(t, c.likely[1], 0.95)
	if path := os.Getenv("CRMGUARD_FEBRL"); path != "" {
		c := measure(t, people(t), febrl(t, path))
		t.Logf("%d pairs, precision %.3f, recall %.3f\n%s", c.pairs, c.likely[0], c.likely[1], strings.Join(c.lines, "\n"))
		require.GreaterOrEqual(t, c.likely[0], 0.95)
		require.GreaterOrEqual(t, c.likely[1], 0.95)
		if *update {
			const doc = "../../docs/duplicates.md"
			text, err := os.ReadFile(doc)
			require.NoError(t, err)
			head, rest, ok := strings.Cut(string(text), "<!-- curve -->\n")
			require.True(t, ok)
			_, tail, ok := strings.Cut(rest, "<!-- end -->")
			require.True(t, ok)
			table := "| from a score of | pairs | of them right | precision | recall |\n|---|---|---|---|---|\n" + strings.Join(c.lines, "\n") + "\n"
			require.NoError(t, os.WriteFile(doc, []byte(head+"<!-- curve -->\n"+table+"<!-- end -->"+tail), 0o644))
		}
	}
}
