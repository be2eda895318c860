package rego_test

import (
	"flag"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/rego"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestPolicy runs the Rego tests and demands that they reach every line of every control.
//
//crm:item 22
func TestPolicy(t *testing.T) {
	rego.Alone(t)
	tests, err := rego.RunTests(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, tests.Failed)
	assert.Empty(t, tests.Uncovered, "no test reaches these lines")
	require.Greater(t, tests.Passed, 200, "the Rego tests ran")
}

// TestRunTests: what fails and what is not reached is named.
func TestRunTests(t *testing.T) {
	rego.Alone(t)
	files := fstest.MapFS{}
	for name, text := range filesOf(t, rego.Embedded()) {
		if name != "crm/hold/hold_test.rego" {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	files["crm/x_test.rego"] = &fstest.MapFile{Data: []byte("package crm.x_test\n\nimport data.crm.hold\n\ntest_it if hold.free with input as {}\n")}
	files["crm/extra/extra.rego"] = &fstest.MapFile{Data: []byte("# METADATA\n# schemas:\n#   - input: schema.input\npackage crm.extra\n\np if input.action == \"read\"\n")}
	tests, err := rego.RunTests(t.Context(), files)
	require.NoError(t, err)
	assert.Equal(t, []string{"crm/x_test.rego:5: data.crm.x_test.test_it"}, tests.Failed)
	assert.Equal(t, []string{"crm/extra/extra.rego:6"}, tests.Uncovered)
	_, err = rego.RunTests(t.Context(), fstest.MapFS{})
	refusal(t, err)
}
