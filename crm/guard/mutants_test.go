package guard_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutants each leave out one check of the package.
var mutants = []struct{ name, file, old, new string }{
	{"masked fields are shown whole", "read.go", "range s.masked {", "range s.masked[:0] {"},
	{"hidden fields are shown", "read.go", "range s.hidden {", "range s.hidden[:0] {"},
	{"the fields of the first row are shown of all", "read.go", "if i > 0 && sameFields(", "if i > 0 || false && sameFields("},
	{"any field can be filtered and sorted by", "read.go", "case sample.Fields.Access(f.Name, string(f.Class)) != authz.Open:\n\t\t\t\tdenial", "case false:\n\t\t\t\tdenial"},
	{"sealed fields are filtered by", "read.go", "case !ok || !f.Clear:", "case !ok:"},
	{"a refused list goes on", "read.go", "if denial != nil {\n\t\treturn crm.Query{}", "if (denial != nil) && false {\n\t\treturn crm.Query{}"},
	{"a list is not limited to what the policy admits", "read.go", "Where: r.where(filter),", "Where: []crm.Condition{crm.Everything{}, r.where(filter)}[0],"},
	{"rows of a list are not decided", "read.go", "if ds[i].Proceed(c.met()...) != nil {\n\t\t\t// The filter", "if (ds[i].Proceed(c.met()...) != nil) && false {\n\t\t\t// The filter"},
	{"rows of a list are not authentic", "read.go", "if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {\n\t\treturn nil, err\n\t}\n\tds := make", "ds := make"},
	{"a candidate of a check is not authentic", "alike.go", "if err := r.authentic(ctx, c.Subject.Tenant, []crm.Row{k.row}); err != nil {", "if err := error(nil); err != nil {"},
	{"hidden fields are compared", "alike.go", "if access, ok := s.access[name]; ok && access != authz.Hidden {", "if _, ok := s.access[name]; ok {"},
	{"a duplicate that may not be read is shown", "alike.go", "case !k.reads:", "case false:"},
	{"bands tell what the rules do not", "alike.go", "out[n] != Certain && (k.reads || m.Tell() != TellNothing)", "out[n] != Certain"},
	{"checks are not counted", "alike.go", "return r.g.checks.takeN(purse, r.g.now(), n), nil", "return true, nil"},
	{"a single row is not authentic", "read.go", "if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {\n\t\treturn nil, err\n\t}\n\tif r.purged", "if r.purged"},
	{"rows of several are not authentic", "read.go", "if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {\n\t\treturn nil, err\n\t}\n\td :=", "d :="},
	{"another row than was asked for", "read.go", "if rows[0].ID != id {", "if (rows[0].ID != id) && false {"},
	{"a record that may not be read is", "read.go", "if d.Proceed(c.met()...) != nil {\n\t\tif err := r.deny(ctx, c, authz.Read", "if (d.Proceed(c.met()...) != nil) && false {\n\t\tif err := r.deny(ctx, c, authz.Read"},
	{"records that may not be listed are got", "read.go", "if dec.Proceed(c.met()...) == nil {", "if (dec.Proceed(c.met()...) == nil) || true {"},
	{"a reveal is not decided", "read.go", "denial := d.Proceed(c.met()...)\n\tif denial == nil && d.Fields", "denial := error(nil)\n\tif denial == nil && d.Fields"},
	{"a reveal shows what is not open", "read.go", "if denial == nil && d.Fields.Access(f.Name, string(f.Class)) != authz.Open {", "if (denial == nil && d.Fields.Access(f.Name, string(f.Class)) != authz.Open) && false {"},
	{"hidden fields are searched", "read.go", "if access == authz.Hidden {\n\t\t\tcontinue\n\t\t}", ""},
	{"a hidden field of one record is found", "read.go", "case access[p.field] == authz.Hidden:\n\t\t\t\treturn false", "case false:\n\t\t\t\treturn false"},
	{"masked fields are found by a part", "read.go", "case access[p.field] == authz.Masked && !p.full:", "case false:"},
	{"candidates are not compared", "read.go", "case !r.codec.Match(p.query, into[i]):\n\t\t\t\treturn false", "case false:\n\t\t\t\treturn false"},
	{"searches of masked fields are not counted", "read.go", "if masked && !r.g.quota.take(", "if false && !r.g.quota.take("},
	{"reasons are shown to everybody", "read.go", "if len(entries[i].Event.Details) == 0 || reasons.Proceed(c.met()...) != nil {", "if _ = reasons; len(entries[i].Event.Details) == 0 {"},
	{"a reading that is not logged", "read.go", "receipt, err := r.g.log.Append(ctx, e)\n\tif err != nil {\n\t\treturn nil, 0,", "receipt, err := r.g.log.Append(ctx, e)\n\tif false {\n\t\treturn nil, 0,"},
	{"a count that is not logged", "read.go", "e.Action = r.typ + \".count\"\n\tif _, err := r.g.log.Append(ctx, e); err != nil {", "e.Action = r.typ + \".count\"\n\tif _, err := r.g.log.Append(ctx, e); false {"},
	{"an earlier row is not authentic", "earlier.go", "if err := r.authentic(ctx, c.Subject.Tenant, []crm.Row{row}); err != nil {", "if err := error(nil); err != nil {"},
	{"an earlier row is not decided on", "earlier.go", "for i := range rows {\n\t\tif ds[i], err = r.readable(ctx, c, &rows[i])", "for i := range rows {\n\t\tif ds[i], err = r.readable(ctx, c, &rows[0])"},
	{"fields that are masked differ", "earlier.go", "out.Now.Fields[f.Name] != authz.Open || out.Then.Fields[f.Name] != authz.Open {", "false {"},
	{"any field comes back", "earlier.go", "if !ok || !slices.Contains(e.Fields, name) {", "if !ok {"},
	{"an export is not counted", "export.go", "c.Environment.Rows, c.counted = int(n), true", "c.counted = true"},
	{"hidden fields are written", "write.go", "if touched {", "if touched && false {"},
	{"an old version is written over", "write.go", "if row.Version != h.Version {", "if (row.Version != h.Version) && false {"},
	{"an old version is deleted", "write.go", "if row.Version != version {", "if (row.Version != version) && false {"},
	{"a change is not decided", "write.go", "if denial != nil {\n\t\treturn nil, d, errors.Join(denial, r.deny(ctx, c, a, row, d))", "if (denial != nil) && false {\n\t\treturn nil, d, errors.Join(denial, r.deny(ctx, c, a, row, d))"},
	{"a change tells of a record that may not be read", "write.go", "res.Pool == \"\" || seen.Proceed(c.met()...) != nil {", "(res.Pool == \"\" || seen.Proceed(c.met()...) != nil) && false {"},
	{"reserved fields are written", "write.go", "if b, _ := crm.ValueOf(before[i]); a != b {", "if b, _ := crm.ValueOf(before[i]); false && a != b {"},
	{"who changes a record has no part in it", "write.go", "if !ok || c.Subject.ID == \"\" {", "if !ok || i >= 0 {"},
	{"a record is given to anybody", "write.go", "return there, there.Proceed(c.met()...), nil", "return there, nil, nil"},
	{"a level is lowered", "write.go", "if will.Level < was.Level {", "if (will.Level < was.Level) && false {"},
	{"holds are lifted by an update", "write.go", "if will.Held != was.Held ||", "if false && will.Held != was.Held ||"},
	{"a create is not decided", "write.go", "denial := dec.Proceed(c.met()...)", "denial := error(nil)"},
	{"an action on an old version", "act.go", "if version != 0 && row.Version != version {", "if (version != 0 && row.Version != version) && false {"},
	{"any action hands a record over", "act.go", "if slices.Contains(handing, a) {\n\t\tnow", "if (slices.Contains(handing, a)) || true {\n\t\tnow"},
	{"a living record is purged", "act.go", "if !row.Deleted {", "if (!row.Deleted) && false {"},
	{"persons who are still named are forgotten", "forget.go", "if err != nil || has {\n\t\treturn has, err", "if err != nil {\n\t\treturn has, err"},
	{"a purge passes a hold", "act.go", "if held {", "if held && false {"},
	{"somebody is forgotten whom another type may name", "forget.go", "if !ok {\n\t\t\treturn nil, fmt.Errorf(\"guard: type", "if !ok && false {\n\t\t\treturn nil, fmt.Errorf(\"guard: type"},
	{"whoever asks learns who was erased", "erase.go", "if denial := sample.Proceed(c.met()...); denial != nil {", "if denial := sample.Proceed(c.met()...); false {"},
	{"questions about the erased are not counted", "erase.go", "c.Subject.ID, len(vs)); err != nil", "c.Subject.ID, 0); err != nil"},
	{"an erasure passes a hold until its end", "erase.go", "if err := g.keeper.MayErase(ctx, tenant, person, how); err != nil {", "if err := g.keeper.MayErase(ctx, tenant, person, how); false {"},
	{"fields of others are marked", "erase.go", "slices.Contains(persons, r.personOfField(f, val, personOf(row)))", "(len(persons) > 0 || slices.Contains(persons, r.personOfField(f, val, personOf(row))))"},
	{"names are marked", "erase.go", "len(term) < leastTerm || !slices.Contains(r.g.identifying, base)", "len(term) < leastTerm || base == \"\""},
	{"what was purged is there", "read.go", "if r.purged(&rows[0]) {", "if (r.purged(&rows[0])) && false {"},
	{"a limit is not told apart", "tx.go", "if errors.As(err, &le) && le.Index >= 0", "if false && le.Index >= 0"},
	{"any field is grouped by", "group.go", "if d.Fields.Access(f.Name, string(f.Class)) != authz.Open {", "if (d.Fields.Access(f.Name, string(f.Class)) != authz.Open) && false {"},
	{"sealed fields are grouped by", "group.go", "if !ok || !f.Clear {", "if !ok {"},
	{"small groups are shown", "group.go", "if small {", "if (small) && false {"},
	{"few records are shown", "group.go", "if 0 < total && total < few || 0 < left && left < few {", "if (0 < total && total < few || 0 < left && left < few) && false {"},
	{"what a list hides is shown", "records.go", "byName[name] = authz.Hidden", "_ = name"},
	{"what is not seen is written", "revise.go", "if reads == authz.Open && writes == authz.Open {", "if (reads == authz.Open && writes == authz.Open) || true {"},
	{"fixed texts are compared for anybody", "revise.go", "if !ok || seen.Access(f.Name, string(f.Class)) != authz.Open || d.Fields.Access(f.Name, string(f.Class)) != authz.Open {", "if !ok {"},
	{"a comparison that is not logged", "revise.go", "if _, err := r.g.log.Append(ctx, e); err != nil {\n\t\treturn fmt.Errorf(", "if _, err := r.g.log.Append(ctx, e); false {\n\t\treturn fmt.Errorf("},
	{"an opening for an index that is not logged", "revise.go", "if _, err := r.g.log.Append(ctx, e); err != nil {\n\t\t\treturn encrypt", "if _, err := r.g.log.Append(ctx, e); false {\n\t\t\treturn encrypt"},
	{"what is opened for an index is shown", "revise.go", "next = r.codec.Copy(next) // the caller's keeps what it may show", "_ = next"},
	{"a history names other records", "read.go", "return t.Type != r.typ || t.ID != id.String() })", "return false })"},
	{"a history names sessions", "read.go", "e.Session = \"\"", "_ = e"},
	{"binned records are got with others", "read.go", "return row.Version == 0 || row.Deleted })\n\tif err := r.authentic", "return row.Version == 0 })\n\tif err := r.authentic"},
	{"a binned record is updated", "write.go", "if row.Deleted {\n\t\treturn fail(d, crm.ErrNotFound)", "if (row.Deleted) && false {\n\t\treturn fail(d, crm.ErrNotFound)"},
	{"a binned record is acted on", "act.go", "if row.Deleted {\n\t\treturn fail(d, crm.ErrNotFound)", "if (row.Deleted) && false {\n\t\treturn fail(d, crm.ErrNotFound)"},
	{"a binned record is authorized", "act.go", "if row.Deleted {\n\t\treturn crm.Header{}, crm.ErrNotFound", "if (row.Deleted) && false {\n\t\treturn crm.Header{}, crm.ErrNotFound"},
	{"a beginning is not checked", "write.go", "if err := w.CheckNew(); err != nil {", "if err := w.CheckNew(); false {"},
	{"an action writes hidden fields", "act.go", "if denial := r.writable(v, prev, false, d); denial != nil {", "if denial := r.writable(v, prev, false, d); false {"},
}

// TestMutants leaves out one check at a time and runs the tests of the package: they must fail each time. It takes minutes, and runs with
// CRMGUARD_SOAK=1; that each mutant can be made is looked at always.
func TestMutants(t *testing.T) {
	if os.Getenv("CRMGUARD_MUTANT") != "" {
		t.Skip("this is the run of one")
	}
	ran, caught := 0, 0
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			source, err := os.ReadFile(m.file)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(source), m.old), "the check has another form")
			if os.Getenv("CRMGUARD_SOAK") == "" {
				return
			}
			dir := t.TempDir()
			changed, overlay := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
			require.NoError(t, os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600))
			original, err := filepath.Abs(m.file)
			require.NoError(t, err)
			b, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(overlay, b, 0o600))
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-short", "-failfast", "-vet=off", "-overlay", overlay, ".")
			cmd.Env = append(os.Environ(), "CRMGUARD_MUTANT=1", "CRMGUARD_SOAK=")
			out, err := cmd.CombinedOutput()
			ran++
			switch {
			case err == nil:
				t.Error("not caught")
			case strings.Contains(string(out), "[build failed]"):
				t.Errorf("does not build\n%s", out)
			case !strings.Contains(string(out), "--- FAIL"):
				t.Errorf("ended otherwise\n%s", out)
			default:
				caught++
				first, _, _ := strings.Cut(string(out)[strings.Index(string(out), "--- FAIL"):], "\n")
				t.Logf("caught: %s", first)
			}
		})
	}
	if ran > 0 {
		t.Logf("%d mutants of %d that ran are caught; there are %d", caught, ran, len(mutants))
	}
}
