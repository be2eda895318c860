package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
)

// TestEraseCommand: crm erase blocks a person at once and says until when that can be taken back; their row comes back as told, refused or not looked for, by the flag and by the
// environment; and it asks for a reason, a second person, and a record that there is.
//
//crm:item 13 partly
func TestEraseCommand(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "in.csv")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("name,phone,email\nAnn Lee,138 0013 5678,ann@example.org\nBob Kay,13900135678,bob@example.org\n")
	mustRun(t, nil, "import", file, "--data", data)
	a, admin := openedAs(t, data)
	p, err := a.Customers.Search(t.Context(), admin, "13800135678", 2, "phone")
	require.NoError(t, err)
	require.Len(t, p.Items, 1)
	id := p.Items[0].Value.ID.String()
	require.NoError(t, a.Close())

	erase := func(more ...string) (string, int) {
		return run(t, nil, append([]string{"erase", "--data", data}, more...)...)
	}
	for name, args := range map[string][]string{
		"no reason":       {id, "--approved-by", "manager@demo.example"},
		"nobody agrees":   {id, "--reason", "a letter"},
		"the same person": {id, "--reason", "a letter", "--approved-by", "admin@demo.example"},
		"sales":           {id, "--reason", "a letter", "--approved-by", "sales@demo.example"},
		"by sales":        {id, "--reason", "a letter", "--by", "sales@demo.example", "--approved-by", "manager@demo.example"},
		"no such record":  {crm.NewUUID().String(), "--reason", "a letter", "--approved-by", "manager@demo.example"},
		"no such type":    {id, "--type", "quote", "--reason", "a letter", "--approved-by", "manager@demo.example"},
		"no id":           {"Ann Lee", "--reason", "a letter", "--approved-by", "manager@demo.example"},
	} {
		out, code := erase(args...)
		assert.NotZero(t, code, "%s: %s", name, out)
		assert.NotContains(t, out, "blocked:", name)
	}
	out, code := erase(id, "--reason", "a letter", "--approved-by", "manager@demo.example")
	require.Zero(t, code, out)
	assert.Regexp(t, regexp.MustCompile(`(?s)^person [0-9a-f-]{36}\n1 records name them; 2 numbers and addresses are on the list.*\nblocked: nothing of them opens from now on\. The keys are destroyed after \d{4}-`), out)

	write("name,phone\nA. Lee,+86 138-0013-5678\n")
	out = mustRun(t, nil, "import", file, "--data", data, "--dry-run")
	assert.Contains(t, out, "1 rows were stored although somebody with such a number was erased: line 2")
	out, code = run(t, nil, "import", file, "--data", data, "--erased", "refuse", "--type", "lead")
	assert.NotZero(t, code)
	assert.Contains(t, out, "line 2: erased")
	out, code = run(t, []string{"CRM_ERASED=refuse"}, "import", file, "--data", data)
	assert.NotZero(t, code)
	assert.Contains(t, out, "line 2: erased")
	out, code = run(t, nil, "import", file, "--data", data, "--erased", "perhaps")
	assert.NotZero(t, code)
	assert.Contains(t, out, "--erased takes refuse, warn or off")
	out = mustRun(t, nil, "import", file, "--data", data, "--erased", "off")
	assert.NotContains(t, out, "erased")
	mustRun(t, nil, "verify", "--data", data)

	a, _ = openedAs(t, data)
	u, err := crm.ParseUUID(id)
	require.NoError(t, err)
	assert.Equal(t, crm.Sealed, customerOf(t, a, u).Phone.State())
	require.NoError(t, a.Close())
}
