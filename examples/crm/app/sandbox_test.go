package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// TestSandboxRules holds what follows from the protect tags against testdata/sandbox.txt: who adds a field or changes a tag sees here what
// becomes of it in a sandbox, and has somebody look at it. UPDATE=1 writes the file.
func TestSandboxRules(t *testing.T) {
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	keeper, err := encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	require.NoError(t, err)
	all, err := doubles(keeper)
	require.NoError(t, err)
	var lines []string
	rules := sandboxRules(all)
	for name, r := range rules {
		if strings.HasPrefix(name, "public.") {
			assert.Equal(t, rules[strings.TrimPrefix(name, "public.")], r)
			continue
		}
		if r.Empty {
			lines = append(lines, name+": no row")
		}
		for column, rule := range r.Columns {
			lines = append(lines, fmt.Sprintf("%s.%s: %s", name, column, rule))
		}
		if d := all[name]; d != nil {
			for _, f := range d.Fields() {
				if !f.Clear {
					lines = append(lines, fmt.Sprintf("%s.body %s: %s, sealed", name, f.Name, sealedRule(f)))
				}
			}
		}
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	const file = "testdata/sandbox.txt"
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)

	// Every type of the program is either restored or left out by name.
	ss, err := schemas()
	require.NoError(t, err)
	for _, s := range ss {
		_, ok := rules[rowsPrefix+s.Type]
		assert.True(t, ok, s.Type)
	}
}
